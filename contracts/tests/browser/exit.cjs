// Chromium opens the saved exit page from disk, with a wallet that is a plain connection to a node, and takes everything
// out: node exit.cjs PAGE RPC VAULT FROM TO. Prints what the page showed and asked as JSON. CHROMIUM names the browser.
const { chromium } = require("playwright-core");
const { pathToFileURL } = require("url");

const [file, rpc, vault, from, to] = process.argv.slice(2);
const seen = { asked: [], requests: [], says: [] };

async function node(method, params = []) {
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params });
  const answer = await fetch(rpc, { method: "POST", headers: { "content-type": "application/json" }, body });
  const { result, error } = await answer.json();
  if (error) throw new Error(error.message);
  return result;
}

// The wallet: offers one account, signs what it is asked to.
async function wallet({ method, params }) {
  if (method === "eth_requestAccounts") return [from];
  if (method === "eth_sendTransaction") seen.asked.push(params[0].data.slice(0, 10));
  return node(method, params);
}

async function main() {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
  try {
    const page = await browser.newPage();
    page.on("request", (request) => seen.requests.push(new URL(request.url()).protocol));
    await page.exposeFunction("askWallet", async (request) => {
      try {
        return { result: await wallet(request) };
      } catch (error) {
        return { error: error.message };
      }
    });
    await page.addInitScript(() => {
      globalThis.ethereum = {
        async request(asked) {
          const { result, error } = await globalThis.askWallet(asked);
          if (error) throw new Error(error);
          return result;
        },
      };
    });
    const text = (id) => page.locator(`#${id}`).innerText();
    const stage = (wanted) => page.locator("#stage", { hasText: wanted }).waitFor();
    await page.goto(`${pathToFileURL(file)}?vault=${vault}`);
    await page.click("#look");
    await stage("not requested");
    seen.before = await text("balance");
    await page.click("#request");
    await stage("waiting");
    seen.early = await page.isDisabled("#finalize");
    await page.click("#cancel");
    await stage("not requested");
    await page.click("#request");
    await stage("waiting");
    await node("evm_increaseTime", [Number(process.env.DELAY_S) + 1]);
    await node("evm_mine");
    await page.click("#look");
    await stage("due");
    await page.fill("#to", "0x12");
    await page.click("#finalize");
    await page.locator("#says", { hasText: /./ }).waitFor();
    seen.says.push(await text("says"));
    await page.fill("#to", to);
    await page.click("#finalize");
    await stage("not requested");
    seen.after = await text("balance");
    seen.says.push(await text("says"));
  } finally {
    await browser.close();
  }
  process.stdout.write(`${JSON.stringify(seen)}\n`);
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n${JSON.stringify(seen)}\n`);
  process.exit(1);
});
