// People on a running network, in a real browser: node pages.mjs, with GATEWAY, CHAIN, PICTURES, CHROMIUM and NODE_PATH.
import { randomBytes } from "node:crypto";
import { ask, check, equal, gateway, looksRight, person, ready, report, signUp } from "./browser.mjs";
import { node, wallet, withTokens } from "./chain.mjs";

const FIRST_PAGE_BYTES_MAX = 150 * 1024;
const FIRST_MINUTE_MS = 60_000;
const digits = (text) => /\d+\.\d+/.exec(text)?.[0];
const noComplaints = ({ complaints }) => equal(complaints.join("\n"), "", "what the browser complained about");

async function firstPage() {
  for (const look of [{}, { phone: true, dark: true }]) {
    const one = await person(look);
    let bytes = 0;
    one.page.on("response", async (response) => { bytes += (await response.body().catch(() => "")).length; });
    await one.page.goto("/", { waitUntil: "networkidle" });
    await looksRight(one.page, `first${look.phone ? "-phone" : ""}${look.dark ? "-dark" : ""}`);
    check(bytes > 0 && bytes <= FIRST_PAGE_BYTES_MAX, `the first page loads ${bytes} bytes`);
    noComplaints(one);
    await one.context.close();
  }
}

async function fromNothingToAVerifiedAnswer() {
  const one = await person();
  const { page } = one;
  const started = performance.now();
  const code = await signUp(page);
  equal(code.replace(/-/g, "").length, 24, "characters of the recovery code");
  equal(await page.locator("#balance").innerText(), "0.50", "the welcome");
  const answer = await ask(page, "What is a counterfoil? One sentence.");
  check((await answer.locator(".text").innerText()).length > 3, "there is an answer");
  const verify = answer.getByRole("button", { name: /^Verify/ });
  await verify.click();
  await page.locator(".drawer .stampd").waitFor();
  const needed = performance.now() - started;
  check(needed < FIRST_MINUTE_MS, `from nothing to a verified answer took ${needed} ms`);
  const drawer = page.locator("#receipt");
  check(await drawer.evaluate((box) => box === document.activeElement), "the focus is in the drawer");
  equal(await drawer.locator(".steps .st.ok").count() >= 2, true, "signature and proof are checked here");
  await looksRight(page, "chat-receipt");
  await drawer.getByRole("button", { name: "Run it again and compare" }).click();
  await drawer.getByText(/ran the same question again: all \d+ tokens/).waitFor();
  const paid = await answer.locator(".cost").innerText();
  check((await drawer.innerText()).includes(digits(paid)), `the receipt says what was paid, ${paid}`);
  await page.keyboard.press("Escape");
  check(await drawer.isHidden(), "Escape closes the drawer");
  check(await verify.evaluate((button) => button === document.activeElement), "the focus is back at its button");
  noComplaints(one);
  await one.context.close();
}

async function theProjectedCostIsTheBound() {
  const one = await person();
  const { page } = one;
  await signUp(page);
  const costs = [];
  for (const text of ["Hello", "Hello, tell me about ledgers and what is written on their left side"]) {
    await page.getByLabel("Your message").fill(text);
    await page.waitForFunction((before) => /at most/.test(document.getElementById("cost").textContent) && !before.includes(document.getElementById("cost").textContent), ["at most 0.00", ...costs]);
    costs.push(await page.locator("#cost").innerText());
  }
  const [response] = await Promise.all([
    page.waitForResponse((seen) => seen.url().endsWith("/v1/chat/completions")),
    page.getByRole("button", { name: "Send" }).click(),
  ]);
  const bound = response.headers()["x-counterfoil-projected-cost"];
  equal(Number(digits(costs[1])), Number(bound), "what was shown and what was held");
  await page.getByRole("button", { name: /^Verify/ }).waitFor();
  const paid = digits(await page.locator(".cost").innerText());
  check(Number(paid) > 0 && Number(paid) <= Number(bound), `${paid} is within ${bound}`);
  const left = await page.locator("#left");
  await page.waitForFunction(() => document.getElementById("left").textContent !== "0.50");
  check(Math.abs(0.5 - Number(paid) - Number(await left.innerText())) < 0.00001, "exactly that left the balance");
  await one.context.close();
}

async function stoppedMidAnswer() {
  const one = await person();
  const { page } = one;
  await signUp(page);
  await page.getByLabel("Longest answer").selectOption("1024");
  await page.getByLabel("Your message").fill("Write a very long story about a river, with many chapters.");
  await page.getByRole("button", { name: "Send" }).click();
  await page.getByRole("button", { name: "Stop" }).waitFor();
  const before = await page.locator("#ask").boundingBox();
  await page.waitForFunction(() => document.querySelector(".ans .text").textContent.length > 60);
  equal(JSON.stringify(await page.locator("#ask").boundingBox()), JSON.stringify(before), "nothing moves while it writes");
  await page.screenshot({ path: `${process.env.PICTURES}/chat-writing.png` });
  await page.getByRole("button", { name: "Stop" }).click();
  await page.getByText("Stopped by you").waitFor();
  await page.getByRole("button", { name: /^Verify/ }).waitFor();
  const tokens = Number(/(\d+) tokens/.exec(await page.locator(".tail").innerText())[1]);
  check(tokens > 0 && tokens < 1000, `${tokens} tokens were charged of a thousand`);
  const shown = (await page.locator(".ans .text").innerText()).length;
  check(shown > 40, "what was shown stays");
  await page.getByRole("button", { name: /^Verify/ }).click();
  await page.getByText(/when you stopped|counted/).first().waitFor();
  await page.locator(".drawer .stampd").waitFor();
  noComplaints(one);
  await one.context.close();
}

async function editedAndRetried() {
  const one = await person();
  const { page } = one;
  await signUp(page);
  await ask(page, "Say one word.");
  await page.getByRole("button", { name: /^Copy/ }).click();
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  check(copied.length > 0, "the answer is in the clipboard");
  await page.getByRole("button", { name: /^Retry/ }).click();
  await page.getByRole("button", { name: /^Verify/ }).waitFor();
  equal(await page.locator(".me").count(), 1, "a retry is no second question");
  await page.getByRole("button", { name: /^Edit/ }).click();
  equal(await page.getByLabel("Your message").inputValue(), "Say one word.", "the question is in the box again");
  await page.reload();
  await ready(page);
  equal(await page.locator("#list li").count(), 1, "the conversation is kept in this browser");
  await one.context.close();
}

async function onThePhoneInTheDark() {
  const one = await person({ phone: true, dark: true });
  const { page } = one;
  await signUp(page);
  await page.getByLabel("Your message").fill("What is a ledger?");
  await page.getByRole("button", { name: "Send" }).tap();
  const verify = page.getByRole("button", { name: /^Verify/ });
  await verify.waitFor();
  await looksRight(page, "chat-phone-dark");
  for (const label of ["Send", /^Verify/, /^Copy/]) {
    const size = await page.getByRole("button", { name: label }).boundingBox();
    check(size.height >= 24, `${label} is ${size.height} px high`);
  }
  const meter = await page.locator("#meter").boundingBox();
  check(meter.y + meter.height <= 844 - 56, "the meter is above the navigation");
  await verify.tap();
  await page.locator(".drawer .stampd").waitFor();
  await looksRight(page, "receipt-phone-dark");
  await page.getByRole("button", { name: "Close" }).tap();
  await page.getByRole("button", { name: "Conversations", exact: true }).tap();
  await page.getByRole("button", { name: "New conversation" }).tap();
  check(await page.locator("#empty").isVisible(), "a new conversation is empty");
  noComplaints(one);
  await one.context.close();
}

async function byKeyboardAlone() {
  const one = await person();
  const { page } = one;
  const until = async (fits, words) => {
    for (let count = 0; count < 60; count += 1) {
      await page.keyboard.press("Tab");
      const [text, ring] = await page.evaluate(() => [
        `${document.activeElement.tagName} ${document.activeElement.id} ${document.activeElement.textContent}`,
        getComputedStyle(document.activeElement).outlineStyle !== "none",
      ]);
      check(ring, `the focus is seen on ${text.slice(0, 60)}`);
      if (fits.test(text)) return;
    }
    throw new Error(`Tab does not reach ${words}`);
  };
  await page.goto("/");
  await page.keyboard.press("Tab");
  equal(await page.evaluate(() => document.activeElement.textContent), "Skip to content", "the first stop");
  await until(/Start now/, "the start");
  await page.keyboard.press("Enter");
  await page.locator(".code").waitFor();
  await until(/written it down/, "the chat");
  await page.keyboard.press("Enter");
  await ready(page);
  await page.keyboard.type("Say hello.");
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: /^Verify/ }).waitFor();
  await page.locator("#log").focus();
  await until(/Verify No\./, "Verify");
  await page.keyboard.press("Enter");
  await page.locator(".drawer .stampd").waitFor();
  await page.keyboard.press("Escape");
  check(await page.locator("#receipt").isHidden(), "Escape closes it");
  await one.context.close();
}

async function twoTabs() {
  const one = await person();
  await signUp(one.page);
  const second = await one.context.newPage();
  await second.goto("/chat");
  await ready(second);
  const [a, b] = await Promise.all([ask(one.page, "Say one."), ask(second, "Say two.")]);
  check(await a.isVisible() && await b.isVisible(), "both are answered");
  await one.page.waitForFunction(() => document.querySelectorAll("#list li").length === 2);
  const held = await one.page.evaluate(async () => (await (await fetch("/v1/balance")).json()).balances[0].held);
  equal(Number(held), 0, "nothing stays held");
  await one.page.reload();
  await ready(one.page);
  equal(await one.page.locator("#list li").count(), 2, "each tab kept its own");
  await one.context.close();
}

async function quickAndStill() {
  const one = await person();
  const { page } = one;
  await signUp(page);
  const session = await one.context.newCDPSession(page);
  await session.send("Emulation.setCPUThrottlingRate", { rate: 4 });
  await page.reload();
  await ready(page);
  const readyMs = await page.evaluate(() => globalThis.counterfoilReadyMs);
  await session.send("Emulation.setCPUThrottlingRate", { rate: 1 });
  // From the frame's arrival to the frame of the screen that shows it, a hundred a second.
  const lags = await page.evaluate(async () => {
    const { Growing } = await import("/assets/markdown.js");
    const growing = new Growing(document.querySelector("#turns").appendChild(document.createElement("div")));
    let [text, lags] = ["", []];
    for (let count = 0; count < 300; count += 1) {
      text += count % 40 ? "word " : "\n\n- item ";
      const began = performance.now();
      await new Promise((shown) => requestAnimationFrame(() => { growing.show(text); shown(); }));
      lags.push(performance.now() - began);
    }
    return lags.sort((a, b) => a - b);
  });
  const p99 = lags[Math.floor(lags.length * 0.99)];
  process.stderr.write(`chat ready after ${Math.round(readyMs)} ms at a quarter of the speed; token to pixel p99 ${Math.round(p99)} ms\n`);
  check(readyMs < 5_000 && p99 < 250, `ready after ${readyMs} ms, p99 ${p99} ms: far from quick, even beside other tests`);
  await one.context.close();
}

const HOSTILE = [
  "<script>globalThis.owned = 1</script><img src=x onerror=\"globalThis.owned=2\"><style>body{display:none}</style>",
  "[click](javascript:globalThis.owned=3) [bank](https://evil.example/login) **bold** `code`",
  "\u001b[31mred\u001b[0m \u202eright to left\u202c \u0007", "שלום עולם", "```html\n<iframe src=javascript:alert(1)></iframe>\n```",
  `| a | b |\n|---|---|\n| <b>1</b> | 2 |`, "x".repeat(4_000), "# Heading <h1>\n> quote\n- item\n1. one",
].join("\n\n");

async function hostileOutput() {
  const one = await person();
  const { page } = one;
  await signUp(page);
  const frame = (content) => `data: ${JSON.stringify({ choices: [{ delta: { content } }] })}\n\n`;
  const pieces = HOSTILE.match(/[^]{1,37}/g).map(frame).join("");
  // A node can send anything: this is what it would look like by the time it reaches the page.
  await page.route("**/v1/chat/completions", (route) => route.fulfill({
    status: 200, contentType: "text/event-stream", headers: { "x-counterfoil-job-id": "job_00000000000000000000000000", "x-counterfoil-projected-cost": "0.001" },
    body: `${pieces}${frame("y".repeat(250_000))}data: [DONE]\n\n`,
  }));
  await page.getByLabel("Your message").fill("hostile");
  await page.getByRole("button", { name: "Send" }).click();
  await page.getByText("Shown are the first").waitFor();
  await page.getByRole("button", { name: "Send" }).waitFor();
  equal(await page.evaluate(() => globalThis.owned), undefined, "nothing ran");
  const text = page.locator(".ans .text");
  equal(await text.locator("script, img, iframe, style, b").count(), 0, "no element that the model named");
  const links = await text.locator("a").evaluateAll((all) => all.map((link) => link.href));
  equal(links.join(" "), "https://evil.example/login", "links lead to the web only");
  check((await text.innerText()).includes("(evil.example)"), "and say where");
  check((await text.innerText()).includes("␛[31mred"), "escapes are shown");
  check((await text.innerText()).includes("[U+202E]"), "what turns text around is shown");
  const [wide, seen] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  check(wide <= seen, "a giant word widens nothing");
  await one.context.close();
}

async function backByTheCode() {
  const one = await person();
  const code = await signUp(one.page);
  const account = await one.page.locator("#log").getAttribute("data-account");
  const other = await person();
  await other.page.goto("/chat");
  check(other.page.url().endsWith("/sign-in"), "nobody is sent to the sign-in");
  await looksRight(other.page, "sign-in");
  await other.page.getByLabel("Recovery code").fill("AAAA AAAA AAAA AAAA AAAA AAAA");
  await other.page.getByRole("button", { name: "Sign in" }).click();
  await other.page.getByText("No account has this recovery code").waitFor();
  await other.page.getByLabel("Recovery code").fill(code.toLowerCase().replace(/-/g, " "));
  await other.page.getByRole("button", { name: "Sign in" }).click();
  await ready(other.page);
  equal(await other.page.locator("#log").getAttribute("data-account"), account, "the same account");
  await other.page.goto("/money");
  await other.page.getByRole("button", { name: "Sign out of this browser" }).click();
  await other.page.goto("/chat");
  check(other.page.url().endsWith("/sign-in"), "the session is over");
  await one.page.reload();
  await ready(one.page);
  await one.context.close();
  await other.context.close();
}

async function foreignFormsAreRefused() {
  const one = await person();
  await signUp(one.page);
  const [cookie] = (await one.context.cookies()).filter(({ name }) => name === "counterfoil_session");
  equal([cookie.httpOnly, cookie.sameSite].join(), "true,Strict", "the session's cookie");
  const headers = (more) => ({ cookie: `${cookie.name}=${cookie.value}`, ...more });
  const form = { method: "POST", body: "name=x&inference=on", redirect: "manual" };
  const kind = { "content-type": "application/x-www-form-urlencoded" };
  for (const more of [{ origin: "https://evil.example" }, { origin: "null" }, {}]) {
    const answer = await fetch(`${gateway}/money/keys`, { ...form, headers: headers({ ...kind, ...more }) });
    equal(answer.status, 403, `a form from ${more.origin ?? "nowhere"}`);
  }
  const api = await fetch(`${gateway}/v1/balance`, { headers: headers({ "sec-fetch-site": "cross-site" }) });
  equal(api.status, 403, "the cookie from another site");
  const policy = (await fetch(gateway)).headers.get("content-security-policy");
  check(policy.startsWith("default-src 'self';") && !policy.includes("unsafe"), policy);
  await one.context.close();
}

async function moneyAndKeys() {
  const one = await person();
  const { page } = one;
  await signUp(page);
  await ask(page, "Say one word.");
  await page.goto("/money");
  await ready(page);
  await looksRight(page, "money");
  check(await page.getByText("charge for a job").first().isVisible(), "the charge is in the statement");
  await page.getByText("Make a key").click();
  await page.getByLabel("Name").fill("program");
  await page.getByLabel("All it may ever spend").fill("0.01");
  await page.getByRole("button", { name: "Make the key" }).click();
  const key = await page.locator(".code").innerText();
  const call = () => fetch(`${gateway}/v1/models`, { headers: { authorization: `Bearer ${key}` } });
  equal((await call()).status, 200, "the key works");
  check((await page.getByRole("row", { name: /program/ }).innerText()).includes("capped"), "its cap is shown");
  await page.getByRole("button", { name: "Revoke program" }).click();
  await page.getByText("No key yet").waitFor();
  equal((await call()).status, 401, "a revoked key does not");
  const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "Download all as CSV" }).click()]);
  const { readFileSync } = await import("node:fs");
  const lines = readFileSync(await file.path(), "utf8").trim().split("\r\n");
  check(lines[1].startsWith("entry,time,what") && lines.length >= 4, `the statement has ${lines.length} lines`);
  noComplaints(one);
  await one.context.close();
}

async function fromATotalToAnEntry() {
  const one = await person({ script: false });
  const { page } = one;
  await page.goto("/books");
  check((await page.locator(".asof").innerText()).startsWith("as of size"), "it says as of which size");
  await page.getByRole("link", { name: "customer promo" }).click();
  await page.getByRole("link", { name: /^acct_/ }).first().click();
  await page.locator("tbody .proof").first().click();
  check(/\/books\/entry\/\d+$/.test(page.url()), `from a total to an event: ${page.url()}`);
  check((await page.locator("h2").first().innerText()).length > 20, "the entry is told in a sentence");
  await page.goto("/books/jobs");
  await page.getByRole("link", { name: /^job_/ }).first().click();
  check(await page.locator("tbody tr").count() >= 2, "a job has a timeline");
  await page.getByRole("link", { name: "Its receipt" }).click();
  check((await page.locator("article").innerText()).includes("tokens in and"), "its receipt is read without script");
  const missing = await page.goto("/books/entry/999999999");
  equal(missing.status(), 404, "an entry that is not there");
  await one.context.close();
}

async function everyPageLooksRight() {
  const books = ["books", "books/accounts", "books/jobs", "books/batches", "books/entry/3"];
  const looks = [
    [{}, ["chat", "money", "nodes", "network", ...books]],
    [{ dark: true }, ["chat", "money", "books/entry/3"]],
    [{ phone: true }, ["money", "nodes", "network", "books"]],
  ];
  for (const [look, paths] of looks) {
    const one = await person(look);
    await signUp(one.page);
    for (const path of paths) {
      await one.page.goto(`/${path}`);
      const name = `${path.replaceAll("/", "-")}${look.phone ? "-phone" : ""}${look.dark ? "-dark" : ""}`;
      await looksRight(one.page, name);
    }
    noComplaints(one);
    await one.context.close();
  }
}

async function depositAndWithdraw() {
  const one = await person();
  const { page } = one;
  const from = await withTokens(5n * 10n ** 18n);
  await wallet(page, from);
  await signUp(page);
  await page.goto("/money");
  await ready(page);
  await page.locator("#amount").fill("5");
  await page.getByRole("button", { name: "Sign and deposit with my wallet" }).click();
  await page.getByText("The deposit is confirmed and can be spent.").waitFor();
  await page.reload();
  await ready(page);
  check((await page.locator("#balance").innerText()).startsWith("5.5"), "welcome and deposit");
  await page.locator("#take").fill("2");
  await page.getByRole("button", { name: "Get a voucher" }).click();
  await page.getByRole("button", { name: "Send it with my wallet" }).click();
  await page.getByText("Paid out by the vault.").waitFor();
  const { contracts } = await (await fetch(`${gateway}/v1/chain`)).json();
  const data = `0x70a08231${from.slice(2).toLowerCase().padStart(64, "0")}`;
  const held = BigInt(await node("eth_call", [{ to: contracts.token, data }, "latest"]));
  equal(String(held), String(2n * 10n ** 18n), "two tokens are back in the wallet");
  noComplaints(one);
  await one.context.close();
}

async function theSoftStop() {
  const one = await person();
  const { page } = one;
  // Somebody whose wallet has signed a limit and who has deposited nothing.
  const from = await withTokens(0n);
  const session = await page.request.post("/v1/sessions/nonce");
  const { nonce } = await session.json();
  const terms = await (await page.request.get(`/v1/authorisations/typed-data?nonce=${nonce}&wallet=${from}&limit=1`)).json();
  const signature = await node("eth_signTypedData_v4", [from, terms.typed_data]);
  const { max_cumulative_units, valid_until_s, chain_nonce } = terms;
  const signed = await page.request.post("/v1/authorisations", { data: { nonce, wallet: from, max_cumulative_units, valid_until_s, chain_nonce, signature } });
  const { session_token } = await signed.json();
  await one.context.addCookies([{ name: "counterfoil_session", value: session_token, url: gateway, httpOnly: true, sameSite: "Strict" }]);
  await page.goto("/chat");
  await ready(page);
  await page.getByLabel("Your message").fill("Is anything left?");
  await page.locator("#cost.over").waitFor();
  await page.getByRole("button", { name: "Send" }).click();
  await page.getByRole("heading", { name: "Not enough left for this one" }).waitFor();
  check((await page.locator("#refusal").innerText()).includes("Nothing was sent and nothing was charged"), "what happened to the money");
  equal(await page.getByLabel("Your message").inputValue(), "Is anything left?", "the message is kept");
  check(await page.locator(".offers > *").count() >= 2, "there are ways on");
  await looksRight(page, "soft-stop");
  await page.getByRole("link", { name: "Open Money" }).click();
  await page.getByRole("heading", { name: "Deposit from a wallet" }).waitFor();
  await one.context.close();
}

async function aNodeIsRegistered() {
  const one = await person();
  const { page } = one;
  await signUp(page);
  await page.goto("/nodes");
  await ready(page);
  await page.getByLabel("Paid out to").fill(`0x${randomBytes(20).toString("hex")}`);
  await page.getByRole("button", { name: "Make both keys in this browser" }).click();
  await page.getByText("Made. Your browser has saved").waitFor();
  await page.getByRole("button", { name: "Register" }).click();
  check((await page.getByLabel("worker.toml").innerText()).includes("[[nodes]]"), "the file to start with");
  await looksRight(page, "node-registered");
  await page.getByRole("link", { name: "See whether it is routed" }).click();
  await page.getByText("Never seen: its worker has not reported yet").first().waitFor();
  await looksRight(page, "nodes-own");
  noComplaints(one);
  await one.context.close();
}

await report({
  firstPage, fromNothingToAVerifiedAnswer, theProjectedCostIsTheBound, stoppedMidAnswer, editedAndRetried,
  onThePhoneInTheDark, byKeyboardAlone, twoTabs, quickAndStill, hostileOutput, backByTheCode, foreignFormsAreRefused, moneyAndKeys,
  fromATotalToAnEntry, everyPageLooksRight, depositAndWithdraw, theSoftStop, aNodeIsRegistered,
});
