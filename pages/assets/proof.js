// Checks a receipt in this browser: the operator's signature over its bytes, the counts in them, the charge's entry in the
// log's tree, the signature of the tree's head. Nothing here asks a server anything.

const bytesOf = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
const text = new TextEncoder();
const joined = (...parts) => {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return whole;
};
const equal = (a, b) => a.length === b.length && a.every((byte, at) => byte === b[at]);
const holds = (whole, part) => {
  for (let at = 0; at + part.length <= whole.length; at += 1) if (equal(whole.subarray(at, at + part.length), part)) return true;
  return false;
};

/** One CBOR item: [value, where the next begins]. Numbers, bytes, texts and arrays: all that a receipt has. */
function cbor(bytes, start = 0) {
  const major = bytes[start] >> 5;
  let [length, at] = [bytes[start] & 31, start + 1];
  if (length >= 24) {
    const size = 1 << (length - 24);
    if (size > 8) throw new Error("not a receipt");
    length = 0;
    for (let count = 0; count < size; count += 1) length = length * 256 + bytes[at + count];
    at += size;
  }
  if (major === 0) return [length, at];
  if (major === 2) return [bytes.slice(at, at + length), at + length];
  if (major === 3) return [new TextDecoder().decode(bytes.slice(at, at + length)), at + length];
  if (major !== 4) throw new Error("not a receipt");
  const items = [];
  for (let count = 0; count < length; count += 1) {
    const [item, next] = cbor(bytes, at);
    items.push(item);
    at = next;
  }
  return [items, at];
}

/** The 32 key bytes of an operator's name: base32 of a prefix, the key and a checksum. */
function operatorKey(name) {
  let [bits, value] = [0, 0];
  const bytes = [];
  for (const character of name) {
    value = ((value << 5) | "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(character)) & 0xffffff;
    bits += 5;
    if (bits >= 8) {
      bits -= 8;
      bytes.push((value >> bits) & 255);
    }
  }
  return Uint8Array.from(bytes.slice(1, 33));
}

async function signed(key, message, signature) {
  const imported = await crypto.subtle.importKey("raw", key, { name: "Ed25519" }, false, ["verify"]);
  return crypto.subtle.verify({ name: "Ed25519" }, imported, signature, message);
}

const sha256 = async (...parts) => new Uint8Array(await crypto.subtle.digest("SHA-256", joined(...parts)));
const node = (left, right) => sha256(Uint8Array.of(1), left, right);

/** The root that a leaf and its path lead to (RFC 9162 2.1.3.2); null when the path does not fit. */
async function root(index, size, leaf, path) {
  let [at, last, hash] = [BigInt(index), BigInt(size) - 1n, leaf];
  if (at > last) return null;
  for (const sibling of path) {
    if (last === 0n) return null;
    if (at & 1n || at === last) {
      hash = await node(sibling, hash);
      while (at !== 0n && !(at & 1n)) [at, last] = [at >> 1n, last >> 1n];
    } else hash = await node(hash, sibling);
    [at, last] = [at >> 1n, last >> 1n];
  }
  return last === 0n ? hash : null;
}

const IV = [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];
const ORDER = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];

function mix(state, a, b, c, d, x, y) {
  const turn = (word, by) => (word >>> by) | (word << (32 - by));
  state[a] = state[a] + state[b] + x;
  state[d] = turn(state[d] ^ state[a], 16);
  state[c] = state[c] + state[d];
  state[b] = turn(state[b] ^ state[c], 12);
  state[a] = state[a] + state[b] + y;
  state[d] = turn(state[d] ^ state[a], 8);
  state[c] = state[c] + state[d];
  state[b] = turn(state[b] ^ state[c], 7);
}

/** BLAKE3 of at most 1024 bytes: one chunk, which a receipt fits into. */
export function blake3(bytes) {
  if (bytes.length > 1024) return null;
  const blocks = Math.max(1, Math.ceil(bytes.length / 64));
  let chain = Uint32Array.from(IV);
  for (let number = 0; number < blocks; number += 1) {
    const part = bytes.subarray(number * 64, number * 64 + 64);
    const padded = new Uint8Array(64);
    padded.set(part);
    const view = new DataView(padded.buffer);
    let words = Array.from({ length: 16 }, (_, at) => view.getUint32(at * 4, true));
    const flags = (number === 0 ? 1 : 0) | (number === blocks - 1 ? 2 | 8 : 0);
    const state = Uint32Array.from([...chain, ...IV.slice(0, 4), 0, 0, part.length, flags]);
    for (let round = 0; round < 7; round += 1) {
      for (let at = 0; at < 4; at += 1) mix(state, at, 4 + at, 8 + at, 12 + at, words[at * 2], words[at * 2 + 1]);
      for (let at = 0; at < 4; at += 1) mix(state, at, 4 + ((at + 1) % 4), 8 + ((at + 2) % 4), 12 + ((at + 3) % 4), words[8 + at * 2], words[9 + at * 2]);
      words = ORDER.map((from) => words[from]);
    }
    chain = Uint32Array.from({ length: 8 }, (_, at) => state[at] ^ state[at + 8]);
  }
  const out = new DataView(new ArrayBuffer(32));
  chain.forEach((word, at) => out.setUint32(at * 4, word, true));
  return new Uint8Array(out.buffer);
}

async function signature(facts) {
  const [[receipt, seal]] = cbor(bytesOf(facts.signed_receipt));
  const [fields] = cbor(receipt);
  const key = operatorKey(facts.operator);
  const domain = text.encode("counterfoil receipt 1\0");
  if (!equal(fields[4], key)) return { name: "Another operator.", ok: false, text: "The receipt names another operator than this page was told." };
  if (!(await signed(key, joined(domain, receipt), seal))) {
    return { name: "Not signed.", ok: false, text: "The operator's key did not sign these bytes. Save the evidence and tell an auditor." };
  }
  if (fields[9] !== facts.input_tokens || fields[10] !== facts.output_tokens) {
    return { name: "Counts differ.", ok: false, text: `Signed are ${fields[9]} in and ${fields[10]} out; the page says ${facts.input_tokens} and ${facts.output_tokens}.` };
  }
  return { name: "Signature checked here.", ok: true, text: `The operator's key signed these bytes, and they say ${fields[9]} tokens in and ${fields[10]} out.` };
}

/** Head of the tree in a proof file, if the log's key signed it. */
async function head(note, logKey) {
  const [body, lines] = [note.slice(0, note.indexOf("\n\n") + 1), note.slice(note.indexOf("\n\n") + 2)];
  const [origin, size, hash] = body.split("\n");
  const [name, , encoded] = /^(.*)\+([0-9a-f]{8})\+(.*)$/.exec(logKey).slice(1);
  const line = lines.split("\n").find((one) => one.startsWith(`\u2014 ${name} `));
  const good = line && origin === name
    && (await signed(bytesOf(encoded).slice(1), text.encode(body), bytesOf(line.slice(name.length + 3)).slice(4)));
  return { size: Number(size), root: bytesOf(hash), good };
}

async function inclusion(facts) {
  if (facts.leaf === null) return { name: "No entry.", ok: null, text: "Nothing was charged, so there is nothing to prove." };
  if (!facts.proof) return { name: "Not signed yet.", ok: null, text: "The next signed head of the tree will cover the entry in a moment." };
  if (!facts.entry || !facts.log_key) return { name: "Proof not checked here.", ok: null, text: "The entry's bytes are shown to the account that paid." };
  const [first, note] = [facts.proof.slice(0, facts.proof.indexOf("\n\n")), facts.proof.slice(facts.proof.indexOf("\n\n") + 2)];
  const [, index, ...hashes] = first.split("\n");
  const entry = bytesOf(facts.entry);
  const name = blake3(bytesOf(facts.signed_receipt));
  if (name && !holds(entry, name)) return { name: "Another receipt.", ok: false, text: "The entry in the log names another receipt than this one." };
  const { size, root: expected, good } = await head(note, facts.log_key);
  const computed = await root(index.slice("index ".length), size, await sha256(Uint8Array.of(0), entry), hashes.map(bytesOf));
  if (!computed || !equal(computed, expected)) return { name: "Not in the tree.", ok: false, text: "The entry does not lead to the root that was signed. Save the evidence and tell an auditor." };
  if (!good) return { name: "Head not signed.", ok: false, text: "The tree's head is not signed by the key of this log." };
  return { name: "Proof checked here.", ok: true, text: `${hashes.length} hashes lead from the charge's entry to the root of ${size} entries that the log's key signed; this server names that key.` };
}

/** Every check, in order: { name, ok: true, false or null when it could not be made, text }. */
export async function checks(facts) {
  const made = async (check) => {
    try { return await check(facts); } catch (error) {
      return { name: "Not checked.", ok: null, text: `This browser could not check it: ${error.message}` };
    }
  };
  return [await made(signature), await made(inclusion)];
}
