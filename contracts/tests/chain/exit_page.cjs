// The exit page's own script, with a wallet that is a plain connection to the chain: node exit_page.cjs RPC VAULT FROM TO
// STEP (request | finalize). Prints the status after the step as JSON.
const path = require("path");
require(path.resolve(__dirname, "../../../examples/exit/exit.js"));

const [rpc, vault, from, to, step] = process.argv.slice(2);

const provider = {
  async request({ method, params = [] }) {
    if (method === "eth_requestAccounts") return [from];
    const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params });
    const answer = await fetch(rpc, { method: "POST", headers: { "content-type": "application/json" }, body });
    const { result, error } = await answer.json();
    if (error) throw new Error(error.message);
    return result;
  },
};

async function main() {
  const page = globalThis.counterfoilExit;
  const account = await page.connect(provider);
  if (step === "request") await page.requestExit(provider, vault, account);
  if (step === "finalize") await page.finalizeExit(provider, vault, account, to);
  const found = await page.status(provider, vault, account);
  const plain = (_, value) => (typeof value === "bigint" ? value.toString() : value);
  process.stdout.write(`${JSON.stringify(found, plain)}\n`);
}

main().catch((error) => {
  process.stderr.write(`${error.message}\n`);
  process.exit(1);
});
