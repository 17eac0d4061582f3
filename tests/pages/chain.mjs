// A wallet without a person: it signs what it is asked to, on the development chain whose accounts its node unlocks.
const CHAIN = process.env.CHAIN;
const FIRST_FREE_ACCOUNT = 7;
let given = 0;

export async function node(method, params = []) {
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params });
  const answer = await fetch(CHAIN, { method: "POST", headers: { "content-type": "application/json" }, body });
  const { result, error } = await answer.json();
  if (error) throw new Error(`${method}: ${error.message}`);
  return result;
}

/** An account of the chain's node that nobody used, with so many of the token's smallest parts. */
export async function withTokens(amount) {
  const accounts = await node("eth_accounts");
  const account = accounts[FIRST_FREE_ACCOUNT + given];
  given += 1;
  if (amount > 0n) {
    const { contracts } = await (await fetch(`${process.env.GATEWAY}/v1/chain`)).json();
    const word = (value) => value.toString(16).replace(/^0x/, "").toLowerCase().padStart(64, "0");
    const data = `0x40c10f19${word(account)}${word(amount)}`;
    await node("eth_sendTransaction", [{ from: accounts[0], to: contracts.token, data }]);
  }
  return account;
}

/** Puts an EIP-1193 wallet of one account into the page. */
export async function wallet(page, account) {
  await page.exposeFunction("askWallet", async ({ method, params }) => {
    try {
      if (method === "eth_requestAccounts") return { result: [account] };
      const given = method === "eth_signTypedData_v4" ? [params[0], JSON.parse(params[1])] : params;
      return { result: await node(method, given) };
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
}
