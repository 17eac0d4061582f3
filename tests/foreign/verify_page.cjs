// Chromium opens the verifier's page from disk, is given files, and says what the page says:
// node verify_page.cjs PAGE CASES, CASES being JSON of [{"check", "files": {id: path}, "texts": {id: text}}]. Prints a list
// of {"is": class, "says": text} and of what the page asked from elsewhere. CHROMIUM names the browser.
const { chromium } = require("playwright-core");
const { pathToFileURL } = require("url");
const fs = require("fs");

const [page_path, cases_path, shot] = process.argv.slice(2);

async function main() {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
  try {
    const context = await browser.newContext({ offline: true });
    const page = await context.newPage();
    const requests = [];
    page.on("request", (request) => requests.push(new URL(request.url()).protocol));
    const answers = [];
    for (const { check, files, texts } of JSON.parse(fs.readFileSync(cases_path, "utf8"))) {
      await page.goto(pathToFileURL(page_path).href);
      for (const [id, path] of Object.entries(files ?? {})) await page.setInputFiles(`#${id}`, path);
      for (const [id, text] of Object.entries(texts ?? {})) await page.fill(`#${id}`, text);
      await page.click(`#check-${check}`);
      const says = page.locator(`#says-${check}:not([class=""])`);
      await says.waitFor();
      answers.push({ is: await says.getAttribute("class"), says: await says.innerText() });
    }
    if (shot) await page.screenshot({ path: shot, fullPage: true });
    console.log(JSON.stringify({ answers, protocols: [...new Set(requests)] }));
  } finally {
    await browser.close();
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
