// The conversation: what is typed is priced before it is sent, answers stream in, can be stopped, edited and retried, and
// are looked up again after a broken connection. Everything goes through the API with the session's cookie.
import { element, harmless } from "./markdown.js";
import { Conversations } from "./conversations.js";
import { TurnView, cut, exact, softStop } from "./transcript.js";
import { openReceipt } from "./receipt.js";

const QUOTE_AFTER_MS = 120;
const LOOK_AGAIN_MS = [250, 500, 1_000, 2_000, 4_000, 8_000];
const PROGRESS_EVERY_MS = 1_000;
const NODES_EVERY_MS = 20_000;
/** Small models ramble at 1. */
const TEMPERATURE = 0.6;

const at = (id) => document.getElementById(id);
const [main, log, turns, box, send, model, length, cost, left, said, drawer, convs] =
  ["main", "log", "turns", "q", "send", "model", "length", "cost", "left", "said", "receipt", "convs"].map(at);
const conversations = new Conversations(log.dataset.account);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

let conversation = conversations.fresh();
let views = [];
let running = null;
let asked = null;

function say(words) { said.textContent = words; }

async function api(path, body, signal) {
  const options = body === undefined ? { signal } : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal };
  const answer = await fetch(path, options);
  if (answer.status === 401) location.assign("/sign-in");
  return answer;
}

/** The request for a question at the end of the conversation. */
function request(question) {
  const before = conversation.turns.filter((turn) => turn.answer && turn !== running?.turn);
  const messages = before.flatMap((turn) => [{ role: "user", content: turn.question }, { role: "assistant", content: turn.answer }]);
  return { model: model.value, max_tokens: Number(length.value), temperature: TEMPERATURE, messages: [...messages, { role: "user", content: question }] };
}

/* what it may cost */

let quoting = null;
let quoteTimer = 0;

async function quote() {
  quoting?.abort();
  const question = box.value.trim();
  if (!question) return showCost("at most 0.00", false);
  const own = new AbortController();
  quoting = own;
  try {
    const answer = await api("/v1/quote", request(question), own.signal);
    const body = await answer.json();
    if (quoting !== own) return;
    if (!answer.ok) showCost(body.error.code === "context_length_exceeded" ? "too long for this model" : "not known now", true);
    else showCost(`at most ${exact(body.projected_cost.amount)}`, !body.is_covered);
  } catch (error) {
    if (error.name !== "AbortError") showCost("not known: no connection", true);
  }
}

function showCost(words, isOver) {
  cost.textContent = words;
  cost.classList.toggle("over", isOver);
}

function quoteSoon() {
  clearTimeout(quoteTimer);
  quoteTimer = setTimeout(quote, QUOTE_AFTER_MS);
}

async function balance() {
  const answer = await api("/v1/balance").catch(() => null);
  if (!answer?.ok) return;
  const first = (await answer.json()).balances[0];
  left.textContent = cut(first?.available);
  at("balance").textContent = left.textContent;
}

async function nodes() {
  const answer = document.hidden ? null : await api("/v1/nodes").catch(() => null);
  if (!answer?.ok) return;
  const all = (await answer.json()).data;
  for (const option of model.options) {
    const free = all.filter((node) => node.why[option.value] === "eligible").length;
    option.textContent = option.textContent.replace(/[^·]*$/, ` ${free || "no"} ${free === 1 || !free ? "node" : "nodes"} free`);
  }
}

/* one answer */

/** Texts of a stream of server-sent events, as they come. An error frame throws. */
async function* texts(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    const lines = rest.split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ")) continue;
      if (line === "data: [DONE]") { yield { whole: true }; continue; }
      const frame = JSON.parse(line.slice(6));
      if (frame.error) throw Object.assign(new Error(frame.error.message), { refused: true });
      const text = frame.choices[0]?.delta?.content;
      if (text) yield { text };
    }
  }
}

async function write(turn, view, answer) {
  let wanted = 0;
  const draw = () => {
    wanted ||= requestAnimationFrame(() => { wanted = 0; view.draw(); });
  };
  for await (const { text, whole } of texts(answer.body)) {
    if (whole) turn.whole = true;
    else {
      turn.answer += text;
      draw();
    }
  }
  if (!turn.whole) throw new Error("the stream ended early");
}

/** The job, however long the network is away; every pause is longer, to eight seconds. */
async function lookUp(turn, view) {
  for (let attempt = 0; ; attempt += 1) {
    const answer = await api(`/v1/jobs/${turn.job}`).catch(() => null);
    const job = answer?.ok ? await answer.json() : null;
    if (job && job.status !== "running") return job;
    if (answer && !answer.ok && answer.status === 404) return null;
    const wait = LOOK_AGAIN_MS[Math.min(attempt, LOOK_AGAIN_MS.length - 1)];
    if (!answer) view.waiting(`No connection. The answer goes on and stays within ${exact(turn.bound)}. Looking again`);
    else if (attempt > 2) view.waiting("Ending");
    await Promise.race([pause(wait), new Promise((now) => addEventListener("online", now, { once: true }))]);
  }
}

async function settle(turn, view) {
  const job = await lookUp(turn, view);
  const charge = job?.charge;
  turn.charged = Boolean(charge) && !charge.reversed;
  if (charge) {
    turn.tokens = charge.input_tokens + charge.output_tokens;
    turn.cost = charge.cost.amount;
    turn.asset = charge.cost.asset;
    turn.entry = charge.leaf;
  }
  turn.ended = true;
  if (!turn.whole && !turn.stopped) {
    turn.problem = turn.charged
      ? `The answer broke off. You were charged ${exact(turn.cost)}, for what was shown, and the rest of the hold is back.`
      : "The answer broke off. You were charged 0 and the hold is back.";
  }
}

/** Every second, what is durably known of a running answer. */
function follow(turn, view) {
  const price = Number(model.selectedOptions[0]?.dataset.price ?? 0);
  return setInterval(async () => {
    const answer = await api(`/v1/jobs/${turn.job}`).catch(() => null);
    const job = answer?.ok ? await answer.json() : null;
    if (job?.status !== "running" || !turn.job || turn.ended || !job.delivered_output_tokens) return;
    const tokens = job.input_tokens + job.delivered_output_tokens;
    view.progress(tokens, (tokens * price).toFixed(9), turn.bound);
  }, PROGRESS_EVERY_MS);
}

function began(turn, view, answer) {
  turn.job = answer.headers.get("x-counterfoil-job-id");
  turn.node = answer.headers.get("x-counterfoil-node");
  turn.bound = answer.headers.get("x-counterfoil-projected-cost");
  view.writing(turn.bound);
  say("Writing");
}

async function run(turn, view, body, own) {
  let following = 0;
  try {
    const answer = await api("/v1/chat/completions", { ...body, stream: true }, own.signal);
    if (!answer.ok) return refused(turn, (await answer.json()).error);
    began(turn, view, answer);
    conversations.save(conversation);
    following = follow(turn, view);
    await write(turn, view, answer);
  } catch (error) {
    if (error.name === "AbortError") turn.stopped = true;
    if (!turn.job) return turn.stopped ? forget(turn) : refused(turn, { message: "There is no connection to the network. Nothing was sent and nothing was charged." });
  } finally {
    clearInterval(following);
  }
  await settle(turn, view);
  view.ended();
  say(turn.charged ? `${turn.stopped ? "Stopped" : "Finished"}, ${exact(turn.cost)}` : "Ended, charged 0");
}

/** Takes a turn out again that did not begin; its question goes back into the box. */
function forget(turn) {
  conversation.turns = conversation.turns.filter((one) => one !== turn);
  if (!box.value) box.value = turn.question;
  show();
}

function refused(turn, error) {
  forget(turn);
  const card = error.code === "insufficient_credits" ? softStop(error, offers(Number(error.available?.amount) > 0)) : element("div", { class: "note b", role: "alert" },
    element("p", {}, harmless(error.message)), element("p", {}, "Nothing was charged. Your message is still in the box."));
  card.id = "refusal";
  turns.append(card);
  say("Not sent");
}

/** Ways on; a shorter answer only where something is left at all. */
function offers(isSomethingLeft) {
  const shortest = length.options[0].value;
  const prices = [...model.options].map((option) => ({ name: option.value, price: Number(option.dataset.price) }));
  const cheaper = prices.filter(({ price }) => price < Number(model.selectedOptions[0].dataset.price)).sort((a, b) => a.price - b.price)[0];
  const found = [];
  if (isSomethingLeft && length.value !== shortest) found.push({ title: "Ask for less", text: `An answer of at most ${shortest} tokens holds less.`, word: "Send as a short one", run: () => { length.value = shortest; submit(); } });
  if (isSomethingLeft && cheaper) found.push({ title: "A smaller model", text: `${cheaper.name} costs less.`, word: `Send to ${cheaper.name}`, run: () => { model.value = cheaper.name; submit(); } });
  found.push({ title: "Deposit", text: "From a wallet; it counts after a few blocks.", word: "Open Money", href: "/money#deposit" });
  found.push({ title: "Wait", text: "This network's credit does not refresh. What answers in progress hold comes back when they end.", word: "Look again", run: () => { balance(); quote(); at("refusal")?.remove(); } });
  return found.slice(0, 3);
}

async function submit(event) {
  event?.preventDefault();
  if (running) return running.own.abort();
  const question = box.value.trim();
  if (!question) return box.focus();
  at("refusal")?.remove();
  const body = request(question);
  const turn = { question, answer: "", model: model.value };
  conversation.turns.push(turn);
  remember();
  box.value = "";
  grow();
  const view = add(turn);
  view.waiting("Sending");
  const own = new AbortController();
  running = { turn, own };
  send.textContent = "Stop";
  log.scrollTop = log.scrollHeight;
  try {
    await run(turn, view, body, own);
  } finally {
    running = null;
    send.textContent = "Send";
    if (!conversations.save(conversation)) say("This browser has no room left; the conversation is lost when the page closes.");
    list();
    balance();
    quote();
  }
}

/* turns and conversations */

const acts = {
  say,
  edit(turn) {
    if (running) return;
    conversation.turns = conversation.turns.slice(0, conversation.turns.indexOf(turn));
    box.value = turn.question;
    show();
    grow();
    quote();
    box.focus();
  },
  retry(turn) {
    if (running) return;
    conversation.turns = conversation.turns.slice(0, conversation.turns.indexOf(turn));
    show();
    box.value = turn.question;
    submit();
  },
  verify(turn, opener) {
    main.classList.add("open");
    openReceipt(drawer, turn.job, opener, () => main.classList.remove("open"));
  },
};

function add(turn) {
  at("empty").hidden = true;
  const view = new TurnView(turn, acts);
  views.push(view);
  turns.append(...view.nodes);
  return view;
}

/** Draws the conversation anew; an answer that was running when the page was left is looked up. */
function show() {
  for (const view of views) view.nodes.forEach((node) => node.remove());
  at("refusal")?.remove();
  views = [];
  at("empty").hidden = conversation.turns.length > 0;
  for (const turn of conversation.turns) {
    const view = add(turn);
    if (turn.ended || !turn.job) view.ended();
    else {
      view.writing(turn.bound);
      settle(turn, view).then(() => { view.ended(); conversations.save(conversation); balance(); });
    }
  }
  list();
}

function list() {
  const items = conversations.all().map((one) => {
    const open = element("button", { type: "button", "aria-current": one.id === conversation.id ? "true" : null }, harmless(one.title) || "Untitled");
    open.addEventListener("click", () => choose(one));
    return element("li", {}, open);
  });
  at("list").replaceChildren(...items);
}

/** A reload of this tab opens the same conversation. */
function remember() { sessionStorage.setItem("counterfoil.open", conversation.id); }

function choose(one) {
  if (running) return;
  conversation = one;
  remember();
  convs.classList.remove("shown");
  at("conversations").setAttribute("aria-expanded", "false");
  show();
  quote();
  box.focus();
}

function grow() {
  box.style.height = "auto";
  box.style.height = `${Math.min(box.scrollHeight + 2, innerHeight * 0.4)}px`;
}

box.addEventListener("input", () => { grow(); quoteSoon(); });
box.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
});
for (const picker of [model, length]) picker.addEventListener("change", quote);
at("ask").addEventListener("submit", submit);
at("fresh").addEventListener("click", () => choose(conversations.fresh()));
at("conversations").addEventListener("click", (event) => {
  const shown = convs.classList.toggle("shown");
  event.currentTarget.setAttribute("aria-expanded", String(shown));
});
const keep = at("keep");
keep.checked = conversations.kept;
keep.addEventListener("change", () => {
  conversations.keep(keep.checked);
  list();
});
conversations.onChange(list);
setInterval(nodes, NODES_EVERY_MS);

const last = conversations.all().find((one) => one.id === sessionStorage.getItem("counterfoil.open"));
if (last) conversation = last;
show();
box.focus();
globalThis.counterfoilReadyMs = performance.now();
document.documentElement.dataset.ready = "true";
