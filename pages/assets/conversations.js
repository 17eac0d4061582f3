// Conversations of one account, in this browser only: in its storage, or for this tab alone when the person says so. Each
// lies under a key of its own, so that two tabs do not write over each other.

const CHOICE = "counterfoil.keep";
const SEPARATOR = "/";

export class Conversations {
  #prefix;

  constructor(account) { this.#prefix = `counterfoil.conversation${SEPARATOR}${account}${SEPARATOR}`; }

  get kept() { return localStorage.getItem(CHOICE) !== "tab"; }

  /** Moves what there is to where it shall be. */
  keep(wanted) {
    const [from, to] = wanted ? [sessionStorage, localStorage] : [localStorage, sessionStorage];
    for (const key of this.#keys(from)) {
      to.setItem(key, from.getItem(key));
      from.removeItem(key);
    }
    localStorage.setItem(CHOICE, wanted ? "browser" : "tab");
  }

  get #store() { return this.kept ? localStorage : sessionStorage; }

  #keys(store) { return Object.keys(store).filter((key) => key.startsWith(this.#prefix)); }

  /** Newest first. */
  all() {
    const read = this.#keys(this.#store).map((key) => {
      try { return JSON.parse(this.#store.getItem(key)); } catch { return null; }
    });
    return read.filter((one) => one && Array.isArray(one.turns)).sort((a, b) => b.at - a.at);
  }

  fresh() { return { id: crypto.randomUUID(), title: "", at: Date.now(), turns: [] }; }

  /** Writes it; says whether there was room. */
  save(conversation) {
    if (!conversation.turns.length) return true;
    conversation.at = Date.now();
    conversation.title = conversation.turns[0].question.replace(/\s+/g, " ").slice(0, 60);
    try {
      this.#store.setItem(this.#prefix + conversation.id, JSON.stringify(conversation));
      return true;
    } catch { return false; }
  }

  remove(conversation) { this.#store.removeItem(this.#prefix + conversation.id); }

  /** Tells when another tab changed something. */
  onChange(tell) {
    addEventListener("storage", (event) => { if (event.key?.startsWith(this.#prefix)) tell(); });
  }
}
