// The unmodified npm clients, in one line of use: node client.cjs URL [BODY] pays for URL and prints what came;
// node client.cjs --payload REQUIREMENTS prints a signed payment without sending it. The wallet is in WALLET_KEY.
const { wrapFetchWithPaymentFromConfig, decodePaymentResponseHeader } = require("@x402/fetch");
const { decodePaymentRequiredHeader } = require("@x402/core/http");
const { ExactEvmScheme } = require("@x402/evm");
const { privateKeyToAccount } = require("viem/accounts");

const client = new ExactEvmScheme(privateKeyToAccount(process.env.WALLET_KEY));

async function payload(requirements) {
  const signed = await client.createPaymentPayload(2, requirements, {});
  return { ...signed, accepted: requirements };
}

async function fetched(url, body) {
  // The client's own switch for tokens that are not on its list, as a development dollar is not.
  const spendControls = { allowedAssets: true };
  const paying = wrapFetchWithPaymentFromConfig(fetch, { schemes: [{ network: "eip155:*", client }], spendControls });
  const headers = { "content-type": "application/json" };
  const answer = await paying(url, body ? { method: "POST", headers, body } : undefined);
  const paid = answer.headers.get("payment-response");
  const asked = answer.headers.get("payment-required");
  return {
    status: answer.status,
    body: await answer.text(),
    payment: paid && decodePaymentResponseHeader(paid),
    error: asked && decodePaymentRequiredHeader(asked).error,
  };
}

async function main() {
  const [first, second] = process.argv.slice(2);
  const told = first === "--payload" ? await payload(JSON.parse(second)) : await fetched(first, second);
  process.stdout.write(`${JSON.stringify(told)}\n`);
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
