// Verifies receipts, inclusion proofs and payout proofs with nothing but this file: WebCrypto for Ed25519 and SHA-256;
// keccak256 and BLAKE3, which browsers do not have, are below. Formats: specs/log.md, specs/settlement.md, specs/events.cddl.
"use strict";

const utf8 = new TextEncoder();
const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const same = (a, b) => a.length === b.length && a.every((byte, at) => byte === b[at]);
const join = (...parts) => {
  const all = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
};

function unhex(text) {
  const digits = text.trim().replace(/^0x/, "");
  if (!/^([0-9a-f]{2})*$/i.test(digits)) throw new Error(`${text}: not hex`);
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

function base64(text) {
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text)) throw new Error("not base64");
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  // One text for one value: what does not come back the same is not canonical.
  if (btoa(String.fromCharCode(...bytes)) !== text) throw new Error("base64 in another than its one form");
  return bytes;
}

async function sha256(bytes) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

async function signed(key, signature, bytes) {
  const imported = await crypto.subtle.importKey("raw", key, { name: "Ed25519" }, false, ["verify"]);
  return crypto.subtle.verify({ name: "Ed25519" }, imported, signature, bytes);
}

// --- CBOR, as far as our receipts go: integers, byte strings, texts, arrays, null. ---

function cbor(bytes) {
  let at = 0;
  const take = (count) => {
    if (at + count > bytes.length) throw new Error("the bytes end too early");
    at += count;
    return bytes.subarray(at - count, at);
  };
  const number = (info) => {
    if (info < 24) return info;
    if (info > 27) throw new Error("a length that we never write");
    const value = take(1 << (info - 24)).reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
    return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;
  };
  const item = () => {
    const [head] = take(1);
    const [major, info] = [head >> 5, head & 31];
    if (head === 0xf6) return null;
    if (major === 0) return number(info);
    if (major === 2) return take(Number(number(info)));
    if (major === 3) return new TextDecoder("utf-8", { fatal: true }).decode(take(Number(number(info))));
    if (major === 4) return Array.from({ length: Number(number(info)) }, item);
    throw new Error(`a kind of item that receipts do not have (${head})`);
  };
  const value = item();
  if (at !== bytes.length) throw new Error("bytes behind the end");
  return value;
}

// --- keccak256 ---

const ROUNDS = (() => {
  // The round constants come from a shift register, as the specification has them.
  let register = 1;
  const bit = () => {
    const out = register & 1;
    register = (register << 1) ^ (register >> 7 ? 0x171 : 0);
    return out;
  };
  return Array.from({ length: 24 }, () => {
    let constant = 0n;
    for (let j = 0; j < 7; j++) if (bit()) constant |= 1n << BigInt((1 << j) - 1);
    return constant;
  });
})();
const MASK = (1n << 64n) - 1n;
const turn = (word, by) => by === 0n ? word : ((word << by) | (word >> (64n - by))) & MASK;

function permute(lanes) {
  for (const constant of ROUNDS) {
    const column = [0, 1, 2, 3, 4].map((x) => lanes[x] ^ lanes[x + 5] ^ lanes[x + 10] ^ lanes[x + 15] ^ lanes[x + 20]);
    for (let at = 0; at < 25; at++) lanes[at] ^= column[(at + 4) % 5] ^ turn(column[(at + 1) % 5], 1n);
    let [x, y, current] = [1, 0, lanes[1]];
    for (let t = 0; t < 24; t++) {
      [x, y] = [y, (2 * x + 3 * y) % 5];
      const moved = lanes[x + 5 * y];
      lanes[x + 5 * y] = turn(current, BigInt(((t + 1) * (t + 2) / 2) % 64));
      current = moved;
    }
    for (let row = 0; row < 25; row += 5) {
      const old = lanes.slice(row, row + 5);
      for (let at = 0; at < 5; at++) lanes[row + at] = old[at] ^ (~old[(at + 1) % 5] & MASK & old[(at + 2) % 5]);
    }
    lanes[0] ^= constant;
  }
}

function keccak256(bytes) {
  const rate = 136;
  const padded = new Uint8Array((Math.floor(bytes.length / rate) + 1) * rate);
  padded.set(bytes);
  padded[bytes.length] ^= 0x01;
  padded[padded.length - 1] ^= 0x80;
  const lanes = Array(25).fill(0n);
  for (let block = 0; block < padded.length; block += rate) {
    const view = new DataView(padded.buffer, block, rate);
    for (let at = 0; at < rate / 8; at++) lanes[at] ^= view.getBigUint64(8 * at, true);
    permute(lanes);
  }
  const out = new DataView(new ArrayBuffer(32));
  for (let at = 0; at < 4; at++) out.setBigUint64(8 * at, lanes[at], true);
  return new Uint8Array(out.buffer);
}

// --- BLAKE3 of at most one chunk (1 024 bytes): receipts are shorter. ---

const BLAKE3_IV = [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];
const BLAKE3_ORDER = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];

function blake3(bytes) {
  if (bytes.length > 1024) throw new Error("longer than any receipt");
  let chain = BLAKE3_IV.slice();
  const blocks = Math.max(1, Math.ceil(bytes.length / 64));
  for (let n = 0; n < blocks; n++) {
    const part = bytes.subarray(64 * n, 64 * n + 64);
    const block = new Uint8Array(64);
    block.set(part);
    const view = new DataView(block.buffer);
    let words = Array.from({ length: 16 }, (_, at) => view.getUint32(4 * at, true));
    const flags = (n === 0 ? 1 : 0) | (n === blocks - 1 ? 2 | 8 : 0);
    const state = [...chain, ...BLAKE3_IV.slice(0, 4), 0, 0, part.length, flags];
    const right = (word, by) => (word >>> by) | (word << (32 - by));
    const mix = (a, b, c, d, x, y) => {
      state[a] = (state[a] + state[b] + x) | 0;
      state[d] = right(state[d] ^ state[a], 16);
      state[c] = (state[c] + state[d]) | 0;
      state[b] = right(state[b] ^ state[c], 12);
      state[a] = (state[a] + state[b] + y) | 0;
      state[d] = right(state[d] ^ state[a], 8);
      state[c] = (state[c] + state[d]) | 0;
      state[b] = right(state[b] ^ state[c], 7);
    };
    for (let round = 0; round < 7; round++) {
      for (let at = 0; at < 4; at++) mix(at, at + 4, at + 8, at + 12, words[2 * at], words[2 * at + 1]);
      for (let at = 0; at < 4; at++) {
        mix(at, 4 + (at + 1) % 4, 8 + (at + 2) % 4, 12 + (at + 3) % 4, words[8 + 2 * at], words[9 + 2 * at]);
      }
      words = BLAKE3_ORDER.map((from) => words[from]);
    }
    chain = chain.map((_, at) => state[at] ^ state[at + 8]);
  }
  const out = new DataView(new ArrayBuffer(32));
  chain.forEach((word, at) => out.setUint32(4 * at, word, true));
  return new Uint8Array(out.buffer);
}

// --- Receipts ---

const FINISH = ["stop", "length", "cancelled"];

async function checkReceipt(bytes) {
  const pair = cbor(bytes);
  if (!Array.isArray(pair) || pair.length !== 2 || pair[1].length !== 64) throw new Error("not a signed receipt");
  const receipt = cbor(pair[0]);
  if (!Array.isArray(receipt) || receipt.length !== 17 || receipt[0] !== 1) throw new Error("not a receipt of version 1");
  const operator = receipt[4];
  if (!(await signed(operator, pair[1], join(utf8.encode("counterfoil receipt 1\0"), pair[0])))) {
    throw new Error(`the signature is not that of operator ${hex(operator)}`);
  }
  return {
    job: hex(receipt[1]),
    operator: hex(operator),
    weights: hex(receipt[5]),
    numerics: receipt[6],
    input_tokens: receipt[9],
    output_tokens: receipt[10],
    finish: FINISH[receipt[13]],
    hash: blake3(bytes),
  };
}

// --- The log: policies, checkpoints, proofs ---

async function policyKey(text, type) {
  const [name, id, key] = [text.split("+", 1)[0], ...text.split("+").slice(1, 2), text.split("+").slice(2).join("+")];
  const typed = base64(key);
  if (typed.length !== 33 || typed[0] !== type) throw new Error(`${name}: not a key of this kind`);
  const hash = await sha256(join(utf8.encode(`${name}\n`), typed));
  if (hex(hash.subarray(0, 4)) !== id) throw new Error(`${name}: the key's id is not its hash`);
  return { name, id: hash.subarray(0, 4), key: typed.subarray(1) };
}

async function readPolicy(text) {
  const policy = { logs: [], members: new Map(), quorum: undefined };
  for (const line of text.split("\n")) {
    const words = line.split(/[ \t]+/).filter((word) => word !== "");
    if (words.length === 0 || words[0].startsWith("#")) continue;
    if (words[0] === "log") policy.logs.push(await policyKey(words[1], 1));
    else if (words[0] === "witness") policy.members.set(words[1], { witness: await policyKey(words[2], 4) });
    else if (words[0] === "group") {
      const of = words.slice(3);
      const threshold = { any: 1, all: of.length }[words[2]] ?? Number(words[2]);
      if (!of.every((name) => policy.members.has(name)) || !(threshold >= 1 && threshold <= of.length)) {
        throw new Error(`the policy's group ${words[1]} cannot hold`);
      }
      policy.members.set(words[1], { threshold, of });
    } else if (words[0] === "quorum" && policy.quorum === undefined) policy.quorum = words[1];
    else throw new Error(`the policy's line ${JSON.stringify(line)} is not understood`);
  }
  if (policy.logs.length === 0 || policy.quorum === undefined) throw new Error("the policy has no log, or no quorum line");
  if (policy.quorum !== "none" && !policy.members.has(policy.quorum)) throw new Error("the policy's quorum is nobody");
  return policy;
}

async function openCheckpoint(note, policy) {
  const split = note.lastIndexOf("\n\n");
  if (split < 0) throw new Error("the checkpoint has no signatures");
  const [text, block] = [note.slice(0, split + 1), note.slice(split + 2)];
  const match = /^([^\n]+)\n(0|[1-9][0-9]*)\n([A-Za-z0-9+/]{43}=)\n$/.exec(text);
  if (!match || !block.endsWith("\n")) throw new Error("not a checkpoint in its one form");
  const lines = block.slice(0, -1).split("\n").map((line) => {
    const parts = /^\u2014 ([^ +]+) ([A-Za-z0-9+/=]+)$/.exec(line);
    if (!parts) throw new Error("a signature line in another form");
    return { name: parts[1], blob: base64(parts[2]) };
  });
  const of = (key) => lines.filter((line) => line.name === key.name && same(line.blob.subarray(0, 4), key.id));
  let log;
  for (const key of policy.logs.filter((key) => key.name === match[1])) {
    for (const line of of(key)) {
      if (!(await signed(key.key, line.blob.subarray(4), utf8.encode(text)))) throw new Error(`the signature of ${key.name} is wrong`);
      log = key.name;
    }
  }
  if (log === undefined) throw new Error("no log of the policy signed the checkpoint");
  const cosigned = new Set();
  for (const [name, { witness }] of policy.members) {
    for (const line of witness ? of(witness) : []) {
      const seconds = new DataView(line.blob.buffer, line.blob.byteOffset + 4, 8).getBigUint64(0);
      const message = utf8.encode(`cosignature/v1\ntime ${seconds}\n${text}`);
      if (!(await signed(witness.key, line.blob.subarray(12), message))) throw new Error(`the cosignature of ${witness.name} is wrong`);
      cosigned.add(name);
    }
  }
  const holds = (name) => {
    const { threshold, of } = policy.members.get(name);
    return of ? of.filter(holds).length >= threshold : cosigned.has(name);
  };
  if (policy.quorum !== "none" && !holds(policy.quorum)) throw new Error(`${cosigned.size} witnesses cosigned, which is not the policy's quorum`);
  return { origin: log, size: BigInt(match[2]), root: base64(match[3]), witnesses: cosigned.size };
}

// RFC 9162, 2.1.3.2.
async function rootOf(leaf, index, size, proof) {
  const node = (left, right) => sha256(join([1], left, right));
  let [at, last, hash] = [index, size - 1n, await sha256(join([0], leaf))];
  for (const sibling of proof) {
    if (last === 0n) throw new Error("the proof is too long");
    if (at & 1n || at === last) {
      hash = await node(sibling, hash);
      while (!(at & 1n) && at !== 0n) [at, last] = [at >> 1n, last >> 1n];
    } else {
      hash = await node(hash, sibling);
    }
    [at, last] = [at >> 1n, last >> 1n];
  }
  if (last !== 0n) throw new Error("the proof is too short");
  return hash;
}

async function checkInclusion(proofText, event, policyText, receipt) {
  const policy = await readPolicy(policyText);
  const split = proofText.indexOf("\n\n");
  const [first, ...lines] = proofText.slice(0, split).split("\n");
  if (split < 0 || first !== "c2sp.org/tlog-proof@v1") throw new Error("not a tlog-proof");
  if (lines[0]?.startsWith("extra ")) lines.shift();
  const index = /^index (0|[1-9][0-9]*)$/.exec(lines.shift() ?? "");
  if (!index) throw new Error("the proof has no index");
  const head = await openCheckpoint(proofText.slice(split + 2), policy);
  if (BigInt(index[1]) >= head.size) throw new Error("the leaf lies beyond the checkpoint");
  const root = await rootOf(event, BigInt(index[1]), head.size, lines.map(base64));
  if (!same(root, head.root)) throw new Error("the event is not that leaf: the proof leads to another root");
  let charge;
  if (receipt) {
    const { hash, job } = await checkReceipt(receipt);
    const found = Array.from({ length: Math.max(0, event.length - 31) }, (_, at) => at).some((at) => same(event.subarray(at, at + 32), hash));
    if (!found) throw new Error("the event does not carry this receipt's hash");
    charge = job;
  }
  return { leaf: index[1], ...head, charge };
}

// --- Payouts: OpenZeppelin's StandardMerkleTree over (address, uint256). ---

function checkPayout(text, address, chainRoot) {
  const file = JSON.parse(text);
  const wanted = hex(unhex(address));
  const claim = (file.claims ?? []).find((claim) => hex(unhex(claim.operator)) === wanted);
  if (!claim) throw new Error("the file has no claim of this address");
  if (wanted.length !== 40 || !/^[0-9]+$/.test(claim.cumulative_units)) throw new Error("not a claim");
  const word = (digits) => unhex(digits.padStart(64, "0"));
  let node = keccak256(keccak256(join(word(wanted), word(BigInt(claim.cumulative_units).toString(16)))));
  for (const sibling of claim.proof.map(unhex)) {
    const pair = hex(node) < hex(sibling) ? [node, sibling] : [sibling, node];
    node = keccak256(join(...pair));
  }
  const root = `0x${hex(node)}`;
  if (root !== file.root.toLowerCase()) throw new Error(`the proof leads to ${root}, the file says ${file.root}`);
  if (chainRoot.trim() && root !== chainRoot.trim().toLowerCase()) throw new Error(`the chain has another root than ${root}`);
  return { operator: `0x${wanted}`, cumulative_units: claim.cumulative_units, epoch: file.epoch, root, asked_chain: Boolean(chainRoot.trim()) };
}

// --- The page ---

const place = (id) => document.getElementById(id);

async function file(id) {
  const [chosen] = place(id).files;
  if (!chosen) throw new Error("choose the file first");
  return new Uint8Array(await chosen.arrayBuffer());
}

const textOf = async (id) => new TextDecoder("utf-8", { fatal: true }).decode(await file(id));

function answer(name, check) {
  place(`check-${name}`).addEventListener("click", async () => {
    const says = place(`says-${name}`);
    says.className = says.textContent = "";
    try {
      const lines = await check();
      says.className = "true";
      says.textContent = lines.join("\n");
    } catch (error) {
      says.className = "false";
      says.textContent = `Not proved: ${error.message}`;
    }
  });
}

answer("receipt", async () => {
  const receipt = await checkReceipt(await file("receipt-file"));
  return [
    "Signed by the operator.",
    `job ${receipt.job}`,
    `operator ${receipt.operator}`,
    `${receipt.input_tokens} tokens in, ${receipt.output_tokens} out, ended by ${receipt.finish}`,
    `weights ${receipt.weights}, numerics ${receipt.numerics}`,
  ];
});

answer("inclusion", async () => {
  const receipt = place("charge-file").files.length ? await file("charge-file") : undefined;
  const proved = await checkInclusion(await textOf("proof-file"), await file("event-file"), await textOf("policy-file"), receipt);
  return [
    `In the log: event ${proved.leaf} of ${proved.size}.`,
    `log ${proved.origin}`,
    `root ${hex(proved.root)}`,
    proved.witnesses ? `cosigned by ${proved.witnesses} witnesses of the policy` : "no witness cosigned it",
    ...(proved.charge ? [`It is the charge of job ${proved.charge}.`] : []),
  ];
});

answer("payout", async () => {
  const proved = checkPayout(await textOf("claims-file"), place("address").value, place("root").value);
  return [
    `Payable for life to ${proved.operator}: ${proved.cumulative_units} millionths of a token.`,
    `epoch ${proved.epoch}, root ${proved.root}`,
    proved.asked_chain ? "That is the root on the chain." : "Compare the root with the settlement's event on the chain.",
  ];
});
