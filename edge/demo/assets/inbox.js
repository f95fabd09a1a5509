// What this tab has received: the messages and the position in the outbox are one item of
// the storage. So a message is neither lost nor shown twice, whenever the tab may end.

const MOST = 50;

export class Inbox {
  #storage;
  #key;
  #changed;
  /** The newest first: {from, text, at, kind} with kind message, online, missed or reset. */
  messages = [];

  constructor(storage, key, changed) {
    this.#storage = storage;
    this.#key = key;
    this.#changed = changed;
  }

  /** The options for muster.js. */
  get outbox() {
    return {
      handle: (delivery) => this.#take(delivery),
      position: {
        load: () => this.#load(),
        save() {}, // #take has done it
      },
    };
  }

  #load() {
    const { position, messages = [] } = JSON.parse(this.#storage.getItem(this.#key) || "{}");
    this.messages = messages;
    return position;
  }

  #take({ position, entry, gap, reset }) {
    const message = entry ? read(entry) : reset ? { kind: "reset" } : missed(gap);
    if (message) this.messages = [{ at: Date.now(), ...message }, ...this.messages].slice(0, MOST);
    this.#storage.setItem(this.#key, JSON.stringify({ position, messages: this.messages }));
    if (message) this.#changed(message);
  }

  clear() {
    const { position } = JSON.parse(this.#storage.getItem(this.#key) || "{}");
    this.messages = [];
    this.#storage.setItem(this.#key, JSON.stringify({ position }));
  }
}

function read({ type, from, at, body }) {
  if (type === "notify_when") return { kind: "online", from: String(body?.user), at };
  return { kind: "message", from, at, text: typeof body?.text === "string" ? body.text : JSON.stringify(body) };
}

/** A gap is worth a line if something was missed, rather than taken by another device. */
function missed({ from, to, reason }) {
  if (reason !== "ttl" && reason !== "overflow") return undefined;
  return { kind: "missed", text: `${to - from + 1}`, reason };
}
