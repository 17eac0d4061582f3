// The receipt's drawer beside an answer, and the checks on a receipt's own page: plain words from the server, checks made
// here, and the same question run again on request.
import { element } from "./markdown.js";
import { checks } from "./proof.js";

const SHAPES = new Map([[true, "st ok"], [false, "st fail"], [null, "st off"]]);
const HEAD_TRIES = 8;
const HEAD_WAIT_MS = 1_000;

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** What the server says; waits a little for the head of the tree that covers a fresh entry. */
async function factsOf(job) {
  for (let attempt = 1; ; attempt += 1) {
    const answer = await fetch(`/receipt/${job}/facts`);
    const facts = await answer.json();
    if (!answer.ok) throw new Error(facts.error.message);
    if (facts.proof || facts.leaf === null || attempt >= HEAD_TRIES) return facts;
    await pause(HEAD_WAIT_MS);
  }
}

function steps(results) {
  return results.map(({ name, ok, text }) => element("li", {}, element("span", { class: SHAPES.get(ok) }, name), " ", text));
}

const rows = (list, attributes) => element("dl", attributes, ...list.flatMap(({ name, value }) => [element("dt", {}, name), element("dd", {}, value)]));

function download(name, contents) {
  const address = URL.createObjectURL(new Blob([contents], { type: "application/json" }));
  element("a", { href: address, download: name }).click();
  URL.revokeObjectURL(address);
}

/** The stamp and the list of checks; refuses to stamp anything that was not checked. */
function verdict(results, facts) {
  const made = [element("ul", { class: "steps" }, ...steps(results))];
  if (results.every(({ ok }) => ok === true)) {
    made.unshift(element("p", { class: "stampd" }, "✓ Verified by this page"));
  } else if (results.some(({ ok }) => ok === false)) {
    const save = element("button", { class: "btn p t", type: "button" }, "Save the evidence");
    save.addEventListener("click", () => download(`evidence-${facts.job}.json`, JSON.stringify(facts, null, 1)));
    made.unshift(element("div", { class: "note b", role: "alert" }, element("p", {}, "This receipt does not hold. What you were charged stands in Money; an auditor can have it undone."), save));
  }
  return made;
}

const VERDICTS = {
  identical: (tokens) => [true, "Run again.", `This machine ran the same question again: all ${tokens} tokens and the digest are the same.`],
  differs: (_, detail) => [false, "The second run differs.", `${detail} Save the evidence and tell an auditor.`],
  unavailable: (_, detail) => [null, "Not run again.", detail],
};

function rerun(facts) {
  const said = element("div", { role: "status" });
  if (!facts.can_rerun) return element("p", { class: "s q" }, facts.rerun);
  const button = element("button", { class: "btn p", type: "button" }, "Run it again and compare");
  button.addEventListener("click", async () => {
    button.disabled = true;
    said.replaceChildren(element("span", { class: "st wait" }, "Running"));
    try {
      const answer = await fetch(`/receipt/${facts.job}/rerun`, { method: "POST" });
      if (!answer.ok) throw new Error("It could not be run now; try again in a moment.");
      const { verdict: { verdict: word, detail }, tokens } = await answer.json();
      const [ok, name, text] = VERDICTS[word](tokens, detail);
      said.replaceChildren(element("ul", { class: "steps" }, ...steps([{ ok, name, text }])));
    } catch (error) {
      button.disabled = false;
      said.replaceChildren(element("p", { role: "alert" }, error.message));
    }
  });
  return element("div", { class: "sheet" }, element("p", { class: "s" }, facts.rerun), button, said);
}

function opened(facts, results) {
  const parts = [...verdict(results, facts), ...facts.sentences.map((sentence) => element("p", {}, sentence))];
  const said = facts.steps.filter((step) => step.name.startsWith("Price") || step.name.startsWith("Attested"));
  if (said.length) parts.push(element("ul", { class: "steps" }, ...steps(said.map((step) => ({ name: step.name, ok: step.holds || null, text: step.text })))));
  parts.push(rerun(facts));
  if (facts.shares.length) parts.push(element("h3", {}, "Who got the money"), rows(facts.shares, { class: "kv r" }));
  parts.push(element("h3", {}, "Details"), rows(facts.details, { class: "kv m" }));
  const links = element("p", { class: "s" }, element("a", { href: `/receipt/${facts.job}` }, "Receipt as a page"));
  if (facts.leaf !== null) links.append(" · ", element("a", { href: `/books/entry/${facts.leaf}` }, "Open the entry"));
  if (facts.proof) {
    const proof = element("button", { class: "bare", type: "button" }, "Download proof");
    proof.addEventListener("click", () => download(`proof-${facts.job}.json`, JSON.stringify(facts, null, 1)));
    links.append(" · ", proof);
  }
  return [...parts, links];
}

/** Fills the drawer with a job's receipt and moves the focus there; closing gives it back. */
export async function openReceipt(drawer, job, opener, onClose) {
  const close = element("button", { class: "btn p t", type: "button" }, "Close");
  const number = element("span", { class: "no" }, "Receipt");
  const head = element("div", { class: "row" }, number, close);
  const title = element("h2", { id: "receipt-title" }, "Receipt for this answer");
  const body = element("div", { class: "col" }, element("p", { class: "q" }, "Reading the receipt"));
  const onKey = (event) => { if (event.key === "Escape") shut(); };
  const shut = () => {
    drawer.hidden = true;
    removeEventListener("keydown", onKey);
    onClose();
    opener?.focus();
  };
  close.addEventListener("click", shut);
  addEventListener("keydown", onKey);
  drawer.replaceChildren(head, title, body);
  drawer.hidden = false;
  drawer.focus();
  try {
    const facts = await factsOf(job);
    number.textContent = facts.number;
    body.replaceChildren(...opened(facts, await checks(facts)));
  } catch (error) {
    body.replaceChildren(element("p", { role: "alert" }, error.message));
  }
}

/** On the receipt's own page the words are there; only the checks are added. */
const place = document.getElementById("checks");
if (place) {
  const facts = await factsOf(place.dataset.job).catch(() => null);
  if (facts) place.replaceChildren(...verdict(await checks(facts), facts), rerun(facts));
}
