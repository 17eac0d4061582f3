// Leaving a vault with nothing but a wallet: no build, no library, no server of ours. index.html is the page; the
// functions below take any EIP-1193 provider, so that they can be tried without a browser.
"use strict";

const SELECTORS = {
  accountOf: "0x8086b8ba",
  exitDelay: "0x28388630",
  token: "0xfc0c546a",
  requestExit: "0x7f8e3b4e",
  cancelExit: "0xfdf364e4",
  finalizeExit: "0x25492557",
};
// How often the node is asked whether a transaction is in a block.
const RECEIPT_POLL_MS = 1000;

const isAddress = (text) => /^0x[0-9a-fA-F]{40}$/.test(text);

function requireAddress(name, text) {
  if (!isAddress(text)) throw new Error(`${name}: expected 0x and 40 hex digits, got "${text}"`);
  return text.toLowerCase();
}

const padded = (address) => address.slice(2).padStart(64, "0");

// The i-th 32-byte word of an answer.
function word(answer, index) {
  const digits = answer.slice(2 + 64 * index, 66 + 64 * index);
  if (digits.length !== 64) throw new Error("this address does not answer like a vault: check it");
  return BigInt(`0x${digits}`);
}

async function read(provider, vault, data) {
  return provider.request({ method: "eth_call", params: [{ to: vault, data }, "latest"] });
}

// Units are 1e-6 of a whole token.
function decimal(units) {
  return `${units / 1000000n}.${(units % 1000000n).toString().padStart(6, "0")}`;
}

async function status(provider, vaultText, accountText) {
  const vault = requireAddress("vault", vaultText);
  const account = requireAddress("account", accountText);
  const answer = await read(provider, vault, SELECTORS.accountOf + padded(account));
  const delay = word(await read(provider, vault, SELECTORS.exitDelay), 0);
  const token = `0x${word(await read(provider, vault, SELECTORS.token), 0).toString(16).padStart(40, "0")}`;
  const block = await provider.request({ method: "eth_getBlockByNumber", params: ["latest", false] });
  const exitAt = word(answer, 4);
  // The chain's clock, not this machine's.
  const now = BigInt(block.timestamp);
  const stage = exitAt === 0n ? "not requested" : exitAt > now ? "waiting" : "due";
  const wait = stage === "waiting" ? exitAt - now : 0n;
  return { balance: decimal(word(answer, 0)), exitAt, delay, wait, stage, token };
}

async function send(provider, vaultText, from, data) {
  const vault = requireAddress("vault", vaultText);
  const call = { from, to: vault, data };
  // A call that would fail is not offered for signing.
  await provider.request({ method: "eth_estimateGas", params: [call] });
  const hash = await provider.request({ method: "eth_sendTransaction", params: [call] });
  for (;;) {
    const receipt = await provider.request({ method: "eth_getTransactionReceipt", params: [hash] });
    if (receipt) {
      if (receipt.status !== "0x1") throw new Error(`transaction ${hash} was mined and failed`);
      return hash;
    }
    await new Promise((resolve) => setTimeout(resolve, RECEIPT_POLL_MS));
  }
}

const requestExit = (provider, vault, from) => send(provider, vault, from, SELECTORS.requestExit);
const cancelExit = (provider, vault, from) => send(provider, vault, from, SELECTORS.cancelExit);
const finalizeExit = (provider, vault, from, to) =>
  send(provider, vault, from, SELECTORS.finalizeExit + padded(requireAddress("to", to)));

async function connect(provider) {
  const accounts = await provider.request({ method: "eth_requestAccounts" });
  if (accounts.length === 0) throw new Error("the wallet offered no account");
  return accounts[0];
}

globalThis.counterfoilExit = { SELECTORS, status, requestExit, cancelExit, finalizeExit, connect, decimal };

// -------------------------------------------------------------------- the page

function startPage() {
  const element = (id) => document.getElementById(id);
  const say = (text) => {
    element("says").textContent = text;
  };
  let account = null;

  const attempt = (action) => async () => {
    try {
      if (!globalThis.ethereum) throw new Error("no wallet was found in this browser");
      if (!account) account = await connect(globalThis.ethereum);
      await action(globalThis.ethereum, element("vault").value.trim());
      await show();
    } catch (error) {
      say(error.message || String(error));
    }
  };

  async function show() {
    const found = await status(globalThis.ethereum, element("vault").value.trim(), account);
    const days = (seconds) => `${(Number(seconds) / 86400).toFixed(2)} days`;
    const wait = found.stage === "waiting" ? `, ${days(found.wait)} to go` : "";
    element("account").textContent = account;
    element("balance").textContent = `${found.balance} of token ${found.token}`;
    element("stage").textContent = `${found.stage}${wait} (delay: ${days(found.delay)})`;
    element("request").disabled = found.stage !== "not requested";
    element("cancel").disabled = found.stage === "not requested";
    element("finalize").disabled = found.stage !== "due";
    say("");
  }

  const named = new URLSearchParams(location.search).get("vault");
  if (named) element("vault").value = named;
  element("look").addEventListener("click", attempt(async () => {}));
  element("request").addEventListener("click", attempt((wallet, vault) => requestExit(wallet, vault, account)));
  element("cancel").addEventListener("click", attempt((wallet, vault) => cancelExit(wallet, vault, account)));
  element("finalize").addEventListener(
    "click",
    attempt((wallet, vault) => finalizeExit(wallet, vault, account, element("to").value.trim() || account)),
  );
}

if (typeof document !== "undefined") startPage();
