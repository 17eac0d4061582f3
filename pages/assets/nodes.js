// Makes an operator's two keys in this browser: only their public halves go into the form, the secret ones into files.
import { element } from "./markdown.js";

const at = (id) => document.getElementById(id);
const BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const USER = 20 << 3;
const SEED = 18 << 3;

function crc16(bytes) {
  let crc = 0;
  for (const byte of bytes) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 0x8000 ? ((crc << 1) ^ 0x1021) & 0xffff : (crc << 1) & 0xffff;
  }
  return crc;
}

/** Base32 of bytes and their checksum, as NATS writes its keys. */
function nkey(bytes) {
  const crc = crc16(bytes);
  let [bits, value, text] = [0, 0, ""];
  for (const byte of [...bytes, crc & 255, crc >> 8]) {
    value = ((value << 8) | byte) & 0xffff;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      text += BASE32[(value >> bits) & 31];
    }
  }
  return bits ? text + BASE32[(value << (5 - bits)) & 31] : text;
}

const raw = (url) => Uint8Array.from(atob(url.replace(/-/g, "+").replace(/_/g, "/")), (character) => character.charCodeAt(0));
const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");

async function pair(name, uses) {
  const { privateKey } = await crypto.subtle.generateKey({ name }, true, uses);
  const { d, x } = await crypto.subtle.exportKey("jwk", privateKey);
  return { secret: raw(d), open: raw(x) };
}

function save(name, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  element("a", { href: address, download: name }).click();
  URL.revokeObjectURL(address);
}

const make = at("make");
if (make && globalThis.crypto?.subtle) {
  make.hidden = false;
  make.addEventListener("click", async () => {
    try {
      const [operator, node] = [await pair("Ed25519", ["sign", "verify"]), await pair("X25519", ["deriveBits"])];
      at("operator").value = nkey([USER, ...operator.open]);
      at("sealing").value = hex(node.open);
      save("operator.seed", `${nkey([SEED | (USER >> 5), (USER & 31) << 3, ...operator.secret])}\n`);
      save("sealing.key", `${hex(node.secret)}\n`);
      at("made").textContent = "Made. Your browser has saved operator.seed and sealing.key; keep them, nobody else has them.";
    } catch (error) {
      at("made").textContent = `This browser cannot make these keys: ${error.message}`;
    }
  });
}
document.documentElement.dataset.ready = "true";
