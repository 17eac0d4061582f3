// Turns of a conversation as elements: the question, the answer that grows, the stub under it, what went wrong and what
// happened to the money. It draws; what is sent and charged is chat.js.
import { element, Growing } from "./markdown.js";

/** A decimal without zeros at its end, at least two decimals. Never rounded. */
export function exact(decimal) {
  const [whole, fraction = ""] = String(decimal ?? "0").split(".");
  return `${whole}.${fraction.replace(/0+$/, "").padEnd(2, "0")}`;
}

/** The same cut to five decimals: a balance is never shown too high. */
export function cut(decimal) {
  const [whole, fraction = ""] = String(decimal ?? "0").split(".");
  return exact(`${whole}.${fraction.slice(0, 5)}`);
}

const shortId = (id) => (id && id.length > 16 ? `${id.slice(0, 10)}…${id.slice(-4)}` : id ?? "");
const state = (kind, word) => element("span", { class: `st ${kind}` }, word);

function act(word, about, run) {
  const button = element("button", { class: "bare", type: "button" }, word, element("span", { class: "vh" }, ` ${about}`));
  button.addEventListener("click", () => run(button));
  return button;
}

export class TurnView {
  /** `acts` are what a person can do with a turn: edit, retry, verify. */
  constructor(turn, acts) {
    this.turn = turn;
    this.acts = acts;
    this.about = `“${turn.question.slice(0, 40)}”`;
    const me = element("p", { class: "me", dir: "auto" }, element("span", { class: "vh" }, "You: "), turn.question);
    this.edit = act("Edit", this.about, () => acts.edit(turn));
    this.question = element("div", { class: "turn" }, me, this.edit);
    this.text = element("div", { class: "text" });
    this.tail = element("div", { class: "tail" });
    this.answer = element("article", { class: "ans", "aria-label": "Answer" }, this.text, this.tail);
    this.growing = new Growing(this.text);
  }

  get nodes() { return [this.question, this.answer]; }

  /** While it is written. */
  writing(bound) {
    this.answer.setAttribute("aria-busy", "true");
    this.answer.setAttribute("aria-label", "Answer, being written");
    this.soFar = element("span", { class: "n" }, `at most ${exact(bound)}`);
    this.tail.replaceChildren(state("wait", "Writing"), this.soFar, element("span", {}, shortId(this.turn.node)));
    this.draw();
  }

  /** What is certain of a running answer. */
  progress(tokens, cost, bound) {
    if (this.soFar) this.soFar.textContent = `${tokens} tokens, ${exact(cost)} so far, at most ${exact(bound)}`;
  }

  waiting(words) {
    this.tail.replaceChildren(state("wait", words), ...(this.soFar ? [this.soFar] : []));
  }

  draw() { this.growing.show(this.turn.answer); }

  /** When it has ended: figures, or what happened to the money. */
  ended() {
    const { turn } = this;
    this.answer.removeAttribute("aria-busy");
    this.answer.setAttribute("aria-label", turn.problem ? "Answer, not finished" : "Answer, finished");
    this.draw();
    const parts = [];
    if (turn.stopped) parts.push(state("off", "Stopped by you"));
    if (turn.charged) {
      parts.push(element("span", { class: "n" }, `${turn.tokens} tokens`), element("span", { class: "n cost" }, `${exact(turn.cost)} ${turn.asset}`));
    } else if (turn.job && !turn.problem) parts.push(element("span", {}, "charged 0"));
    if (turn.node) parts.push(element("span", { class: "lo" }, shortId(turn.node)));
    if (turn.charged) {
      const verify = act(`Verify No. ${turn.entry}`, this.about, (button) => this.acts.verify(turn, button));
      verify.classList.add("proof");
      parts.push(verify);
    }
    const copy = act("Copy", this.about, async () => {
      await navigator.clipboard.writeText(turn.answer);
      this.acts.say("Copied");
      copy.firstChild.textContent = "Copied";
    });
    parts.push(element("span", { class: "acts" }, ...(turn.answer ? [copy] : []), act("Retry", this.about, () => this.acts.retry(turn))));
    this.tail.replaceChildren(...parts);
    this.answer.querySelector(".note")?.remove();
    if (turn.problem) this.tail.before(element("div", { class: "note b", role: "alert" }, element("p", {}, turn.problem)));
  }
}

/** The card when the money does not reach: three offers, each one step. The message stays in the box. */
export function softStop(refusal, offers) {
  const figure = (amount) => exact(amount?.amount);
  const card = element("section", { class: "sheet", "aria-labelledby": "stop-title", role: "alert" },
    element("h2", { id: "stop-title" }, "Not enough left for this one"),
    element("p", {}, `It could cost up to ${figure(refusal.needed)}; you have ${figure(refusal.available)}. Nothing was sent and nothing was charged. Your message is still in the box.`));
  const list = element("div", { class: "offers" });
  for (const { title, text, word, run, href } of offers) {
    const go = href ? element("a", { class: "btn p t", href }, word) : element("button", { class: "btn p t", type: "button" }, word);
    if (run) go.addEventListener("click", run);
    list.append(element("div", {}, element("h3", {}, title), element("p", { class: "s q" }, text), go));
  }
  card.append(list);
  return card;
}
