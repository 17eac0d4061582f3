// What a model wrote, as elements. Text only ever becomes text nodes: nothing it says is markup, a script or an image.
// Characters that steer terminals or the direction of text are shown, not obeyed.

const SHOWN_MAX = 200_000;
const STEERING = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g;

/** Control characters by their code: "␛" for escape, "[U+202E]" for what turns text around. */
export function harmless(text) {
  return text.replace(/\r\n?/g, "\n").replace(STEERING, (character) => {
    const code = character.codePointAt(0);
    return code < 0x20 ? String.fromCharCode(0x2400 + code) : `[U+${code.toString(16).toUpperCase().padStart(4, "0")}]`;
  });
}

/** An element with attributes, children and text. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Blocks of a text, in order, each with its source and what it is. */
export function blocks(text) {
  const lines = text.split("\n");
  const found = [];
  let at = 0;
  const take = (kind, end, more = {}) => {
    found.push({ kind, source: `${kind}\n${lines.slice(at, end).join("\n")}`, lines: lines.slice(at, end), ...more });
    at = end;
  };
  const run = (fits) => {
    let end = at + 1;
    while (end < lines.length && fits(lines[end])) end += 1;
    return end;
  };
  const starts = /^(```|#{1,6} |> ?|\s*([-*+]|\d{1,9}[.)]) |(-{3,}|\*{3,})$)/;
  while (at < lines.length) {
    const line = lines[at];
    const fence = /^(`{3,}|~{3,})\s*([\w+#.-]*)/.exec(line);
    if (line.trim() === "") at += 1;
    else if (fence) {
      let end = at + 1;
      while (end < lines.length && !lines[end].startsWith(fence[1])) end += 1;
      take("code", Math.min(end + 1, lines.length), { language: fence[2], closed: end < lines.length });
    } else if (/^#{1,6} /.test(line)) take("heading", at + 1);
    else if (/^(-{3,}|\*{3,})$/.test(line)) take("rule", at + 1);
    else if (line.startsWith(">")) take("quote", run((next) => next.startsWith(">")));
    else if (/^\s*[-*+] /.test(line)) take("bullets", run((next) => /^\s*[-*+] /.test(next) || /^\s+\S/.test(next)));
    else if (/^\s*\d{1,9}[.)] /.test(line)) take("numbers", run((next) => /^\s*\d{1,9}[.)] /.test(next) || /^\s+\S/.test(next)));
    else if (/^\|.*\|\s*$/.test(line)) take("table", run((next) => /^\|.*\|\s*$/.test(next)));
    else take("paragraph", run((next) => next.trim() !== "" && !starts.test(next)));
  }
  return found;
}

function list(name, lines) {
  const items = [];
  for (const line of lines) {
    const item = /^\s*(?:[-*+]|(\d{1,9})[.)]) (.*)$/.exec(line);
    if (item) items.push({ text: item[2], number: item[1] });
    else if (items.length) items[items.length - 1].text += `\n${line.trim()}`;
  }
  const made = element(name, { dir: "auto", start: name === "ol" && items[0]?.number !== "1" ? items[0]?.number : null });
  made.append(...items.map((item) => element("li", {}, ...inline(item.text))));
  return made;
}

function table(lines) {
  const rows = lines.filter((line) => !/^\|[\s:|-]+\|\s*$/.test(line));
  const cells = (line) => line.trim().slice(1, -1).split("|").map((cell) => cell.trim());
  const [head, ...rest] = rows.map(cells);
  const row = (name, texts) => element("tr", {}, ...texts.map((text) => element(name, {}, ...inline(text))));
  const drawn = element("table", {}, element("thead", {}, row("th", head ?? [])), element("tbody", {}, ...rest.map((texts) => row("td", texts))));
  return element("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Table in the answer" }, drawn);
}

/** One block as an element. */
export function drawn(block) {
  const text = block.lines.join("\n");
  switch (block.kind) {
    case "code": {
      const inside = block.lines.slice(1, block.closed ? -1 : undefined).join("\n");
      const label = block.language ? `Code, ${block.language}` : "Code";
      return element("pre", { tabindex: "0", role: "group", "aria-label": label, dir: "ltr" }, element("code", {}, inside));
    }
    case "heading": {
      const [, marks, words] = /^(#{1,6}) (.*)$/.exec(text);
      return element(marks.length < 3 ? "h2" : "h3", { dir: "auto" }, ...inline(words));
    }
    case "rule": return element("hr");
    case "quote": return element("blockquote", { dir: "auto" }, element("p", {}, ...inline(text.replace(/^> ?/gm, ""))));
    case "bullets": return list("ul", block.lines);
    case "numbers": return list("ol", block.lines);
    case "table": return table(block.lines);
    default: return element("p", { dir: "auto" }, ...inline(text));
  }
}

const INLINE = /(`+)([^`]+?)\1|\*\*([^*\n]+)\*\*|\*([^*\n]+)\*|\[([^\]\n]{1,300})\]\(([^)\s]{1,2000})\)|(https?:\/\/[^\s<>"')\]]{1,2000})/g;

function link(words, address) {
  let target;
  try { target = new URL(address); } catch { return words; }
  if (!["http:", "https:"].includes(target.protocol)) return `${words} (${address})`;
  const made = element("a", { href: target.href, rel: "noopener noreferrer nofollow", target: "_blank" }, words);
  // Words may lie about where they lead.
  return words.includes(target.host) ? made : element("span", {}, made, ` (${target.host})`);
}

/** Code, bold, italic and links of a line; line breaks stay. */
export function inline(text) {
  const made = [];
  let last = 0;
  const plain = (piece) => piece.split("\n").forEach((line, number) => {
    if (number) made.push(element("br"));
    if (line) made.push(line);
  });
  for (const match of text.matchAll(INLINE)) {
    plain(text.slice(last, match.index));
    last = match.index + match[0].length;
    const [whole, , code, bold, italic, words, address, bare] = match;
    if (code !== undefined) made.push(element("code", { dir: "ltr" }, code));
    else if (bold !== undefined) made.push(element("strong", {}, bold));
    else if (italic !== undefined) made.push(element("em", {}, italic));
    else if (words !== undefined) made.push(link(words, address));
    else if (bare !== undefined) made.push(link(bare, bare));
    else plain(whole);
  }
  plain(text.slice(last));
  return made;
}

/** Draws a text that grows into a box: only blocks that changed are drawn again. */
export class Growing {
  #box;
  #drawn = [];

  constructor(box) { this.#box = box; }

  show(text) {
    const cut = text.length > SHOWN_MAX;
    const wanted = blocks(harmless(cut ? text.slice(0, SHOWN_MAX) : text));
    if (cut) {
      const more = `Shown are the first ${SHOWN_MAX} characters; Copy has all.`;
      wanted.push({ kind: "paragraph", source: more, lines: [more] });
    }
    let same = 0;
    while (same < this.#drawn.length && same < wanted.length && this.#drawn[same] === wanted[same].source) same += 1;
    while (this.#box.childNodes.length > same) this.#box.lastChild.remove();
    for (const block of wanted.slice(same)) this.#box.append(drawn(block));
    this.#drawn = wanted.map((block) => block.source);
  }
}
