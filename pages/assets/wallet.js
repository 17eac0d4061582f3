// What a wallet signs: one limit with the sign-in in it, a deposit, a withdrawal. It talks to the wallet and to this network.
import { element } from "./markdown.js";

const at = (id) => document.getElementById(id);

/** The 32-byte word of an address or a number, in hex. */
const word = (value) => (typeof value === "bigint" ? value.toString(16) : value.replace(/^0x/, "").toLowerCase()).padStart(64, "0");

function wallet() {
  if (!globalThis.ethereum) throw new Error("This browser has no wallet. Install one, or use the command: counterfoil exit, POST /v1/authorisations.");
  return globalThis.ethereum;
}

async function call(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(path, options);
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error.message);
  return told;
}

async function mined(transaction) {
  for (;;) {
    const receipt = await wallet().request({ method: "eth_getTransactionReceipt", params: [transaction] });
    if (receipt) {
      if (receipt.status !== "0x1") throw new Error("The chain refused the transaction. Your tokens are where they were.");
      return receipt;
    }
    await new Promise((done) => setTimeout(done, 500));
  }
}

async function transact(from, to, data) {
  return mined(await wallet().request({ method: "eth_sendTransaction", params: [{ from, to, data }] }));
}

/** A decimal of whole tokens in the token's smallest parts. */
function parts(decimal, decimals) {
  const [whole, fraction = ""] = decimal.trim().split(".");
  if (!/^\d+$/.test(whole) || !/^\d{0,6}$/.test(fraction)) throw new Error("The amount is a number with at most six decimals.");
  return BigInt(whole + fraction.padEnd(decimals, "0"));
}

/** One signature: sign-in and limit. */
async function authorise(from, limit) {
  const { nonce } = await call("/v1/sessions/nonce", {});
  const query = new URLSearchParams({ nonce, wallet: from, limit });
  const terms = await call(`/v1/authorisations/typed-data?${query}`);
  const signature = await wallet().request({ method: "eth_signTypedData_v4", params: [from, JSON.stringify(terms.typed_data)] });
  const { max_cumulative_units, valid_until_s, chain_nonce } = terms;
  return call("/v1/authorisations", { nonce, wallet: from, max_cumulative_units, valid_until_s, chain_nonce, signature });
}

async function fund(say) {
  const amount = at("amount").value;
  const [from] = await wallet().request({ method: "eth_requestAccounts" });
  const { contracts, confirmations } = await call("/v1/chain");
  const base = parts(amount, contracts.token_decimals);
  say("Your wallet asks you to sign the limit.");
  await authorise(from, amount);
  const { deposited: before } = await standing(from);
  say("Your wallet asks you to let the vault take the tokens, then to deposit them.");
  await transact(from, contracts.token, `0x095ea7b3${word(contracts.vault)}${word(base)}`);
  const { blockNumber } = await transact(from, contracts.vault, `0x47e7ef24${word(from)}${word(base)}`);
  await counted({ from, mined: Number(blockNumber), confirmations, before }, say);
}

/** What the books know of a wallet's deposits, and the balance. */
async function standing(from) {
  const balance = await call("/v1/balance");
  const known = balance.wallets.find(({ wallet: address }) => address.toLowerCase() === from.toLowerCase());
  return { balance, deposited: known?.deposited_units ?? 0 };
}

/** Until the deposit is in the books; each look says how many blocks lie on it. */
async function counted({ from, mined, confirmations, before }, say) {
  for (;;) {
    const { balance, deposited } = await standing(from);
    const newest = Number(await wallet().request({ method: "eth_blockNumber" }));
    say(`Deposited. ${Math.min(Math.max(newest - mined, 0), confirmations)} of ${confirmations} blocks; then it can be spent.`);
    if (deposited > before) {
      say("The deposit is confirmed and can be spent.");
      at("balance").textContent = balance.balances[0]?.available ?? "";
      return;
    }
    await new Promise((done) => setTimeout(done, 1_000));
  }
}

async function withdraw(said) {
  const voucher = await call("/v1/withdrawals", { amount: at("take").value.trim() });
  const go = element("button", { class: "btn", type: "button" }, "Send it with my wallet");
  const until = new Date(voucher.deadline_s * 1_000).toISOString().slice(0, 16).replace("T", " ");
  const status = element("p", { role: "status" });
  go.addEventListener("click", () => attempt(go, status, async () => {
    await transact(voucher.wallet, voucher.contract, voucher.calldata);
    status.textContent = "Paid out by the vault.";
  }));
  said.replaceChildren(
    element("p", {}, `${voucher.amount} is set aside for you. The voucher is good until ${until} UTC; what is not taken by then comes back.`),
    element("pre", { tabindex: "0", "aria-label": "Voucher" }, `to   ${voucher.contract}\ndata ${voucher.calldata}`), go, status);
}

async function attempt(button, status, run) {
  button.disabled = true;
  try {
    await run();
  } catch (error) {
    status.textContent = `${error.message} ${/signed|sent/.test(error.message) ? "" : "Nothing more was done."}`.trim();
  } finally {
    button.disabled = false;
  }
}

at("fund")?.addEventListener("submit", (event) => {
  event.preventDefault();
  const status = at("fund-said");
  attempt(at("connect"), status, () => fund((words) => { status.textContent = words; }));
});
at("withdraw")?.addEventListener("submit", (event) => {
  event.preventDefault();
  const said = at("withdraw-said");
  attempt(event.submitter, said, () => withdraw(said));
});
document.documentElement.dataset.ready = "true";
