// A network that is restarted while an answer is written: node restart.mjs. Says "writing", waits for a line, says "held".
import { createInterface } from "node:readline";
import { ask, check, close, open, person, ready, signUp } from "./browser.mjs";

await open();
const { page } = await person();
await signUp(page);
await ask(page, "Say one word.");
await page.getByLabel("Longest answer").selectOption("1024");
await page.getByLabel("Your message").fill("Write a very long story about a mill, with many chapters.");
await page.getByRole("button", { name: "Send" }).click();
const second = page.locator("article.ans").nth(1);
await page.waitForFunction(() => document.querySelectorAll(".ans .text")[1]?.textContent.length > 40);
process.stdout.write("writing\n");
await new Promise((told) => createInterface({ input: process.stdin }).once("line", told));
// The page looks the answer up again by itself, and says what happened to the money.
await second.getByText(/The answer broke off. You were charged/).waitFor();
check((await second.locator(".text").innerText()).length > 40, "what was shown stays");
await ask(page, "Say another word.");
await page.reload();
await ready(page);
check((await page.locator("article.ans").count()) === 3, "the whole conversation is still there");
const held = await page.evaluate(async () => (await (await fetch("/v1/balance")).json()).balances[0].held);
check(Number(held) === 0, `nothing stays held: ${held}`);
await close();
process.stdout.write("held\n");
process.exit(0);
