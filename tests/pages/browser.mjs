// What every scenario needs: a browser without cookies, axe, a network's address, and a report of what held. Modules come
// from NODE_PATH, as `cargo xtask test` installed them; CHROMIUM names the browser.
import { createRequire } from "node:module";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const require = createRequire(import.meta.url);
const { chromium } = require("playwright-core");
const axe = require.resolve("axe-core/axe.min.js");

export const gateway = process.env.GATEWAY;
export const pictures = process.env.PICTURES;
mkdirSync(pictures, { recursive: true });

const DESKTOP = { width: 1280, height: 800 };
const PHONE = { width: 390, height: 844 };
const PATIENCE_MS = Number(process.env.PATIENCE_MS ?? 60_000);

export function check(holds, words) {
  if (!holds) throw new Error(words);
}

export function equal(found, expected, words) {
  check(found === expected, `${words}: expected ${JSON.stringify(expected)}, found ${JSON.stringify(found)}`);
}

let browser = null;
export async function open() {
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
}
export async function close() { await browser?.close(); }

let newest = null;

/** A person's browser. What its pages complain about is kept. */
export async function person({ phone = false, dark = false, script = true, state } = {}) {
  const context = await browser.newContext({
    viewport: phone ? PHONE : DESKTOP, colorScheme: dark ? "dark" : "light", hasTouch: phone, isMobile: phone,
    javaScriptEnabled: script, storageState: state, baseURL: gateway, permissions: ["clipboard-read", "clipboard-write"],
  });
  context.setDefaultTimeout(PATIENCE_MS);
  // While working on a script or the stylesheet: ASSETS=pages/assets serves them from there, without a build.
  if (process.env.ASSETS) {
    await context.route("**/assets/*", (route) => route.fulfill({ path: join(process.env.ASSETS, new URL(route.request().url()).pathname.slice("/assets/".length)) }));
  }
  const complaints = [];
  context.on("console", (message) => {
    if (message.type() === "error" && !/status of 4\d\d|status of 50[23]|ERR_CONNECTION/.test(message.text())) complaints.push(message.text());
  });
  context.on("weberror", (error) => complaints.push(error.error().message));
  const page = await context.newPage();
  newest = { page, complaints };
  return { context, page, complaints };
}

/** Signs up with nothing; the recovery code. */
export async function signUp(page) {
  await page.goto("/");
  await page.getByRole("button", { name: "Start now" }).click();
  const code = await page.locator(".code").innerText();
  await page.getByRole("link", { name: "I have written it down" }).click();
  await ready(page);
  return code;
}

/** The page's script has begun. */
export async function ready(page) {
  await page.locator("html[data-ready]").waitFor({ state: "attached" });
}

/** Asks, and waits until the answer has ended; its article. */
export async function ask(page, question, length = "64") {
  const answers = page.locator("article.ans");
  const before = await answers.count();
  await page.getByLabel("Longest answer").selectOption(length);
  await page.getByLabel("Your message").fill(question);
  await page.getByRole("button", { name: "Send" }).click();
  const answer = answers.nth(before);
  await answer.getByRole("button", { name: /^Verify/ }).waitFor();
  return answer;
}

/** No violation that axe knows of, and nothing wider than the window. */
export async function looksRight(page, name) {
  await page.screenshot({ path: join(pictures, `${name}.png`) });
  // The policy of our pages lets no foreign script in; axe is brought in from outside the page.
  await page.evaluate(readFileSync(axe, "utf8"));
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const told = violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html.slice(0, 160)).join(" | ")}`);
  equal(told.join("\n"), "", `axe on ${name}`);
  const [wide, seen] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  check(wide <= seen, `${name} scrolls sideways: ${wide} of ${seen} px`);
}

/** Runs scenarios in order; prints one line of JSON each; the exit status says whether all held. */
export async function report(scenarios) {
  const wanted = process.env.ONLY ? new RegExp(process.env.ONLY) : /./;
  let failed = 0;
  await open();
  for (const [name, scenario] of Object.entries(scenarios).filter(([name]) => wanted.test(name))) {
    const started = performance.now();
    let problem = null;
    try { await scenario(); } catch (error) {
      problem = [error.stack ?? String(error), ...newest?.complaints ?? []].join("\n");
      await newest?.page.screenshot({ path: join(pictures, `failed-${name}.png`) }).catch(() => null);
    }
    failed += problem ? 1 : 0;
    process.stdout.write(`${JSON.stringify({ name, ms: Math.round(performance.now() - started), problem })}\n`);
  }
  await close();
  process.exitCode = failed ? 1 : 0;
}
