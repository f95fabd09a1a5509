/**
 * Muster client for browsers: one ES module, no dependencies.
 *
 *     import { Muster } from "./muster.js";
 *     const muster = new Muster({ token: () => fetchToken() });
 *     muster.addEventListener("enter", (e) => console.log(e.detail.user, "is here"));
 *     muster.watch("bob");
 *     await muster.connect();
 *
 * What an application wants (watched users, rooms) is kept here and declared again
 * on each connect, so the view stays right across reconnects without its help.
 * Each tab is one device. Names on the wire are snake_case and so are the objects
 * that come from it; times are Unix milliseconds.
 *
 * Events (all CustomEvents, the data in `detail`):
 * - `state`: {state, code, reason, retry_at}: the connection; see {@link Muster#state}
 * - `enter`, `update`, `leave`: {user, presence, previous}: a watched user became
 *   visible, changed, went offline
 * - `self`: the user's own view (what others cannot see is in it)
 * - `typing`: {user, room, kind, typing}
 * - `room`: {room, enter, update, leave, count, error}: a room that was entered
 * - `contact`: {user, subscription, pending_in, …}: a relation changed, by either side or on another device
 * - `latency`: {ms}: the answer to a ping of ours
 * - `error`: a {@link MusterError} that no caller waits for, or what the outbox's handler threw
 *
 * Messages for this user, sent while it is here or away, go to `options.outbox.handle`,
 * one at a time, each once: see {@link Outbox}.
 *
 * @typedef {"online"|"away"|"dnd"|"offline"|"invisible"|"unknown"} State
 *
 * @typedef {object} Presence one user as this session may see it
 * @property {string} user
 * @property {State} state `unknown` until the cluster has answered
 * @property {boolean} stale true while the view cannot be confirmed
 * @property {number[]} [ver] [term, version]
 * @property {Object<string, State>} [devices] the best state per device class
 * @property {string} [text]
 * @property {string} [emoji]
 * @property {*} [activity]
 * @property {number} [since_at]
 * @property {number} [last_seen_at] rounded down to 60 s
 * @property {string} [last_seen] recently, week, month, long_ago
 * @property {string} [reason] why offline: explicit, timeout, kicked, node_lost, expired
 * @property {number} [as_of_at] with stale: when it was last known to be true
 *
 * @typedef {object} Contact the relation to one user; with user alone there is none any more
 * @property {string} user
 * @property {"none"|"to"|"from"|"both"} [subscription] to: we may see the user, from: the user may see us
 * @property {boolean} [pending_out] we asked and await an answer
 * @property {boolean} [pending_in] the user asked and awaits an answer
 * @property {boolean} [approved] a request of the user will be approved without asking
 * @property {boolean} [blocked] we have blocked the user
 *
 * @typedef {{epoch: string, offset: number}} Position how far a device has processed its user's outbox
 *
 * @typedef {object} PositionStore keeps the position of one device; both may be async
 * @property {() => Position|null|undefined} load null: from the oldest entry kept
 * @property {(position: Position) => void} save all up to it has been processed
 *
 * @typedef {object} Delivery one step through the outbox: an entry, a gap or a reset
 * @property {Position} position where the outbox stands after it
 * @property {{offset: number, client_id: string, from?: string, type: string, class: string, at: number, expires_at: number,
 *   collapse_key?: string, body: *}} [entry] a message; without from it is the application's
 * @property {{from: number, to: number, reason: string}} [gap] offsets that will not come; with ttl and overflow something was missed
 * @property {boolean} [reset] the history was lost or purged, or this device was away too long: fetch the application's state anew
 */

const PROTOCOL = "muster.v1.json";
const BACKOFF_MS = { min: 200, max: 20_000 };
const ANSWER_MS = 10_000; // for a reply, and for a ping beyond its interval
const STEADY_MS = 10_000; // a conn that lived so long starts the back-off anew
const TYPING_MS = 3_000;
const ACTIVITY_MS = 30_000;
const DUPLICATE_MS = 300; // how long a tab waits for another to say that it has the same device id
const WATCH = { ids: 1_000, bytes: 32_768 }; // per frame
const BLOCK = { ids: 100, bytes: 32_768 };
const ACK = { ms: 1_000, entries: 64 };
const WINDOW = 512; // deliveries that may wait for the handler; the server has at most 256 on the way
const SESSION_TTL_MS = 300_000; // a claim of a longer life belongs to the user, not to the session
const MIN_TTL_MS = 10_000;
const OUTBOX_FULL = 127;

/** An error of the server (`code` > 0, see docs/errors.md) or of the client (`code` 0). */
export class MusterError extends Error {
  /** @param {{code?: number, name?: string, message?: string, retryable?: boolean, retry_after_ms?: number}} e */
  constructor(e) {
    super(e.message || e.name || "error");
    this.name = e.name || "ERROR";
    this.code = e.code || 0;
    this.retryable = e.retryable || false;
    this.retryAfterMs = e.retry_after_ms || 0;
  }
}

/** Splits a text frame into its messages, one JSON object a line; lines that are none are skipped. */
export function decode(frame) {
  const out = [];
  for (const line of String(frame).split("\n")) {
    if (!line.trim()) continue;
    try {
      const m = JSON.parse(line);
      if (m && typeof m === "object" && !Array.isArray(m)) out.push(m);
    } catch {
      // A server newer than this client may say what it does not understand.
    }
  }
  return out;
}

/** Orders two versions [term, version]; a missing one is older than any. */
export function compare(a, b) {
  for (let i = 0; i < 2; i++) {
    const d = (a?.[i] ?? 0) - (b?.[i] ?? 0);
    if (d) return d;
  }
  return 0;
}

/** The delay before try n (from 0): full jitter up to 200 ms · 2^n, at most 20 s, never before the server allows. */
export function backoff(n, retryAfterMs = 0, random = Math.random) {
  const cap = Math.min(BACKOFF_MS.max, BACKOFF_MS.min * 2 ** Math.min(n, 16));
  return Math.max(retryAfterMs, random() * cap);
}

/**
 * What a close code asks for: `retry` with a new socket, `renew` (a new session, as
 * a newer socket has this one), or `final`.
 */
export function verdict(code, canRefresh) {
  if (code === 4510) return "renew";
  if (code === 4013 && !canRefresh) return "final";
  return code >= 4500 && code <= 4999 ? "final" : "retry";
}

/** Cuts ids into lists that each fit a frame. */
export function portions(ids, limit = WATCH) {
  const out = [];
  let bytes = 0;
  for (const id of ids) {
    const size = new TextEncoder().encode(JSON.stringify(id)).length + 1;
    if (!out.length || out.at(-1).length >= limit.ids || bytes + size > limit.bytes) {
      out.push([]);
      bytes = 0;
    }
    out.at(-1).push(id);
    bytes += size;
  }
  return out;
}

const STATES = ["online", "away", "dnd", "offline", "invisible", "unknown"];
const visible = (p) => p.state === "online" || p.state === "away" || p.state === "dnd";

/** What is known of the watched users. It holds one frozen Presence per user. */
export class View {
  #users = new Map(); // id → {presence, ver, seen}
  #emit;
  #tick = 0;

  /** @param {(event: string, detail: object) => void} emit */
  constructor(emit) {
    this.#emit = emit;
  }
  /** A mark that {@link View#snapshot} compares with: what changes later is newer. */
  get mark() {
    return this.#tick;
  }
  ids() {
    return [...this.#users.keys()];
  }
  has(user) {
    return this.#users.has(user);
  }
  /** @returns {Presence|undefined} undefined when not watched */
  get(user) {
    return this.#users.get(user)?.presence;
  }
  add(user) {
    if (!this.has(user)) this.#users.set(user, { presence: Object.freeze({ user, state: "unknown", stale: false }), seen: 0 });
  }
  remove(user) {
    this.#users.delete(user);
  }

  /** Applies pushed views; one that is not newer than what is known is dropped. */
  push(presences) {
    for (const p of presences) {
      const row = this.#users.get(p.user);
      if (!row) continue;
      if (p.stale && p.state === "unknown") {
        // The node cannot vouch for what it told before.
        if (row.presence.state !== "unknown") this.#put(row, { ...row.presence, stale: true, as_of_at: p.as_of_at });
        continue;
      }
      const order = p.ver ? compare(p.ver, row.ver) : 1;
      if (order > 0 || (order === 0 && !!p.stale !== row.presence.stale)) this.#put(row, p);
    }
  }

  /**
   * Applies one part of the answer to a question about the ids asked, put at mark.
   * When the last part (done) has come, ids that none named are offline.
   */
  snapshot(asked, part, mark) {
    for (const p of part.presences ?? []) {
      const row = this.#users.get(p.user);
      if (row && compare(p.ver, row.ver) >= 0) this.#put(row, p);
    }
    for (const user of part.pending ?? []) {
      const row = this.#users.get(user);
      if (!row) continue;
      row.seen = ++this.#tick;
      if (row.presence.state !== "unknown") this.#put(row, { ...row.presence, stale: true });
    }
    if (!part.done) return;
    for (const user of asked) {
      const row = this.#users.get(user);
      if (row && row.seen <= mark) this.#put(row, { user, state: "offline" });
    }
  }

  /** The connection is gone: nothing known can be confirmed. */
  lose(now) {
    for (const row of this.#users.values()) {
      const p = row.presence;
      if (!p.stale && p.state !== "unknown") this.#put(row, { ...p, stale: true, as_of_at: now });
    }
  }

  #put(row, p) {
    const previous = row.presence;
    const presence = Object.freeze({ ...p, state: STATES.includes(p.state) ? p.state : "unknown", stale: !!p.stale });
    row.seen = ++this.#tick;
    if (p.ver) row.ver = p.ver;
    if (JSON.stringify(previous) === JSON.stringify(presence)) return;
    row.presence = presence;
    const event = visible(presence) === visible(previous) ? "update" : visible(presence) ? "enter" : presence.state === "offline" ? "leave" : "update";
    this.#emit(event, { user: p.user, presence, previous });
  }
}

/** Who is in one room, kept by {@link Muster#enter}. */
export class Room {
  /** @type {Map<string, {user: string, state: State, info?: *, entered_at: number}>} */
  occupants = new Map();
  count = 0;
  ver = undefined;

  constructor(id, params) {
    this.id = id;
    this.params = params;
  }

  /** Takes a whole list of occupants; returns what differs. */
  reset(reply) {
    const before = this.occupants;
    this.occupants = new Map((reply.occupants ?? []).map((o) => [o.user, o]));
    const now = [...this.occupants.values()];
    this.ver = reply.ver;
    this.count = reply.count ?? now.length;
    return {
      enter: now.filter((o) => !before.has(o.user)),
      update: now.filter((o) => before.has(o.user) && JSON.stringify(o) !== JSON.stringify(before.get(o.user))),
      leave: [...before.values()].filter((o) => !this.occupants.has(o.user)).map((o) => ({ user: o.user })),
    };
  }

  /** Applies a pushed change; returns what differs, nothing when it is not newer than what is known. */
  apply(push) {
    if (push.ver && compare(push.ver, this.ver) <= 0) return undefined;
    if (push.all) return this.reset({ ...push, occupants: push.enter });
    this.ver = push.ver ?? this.ver;
    for (const o of [...(push.enter ?? []), ...(push.update ?? [])]) this.occupants.set(o.user, o);
    for (const o of push.leave ?? []) this.occupants.delete(o.user);
    this.count = push.count ?? this.occupants.size;
    return { enter: push.enter ?? [], update: push.update ?? [], leave: push.leave ?? [] };
  }
}

/**
 * Keeps an outbox position in a Storage. Only what `handle` does may be lost or done
 * twice in a crash; to rule that out, store the position together with what comes of the
 * entry, in `handle`, and let `save` do nothing.
 * @param {Storage} storage such as localStorage
 * @param {string} key
 * @returns {PositionStore}
 */
export function positionIn(storage, key) {
  return {
    load: () => JSON.parse(storage?.getItem(key) || "null"),
    save: (position) => storage?.setItem(key, JSON.stringify(position)),
  };
}

/**
 * The user's outbox as this device reads it. The server gives an entry at least once, the handler gets it once:
 * what has been given is dropped by its offset. An entry is processed when the handler's promise resolves; if it rejects,
 * it gets the same entry again, with back-off.
 */
export class Outbox {
  #handle;
  #store;
  #on;
  #queue = []; // the first one may be in the handler's hands
  #given = { epoch: "", offset: 0 }; // of the last one queued
  #any = true; // the next entry may have any offset
  #strange = false; // the server does not know the position of this device
  #era = 0; // resets so far
  #done = 0; // offset processed and saved in this era
  #acked = 0; // offset that the server knows to be done
  #fresh = 0; // processed since the last ack
  #timer; // of the ack
  #again; // timer of the next try
  #tries = 0;
  #running = false;
  #stopped = true;

  /**
   * @param {(delivery: Delivery) => void|Promise<void>} handle
   * @param {PositionStore} store
   * @param {{ack: () => void, error: (e: Error) => void}} on ack: it is time to send {@link Outbox#owed}
   */
  constructor(handle, store, on) {
    this.#handle = handle;
    this.#store = store;
    this.#on = on;
  }

  /** Loads the position, the first time, and lets the handler go on. */
  async start() {
    if (this.#era === 0 && !this.#given.epoch) {
      const { epoch = "", offset = 0 } = (await this.#store.load()) ?? {};
      this.#given = { epoch, offset };
      this.#any = !offset;
      this.#done = this.#acked = offset;
    }
    this.#stopped = false;
    this.#run();
  }
  stop() {
    this.#stopped = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#again);
  }

  /** From the next connect on this is another device, at the same position. */
  move() {
    this.#strange = this.#any = true;
  }

  /** The position for connect; that the server learns it is an ack. */
  declare() {
    this.#acked = this.#strange ? 0 : this.#done;
    if (this.#strange) return {}; // what was given already is dropped
    return this.#done ? { epoch: this.#given.epoch, offset: this.#done } : this.#given.epoch ? { epoch: this.#given.epoch } : {};
  }
  /** The ack that is due, for its caller to send; undefined if there is none. */
  owed() {
    clearTimeout(this.#timer);
    this.#fresh = 0;
    if (this.#done <= this.#acked) return undefined;
    this.#acked = this.#done;
    return { outbox: this.#done, epoch: this.#given.epoch };
  }

  /** Queues what is new in what the server says. */
  take({ epoch = "", reset, gap, entries = [] }) {
    this.#strange = false;
    if (reset || (this.#given.epoch && epoch !== this.#given.epoch)) {
      this.#given = { epoch, offset: 0 };
      this.#done = this.#acked = this.#fresh = 0;
      this.#era++;
      this.#any = true;
      this.#add({ reset: true });
    } else this.#given.epoch ||= epoch;
    if (gap && !this.#skip(gap)) return;
    for (const entry of entries) {
      const { offset } = entry;
      if (!(offset > this.#given.offset)) continue;
      if (!this.#any && offset !== this.#given.offset + 1) return; // what is missing comes again
      if (this.#queue.length >= WINDOW) return; // and so does this
      this.#given.offset = offset;
      this.#any = false;
      this.#add({ entry });
    }
    this.#run();
  }
  #skip({ from, to, reason }) {
    const next = this.#given.offset + 1;
    if (!(to >= next)) return true;
    if (from > next && !this.#any) return false;
    const before = next === 1 && reason === "acked"; // this device's time
    this.#given.offset = to;
    this.#any = false;
    if (!before) this.#add({ gap: { from: Math.max(from, next), to, reason } });
    return true;
  }
  #add(delivery) {
    this.#queue.push({ era: this.#era, delivery: { position: { ...this.#given }, ...delivery } });
  }

  async #run() {
    if (this.#running) return;
    this.#running = true;
    try {
      while (this.#queue.length && !this.#stopped) {
        const [{ era, delivery }] = this.#queue;
        await this.#handle(delivery);
        await this.#store.save(delivery.position);
        this.#queue.shift();
        this.#tries = 0;
        if (era === this.#era) this.#finished(delivery.position.offset);
      }
    } catch (error) {
      clearTimeout(this.#again);
      if (!this.#stopped) this.#again = setTimeout(() => this.#run(), backoff(this.#tries++));
      this.#on.error(error);
    } finally {
      this.#running = false;
    }
  }
  #finished(offset) {
    this.#done = offset;
    if (++this.#fresh >= ACK.entries) return this.#on.ack();
    if (this.#fresh === 1) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#on.ack(), ACK.ms);
    }
  }
}

/** A UUIDv7 of a time in Unix ms. */
export function messageId(ms) {
  const random = newId();
  const variant = ((parseInt(random[0], 16) & 3) | 8).toString(16);
  const hex = Math.floor(ms).toString(16).padStart(12, "0") + "7" + random.slice(1, 4) + variant + random.slice(4, 19);
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** One socket: commands and their replies, and the watchdog. */
class Conn {
  #ws;
  #on;
  #calls = new Map();
  #id = 0;
  #heard = Date.now();
  #limit = ANSWER_MS;
  #dog;
  asked = new Set(); // users the server was asked to watch
  unasked = new Set(); // those it is to forget
  entered = new Set(); // rooms
  inactive = false;
  openedAt = 0; // when the connect reply came
  parting = null; // what the server said before it closed: {code, reconnect, retry_after_ms}

  /** @param on {{open: Function, push: Function, pong: Function, stray: Function, lost: Function}} */
  constructor(ws, on) {
    this.#ws = ws;
    this.#on = on;
    ws.onopen = () => on.open(this);
    ws.onmessage = (e) => this.#frame(e.data);
    ws.onclose = (e) => this.end(e.code, e.reason);
    this.#watch();
  }

  /** From now on silence longer than the ping interval and 10 s is a lost conn. */
  expectPings(ms) {
    this.#limit = (ms || 20_000) + ANSWER_MS;
  }
  forget(user) {
    if (this.asked.delete(user)) this.unasked.add(user);
  }
  send(command) {
    if (this.#ws.readyState === 1) this.#ws.send(JSON.stringify(command));
  }

  /**
   * Sends a command. With onPart the answer may come in parts, each given to it, the
   * last one marked done; otherwise the promise has the one reply.
   */
  call(method, params, onPart) {
    const id = ++this.#id;
    return new Promise((resolve, reject) => {
      const late = () => this.#settle(id, (c) => c.reject(new MusterError({ name: "TIMEOUT", message: `no answer to ${method}`, retryable: true })));
      this.#calls.set(id, { method, resolve, reject, onPart, timer: setTimeout(late, ANSWER_MS) });
      this.send({ id, [method]: params });
    });
  }

  /** Closes the socket and reports code at once, without waiting for the peer. */
  end(code, reason = "") {
    this.discard();
    this.#on.lost(this, code, reason);
  }

  /**
   * Closes the socket and reports nothing. Browsers refuse to say 1001 for a page; it
   * is what they send themselves when the page goes.
   */
  discard(code) {
    clearTimeout(this.#dog);
    const ws = this.#ws;
    ws.onopen = ws.onmessage = ws.onclose = null;
    try {
      ws.close(code);
    } catch (error) {
      if (code !== 1001) throw error;
    }
    const gone = new MusterError({ name: "DISCONNECTED", message: "the connection was lost before the answer", retryable: true });
    for (const id of [...this.#calls.keys()]) this.#settle(id, (c) => c.reject(gone));
  }

  #settle(id, how) {
    const call = this.#calls.get(id);
    if (!call) return;
    clearTimeout(call.timer);
    this.#calls.delete(id);
    how(call);
  }

  #frame(data) {
    this.#heard = Date.now();
    for (const m of decode(data)) {
      try {
        this.#message(m);
      } catch (error) {
        this.#on.stray(new MusterError({ name: "BAD_MESSAGE", message: `the server said what makes no sense: ${error.message}` }));
      }
    }
  }
  #message(m) {
    if (m.id) this.#answer(m);
    else if (m.push) this.#on.push(this, m.push);
    else if (m.error) this.#on.stray(new MusterError(m.error));
    else if (!Object.keys(m).length) this.send(this.#on.pong(this));
  }

  #answer(m) {
    const call = this.#calls.get(m.id);
    if (!call) return;
    if (m.error) return this.#settle(m.id, (c) => c.reject(new MusterError(m.error)));
    const body = m[call.method] ?? {};
    call.onPart?.(body);
    if (!call.onPart || body.done) this.#settle(m.id, (c) => c.resolve(body));
  }

  #watch() {
    const quiet = Date.now() - this.#heard;
    if (quiet >= this.#limit) return this.end(4012, "the server is silent");
    this.#dog = setTimeout(() => this.#watch(), this.#limit - quiet);
  }
}

/** What outlives a page in its tab: device id, session id, attempt. A copied tab gets an id of its own. */
class Tab {
  #store;
  #prefix;
  #channel;
  #nonce = newId();
  #asking = false;
  #taken = false;
  renewed = false; // it was another device before

  constructor(store, prefix) {
    this.#store = store;
    this.#prefix = prefix;
    this.device = this.get("device") || "";
  }
  get(key) {
    return this.#store?.getItem(this.#prefix + key) ?? null;
  }
  set(key, value) {
    if (value) this.#store?.setItem(this.#prefix + key, value);
    else this.#store?.removeItem(this.#prefix + key);
  }
  /** A number above that of every try before; the highest attempt of a session wins. */
  attempt() {
    const n = Math.max(Date.now(), Number(this.get("attempt") || 0) + 1);
    this.set("attempt", String(n));
    return n;
  }
  /** Starts over as a device that nobody knows. */
  renew() {
    this.renewed = this.device !== "";
    this.device = newId();
    this.set("device", this.device);
    this.set("session", "");
  }

  /**
   * Settles which device this tab is: the stored one, if the page before in this tab let
   * go of it (a reload), or if no other tab answers that it is that device. If one does,
   * this tab is a copy of it.
   */
  async claim() {
    const free = this.get("free");
    this.set("free", "");
    if (!this.device) this.renew();
    if (!globalThis.BroadcastChannel) return;
    this.#listen();
    if (free || !this.get("session")) return;
    this.#asking = true;
    this.#taken = false;
    this.#channel.postMessage({ ask: this.device, nonce: this.#nonce });
    await new Promise((r) => setTimeout(r, DUPLICATE_MS));
    this.#asking = false;
    if (this.#taken) this.renew();
  }
  #listen() {
    this.#channel?.close();
    this.#channel = new BroadcastChannel("muster.device");
    this.#channel.onmessage = ({ data }) => {
      if (data.ask === this.device && (!this.#asking || this.#nonce < data.nonce)) this.#channel.postMessage({ taken: data.nonce });
      if (data.taken === this.#nonce) this.#taken = true;
    };
    this.#channel.unref?.();
  }
  /** The page is done with the device; the next one in this tab need not ask for it. */
  release() {
    this.#channel?.close();
    this.#channel = undefined;
    this.set("free", "1");
  }
}

/** 128 random bits in hex. crypto.randomUUID would need a secure context. */
function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}

function sessionStore() {
  try {
    return globalThis.sessionStorage;
  } catch {
    return undefined; // forbidden by the browser's settings: each load is a new device
  }
}

/** One user's presence in this tab. See the head of the file for its events. */
export class Muster extends EventTarget {
  #options;
  #token = null;
  #tab;
  #view = new View((event, detail) => {
    if (event === "leave") this.#typingEnds(`\n${detail.user}`);
    this.#emit(event, detail);
  });
  #rooms = new Map();
  #conn = null; // answers commands
  #next = null; // being opened
  #timer; // for the next dial
  #refresh;
  #ahead = 0; // how far the server's clock is ahead of ours, ms
  #clock = null; // {server_at, at}: the server's clock when performance.now() was at
  #outbox = null;
  #kept = new Map(); // claims that belong to this session, by id: {claim, until}
  #tries = 0;
  #waiting = []; // calls that wait for the connection: [resolve, reject]
  #syncing = false;
  #typing = new Map(); // who types to us, and where: timer of its end
  #typed = new Map(); // our own: when last said
  #inputAt = Date.now();
  #activeAt = 0;
  #unlisten = new AbortController();
  #connection = { state: "idle" };

  /** The own view, with claims and the invisible flag. */
  me = null;
  user = "";
  node = "";
  sessionId = "";
  resumed = false;
  /** Round trip of the last ping of ours, in ms; undefined before one. */
  latencyMs = undefined;

  /**
   * @param {object} options
   * @param {string|(() => string|Promise<string>)} options.token the JWT, or what fetches one; a function is asked again when it expires
   * @param {string} [options.url] default: /v1/ws of the page's own host
   * @param {string} [options.deviceId] default: one per tab
   * @param {string} [options.deviceClass] desktop, mobile, web (default), tv, bot
   * @param {number} [options.graceMs] how long others keep seeing this session after its connection is lost
   * @param {string} [options.client] names the client for the server's explain
   * @param {boolean} [options.trackActivity] false: the application calls {@link Muster#activity} itself
   * @param {{handle: (delivery: Delivery) => void|Promise<void>, position?: PositionStore}} [options.outbox] reads the user's
   *   outbox: entries wait for this device until it says {@link Muster#forgetDevice} or is away for 30 days.
   *   position: default beside the device's id, so that a new tab starts with the oldest entries kept
   * @param {Storage} [options.storage] default: sessionStorage
   * @param {string} [options.storagePrefix] default: "muster."
   * @param {typeof WebSocket} [options.WebSocket]
   */
  constructor(options) {
    super();
    this.#options = { deviceClass: "web", client: "muster.js", trackActivity: true, WebSocket: globalThis.WebSocket, ...options };
    this.#tab = new Tab(options.storage ?? sessionStore(), options.storagePrefix ?? "muster.");
    this.sessionId = this.#tab.get("session") || "";
    if (options.outbox) {
      const beside = { load: () => JSON.parse(this.#tab.get("outbox") || "null"), save: (p) => this.#tab.set("outbox", JSON.stringify(p)) };
      this.#outbox = new Outbox(options.outbox.handle, options.outbox.position ?? beside, {
        ack: () => this.#ack(),
        error: (error) => this.#error(error),
      });
    }
  }

  /**
   * The connection: `idle`; `connecting`; `connected`; `waiting` for retry_at; or
   * `closed` for good, with the server's code and reason unless {@link Muster#close}
   * or {@link Muster#bye} was called.
   * @returns {{state: string, code?: number, reason?: string, retry_at?: number}}
   */
  get connection() {
    return this.#connection;
  }
  get connected() {
    return this.#conn !== null;
  }
  get deviceId() {
    return this.#options.deviceId || this.#tab.device;
  }

  /** Connects and stays connected. Resolves at the first connection, rejects when the server refuses for good. */
  async connect() {
    if (["connecting", "connected", "waiting"].includes(this.#connection.state)) return this.#up(false);
    this.#tries = 0;
    this.#say({ state: "connecting" });
    const up = this.#up(false);
    this.#listen();
    if (!this.#options.deviceId) await this.#tab.claim();
    this.sessionId = this.#tab.get("session") || "";
    try {
      await this.#outbox?.start();
      if (this.#tab.renewed) this.#outbox?.move();
    } catch (error) {
      this.#end(error, { state: "closed", reason: `the outbox position: ${error.message}` });
      return up;
    }
    this.#dial();
    return up;
  }

  /** Signs out: others see this device leave at once. With forget, nothing waits for it any more: see {@link Muster#forgetDevice}. */
  bye({ forget = false } = {}) {
    this.#ack();
    if (forget) this.#conn?.send({ device: { forget: true } });
    this.#conn?.send({ bye: {} });
    this.#tab.set("session", "");
    this.sessionId = "";
    this.#stop(1000);
  }

  /** Stops without a goodbye: the session can be resumed while its grace runs. */
  close() {
    this.#stop();
  }
  #stop(code) {
    this.#end(new MusterError({ name: "CLOSED", message: "the client was closed" }), { state: "closed" }, code);
  }

  /** Watches users: their presence arrives as events and can be read with {@link Muster#presence}. */
  watch(...users) {
    for (const u of users.flat()) this.#view.add(u);
    this.#sync();
  }
  unwatch(...users) {
    for (const u of users.flat()) {
      this.#view.remove(u);
      this.#conn?.forget(u);
    }
    this.#sync();
  }
  /** @returns {string[]} */
  get watched() {
    return this.#view.ids();
  }
  /** @returns {Presence|undefined} undefined when the user is not watched */
  presence(user) {
    return this.#view.get(user);
  }
  /** Whether a user is composing something for us, or in a room. */
  isTyping(user, room = "") {
    return this.#typing.has(`${room}\n${user}`);
  }

  /**
   * Asks once, without watching.
   * @param {string[]} users at most 1,000
   * @returns {Promise<Map<string, Presence>>}
   */
  async query(users) {
    const answer = new View(() => {});
    for (const u of users) answer.add(u);
    await this.call("query", { users }, (part) => answer.snapshot(users, part, 0));
    return new Map(users.map((u) => [u, answer.get(u)]));
  }

  /**
   * Sets what others see. `online` ends a status set before; `invisible` shows the
   * user offline to everyone else. A status for up to 5 minutes belongs to the session, any other to the user.
   * @param {{state: string, text?: string, emoji?: string, ttl_ms?: number}} status
   */
  async setStatus(status) {
    const reply = await this.call("status", status);
    if (status.state === "invisible") return reply; // which leaves the status as it is
    if (status.ttl_ms) this.#hold({ ...status, id: "manual", source: "manual" });
    else this.#kept.delete("manual");
    return reply;
  }
  /** Hides this user from everyone, or shows it again with the status it had set. */
  setInvisible(on = true) {
    if (on) return this.setStatus({ state: "invisible" });
    const { state, text, emoji } = this.manualStatus;
    return this.setStatus({ state, text, emoji });
  }
  /** The status set by {@link Muster#setStatus}, on whichever device; state online when there is none. */
  get manualStatus() {
    const claim = this.me?.claims?.find((c) => c.id === "manual");
    return { ...claim, state: claim?.state === "away" || claim?.state === "dnd" ? claim.state : "online" };
  }
  /**
   * One source of status among several, such as a call or a game: see Claim in docs/protocol.md. One for more
   * than 5 minutes belongs to the user, any other to the session.
   */
  async setClaim(claim) {
    const reply = await this.call("claim", claim);
    this.#hold(claim);
    return reply;
  }
  async endClaim(id) {
    const reply = await this.call("claim.end", { id });
    this.#kept.delete(id);
    return reply;
  }
  /** Who may see what: see Audience in docs/protocol.md. */
  setAudience(audience) {
    return this.call("audience", audience);
  }

  /** The user gave input. Cheap: at most one frame in 30 s. */
  activity() {
    this.#inputAt = Date.now();
    if (!this.#conn || this.#inputAt - this.#activeAt < ACTIVITY_MS) return;
    this.#activeAt = this.#inputAt;
    this.#conn.send({ activity: {} });
  }
  /** The user is away now, until the next input. */
  away() {
    this.#activeAt = 0;
    return this.call("activity", { away: true });
  }

  /**
   * Says that the user is composing something; call it for every key, one frame in 3 s is sent.
   * @param {{user?: string, room?: string, kind?: string, stop?: boolean}} target a user (watched, and watching us) or a room
   */
  typing({ stop = false, ...target }) {
    const key = `${target.room ?? ""}\n${target.user ?? ""}`;
    const now = Date.now();
    if (stop ? !this.#typed.has(key) : now - (this.#typed.get(key) ?? 0) < TYPING_MS) return;
    if (stop) this.#typed.delete(key);
    else this.#typed.set(key, now);
    this.#conn?.send({ typing: stop ? { ...target, stop } : target });
  }

  /**
   * Enters a room, or subscribes to it only; its occupants arrive as `room` events.
   * @param {string} id
   * @param {{subscribe_only?: boolean, enter_only?: boolean, info?: *}} [how]
   * @returns {Room}
   */
  enter(id, how = {}) {
    const room = this.#rooms.get(id) ?? new Room(id, { room: id, ...how });
    this.#rooms.set(id, room);
    this.#sync();
    return room;
  }
  leave(id) {
    this.#rooms.delete(id);
    this.#sync();
  }
  /** @returns {Room|undefined} */
  room(id) {
    return this.#rooms.get(id);
  }

  /**
   * Puts a message into the outbox of a user and resolves with {client_id, at} when it is stored for good. Until then the same id
   * is sent again and again, on new sockets too, so that it is stored once whatever fails. Rejects when the server refuses
   * for a reason that waiting cannot mend, with OUTBOX_FULL, when the client is closed or the signal aborts; the error's
   * `clientId` then is that of a message that may have been stored.
   * @param {string} user
   * @param {*} body any JSON of at most 16 KiB
   * @param {{client_id?: string, class?: "critical"|"normal"|"presence", ttl_ms?: number, collapse_key?: string,
   *   ack_mode?: "each_device"|"any_device", signal?: AbortSignal}} [how] client_id: to go on with an earlier message
   * @returns {Promise<{client_id: string, at: number}>}
   */
  async publish(user, body, { client_id = "", signal, ...how } = {}) {
    for (let n = 0; ; n++) {
      try {
        signal?.throwIfAborted();
        await this.#up();
        client_id ||= messageId(this.#serverTime());
        return await abortable(this.call("publish", { user, client_id, body, ...how }), signal);
      } catch (error) {
        if (!error.retryable || error.code === OUTBOX_FULL || signal?.aborted) {
          if (client_id && error instanceof Error) error.clientId = client_id;
          throw error;
        }
        await abortable(new Promise((r) => setTimeout(r, backoff(n, error.retryAfterMs))), signal).catch(() => {});
      }
    }
  }

  /**
   * One step of the handshake with a user: `subscribe` asks to see the user, `approve` lets the user see us (before being
   * asked: in advance), `deny` refuses or ends that, `unsubscribe` sees the user no longer, `remove` does both and forgets.
   * @param {"subscribe"|"approve"|"deny"|"unsubscribe"|"remove"} action
   * @returns {Promise<Contact>} how the two stand then
   */
  async contact(user, action) {
    return (await this.call("contact", { user, action })).contact ?? { user };
  }
  /**
   * Lists all relations by id, also requests and blocks. `contact` events tell what changes while connected: list again after each connect.
   * @returns {Promise<Contact[]>}
   */
  async contacts() {
    const all = [];
    for (;;) {
      const { contacts = [], more } = await this.call("contacts", all.length ? { after: all.at(-1).user } : {});
      all.push(...contacts);
      if (!more || !contacts.length) return all;
    }
  }
  /** Hides users and us from each other, above all rules; they cannot tell. */
  async block(...users) {
    for (const add of portions(users.flat(), BLOCK)) await this.call("block", { add });
  }
  async unblock(...users) {
    for (const remove of portions(users.flat(), BLOCK)) await this.call("block", { remove });
  }
  /** Asks for one outbox entry, of the type notify_when, when a user next comes online; ttl_ms: 7 days. */
  notifyWhen(user, ttl_ms) {
    return this.call("notify_when", { user, ttl_ms });
  }
  endNotifyWhen(user) {
    return this.call("notify_when", { user, end: true });
  }
  /** Says how a push service (fcm, apns, webpush or the application's own) reaches this device; with "" it does not any more. */
  registerPush(provider, token) {
    return this.call("device", { provider, token });
  }
  /** Ends what is kept for this device: push, and its place in the outbox, until it connects again. */
  forgetDevice() {
    this.#ack(); // what only this device has is done with
    return this.call("device", { forget: true });
  }

  /** Measures a round trip to the server, in ms. */
  async ping() {
    const start = performance.now();
    await this.call("ping", {});
    this.latencyMs = performance.now() - start;
    this.#emit("latency", { ms: this.latencyMs });
    return this.latencyMs;
  }

  /** Sends any command once connected (at most 10 s later) and resolves with its reply, or rejects with a MusterError. */
  async call(method, params, onPart) {
    await this.#up();
    return this.#conn.call(method, params, onPart);
  }

  // The connection.

  async #dial() {
    clearTimeout(this.#timer);
    if (this.#next || this.#connection.state === "closed") return;
    if (!this.#conn && this.#connection.state !== "connecting") this.#say({ state: "connecting" });
    const placeholder = (this.#next = { discard() {} }); // one dial at a time, also while the token comes
    try {
      this.#token ??= await this.#fetchToken();
      if (this.#next !== placeholder) return;
      const ws = new this.#options.WebSocket(this.#options.url || ownUrl(), [PROTOCOL]);
      this.#next = new Conn(ws, {
        open: (conn) => this.#declare(conn),
        push: (conn, push) => this.#push(conn, push),
        pong: (conn) => this.#pong(conn),
        stray: (error) => this.#error(error),
        lost: (conn, code, reason) => this.#lost(conn, code, reason),
      });
    } catch (error) {
      if (this.#next !== placeholder) return;
      this.#next = null;
      this.#error(error);
      this.#retry(0, String(error.message), 0);
    }
  }

  async #fetchToken() {
    const { token } = this.#options;
    return typeof token === "function" ? token() : token;
  }

  /** Says all that this session wants, in one frame; #sync sends what does not fit. */
  async #declare(conn) {
    const watch = portions(this.#view.ids())[0] ?? [];
    const mark = this.#view.mark;
    conn.asked = new Set(watch);
    conn.entered = new Set(this.#rooms.keys());
    conn.inactive = hidden();
    const { deviceClass, graceMs, client } = this.#options;
    const params = {
      token: this.#token,
      device_id: this.deviceId,
      class: deviceClass,
      session_id: this.sessionId || undefined,
      attempt: this.#tab.attempt(),
      idle_ms: Math.max(0, Date.now() - this.#inputAt),
      watch,
      rooms: [...this.#rooms.values()].map((r) => r.params),
      grace_ms: graceMs,
      inactive: conn.inactive || undefined,
      client,
      outbox: this.#outbox?.declare(),
    };
    try {
      await conn.call("connect", params, (part) => {
        if (!conn.openedAt) this.#welcome(conn, part);
        if (conn !== this.#conn) return;
        this.#view.snapshot(watch, part, mark);
        if (part.outbox) this.#outbox?.take(part.outbox);
      });
    } catch (error) {
      if (conn.openedAt || conn !== this.#next) return;
      const expired = error.code === 109 && this.#refreshable;
      if (expired) this.#token = null;
      conn.parting ??= { code: error.code, reason: error.message, reconnect: error.retryable || expired, retry_after_ms: error.retryAfterMs };
      conn.end(error.code, error.message);
    }
  }

  #welcome(conn, reply) {
    conn.openedAt = Date.now();
    conn.expectPings(reply.ping_ms);
    this.#conn?.discard(); // make before break: the new socket is there
    this.#conn = conn;
    this.#next = null;
    clearTimeout(this.#timer);
    const anew = this.sessionId && !reply.resumed;
    Object.assign(this, { user: reply.user, node: reply.node ?? "", resumed: !!reply.resumed, sessionId: reply.session_id });
    this.#tab.set("session", reply.session_id);
    this.#activeAt = this.#inputAt;
    this.#ahead = reply.server_at ? reply.server_at - Date.now() : 0;
    this.#clock = reply.server_at ? { server_at: reply.server_at, at: performance.now() } : null;
    this.#refreshBefore(reply.exp_at);
    this.#say({ state: "connected" });
    this.#self(reply.self);
    for (const r of reply.rooms ?? []) this.#roomReply(conn, r);
    for (const [resolve] of this.#waiting.splice(0)) resolve();
    if (anew) this.#restore(reply.self);
    this.#visibility();
    this.#sync();
  }

  #lost(conn, code, reason) {
    const opening = conn === this.#next;
    if (opening) this.#next = null;
    else if (conn === this.#conn) {
      this.#conn = null;
      if (Date.now() - conn.openedAt > STEADY_MS) this.#tries = 0;
      for (const key of [...this.#typing.keys()]) this.#typingEnds(key);
      this.#view.lose(Date.now());
    } else return;
    const part = conn.parting;
    if (part) [code, reason] = [part.code || code, part.reason || reason];
    let what = verdict(code, this.#refreshable);
    if (part && what !== "renew" && part.reconnect !== undefined) what = part.reconnect ? "retry" : "final";
    if (code === 4013) this.#token = null;
    if (what === "renew" && this.#options.deviceId) what = "final"; // the id is the application's, so is the choice
    if (what === "final") return opening && this.#conn ? undefined : this.#final(code, reason);
    if (what === "renew") {
      if (this.#next || this.#conn) return;
      this.#tab.renew();
      this.#outbox?.move();
      this.sessionId = "";
      if (hidden()) return this.#say({ state: "waiting", code, reason }); // until the page is seen: see #visibility
    }
    this.#retry(code, reason, part?.retry_after_ms);
  }

  #retry(code, reason, retryAfterMs) {
    const delay = backoff(this.#tries++, retryAfterMs);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#dial(), delay);
    if (!this.#conn && !this.#next) this.#say({ state: "waiting", code, reason, retry_at: Date.now() + delay, ordered: !!retryAfterMs });
  }

  #final(code, reason) {
    this.#token = null;
    this.#end(new MusterError({ code, name: "REFUSED", message: reason || `closed with ${code}` }), { state: "closed", code, reason });
  }
  #end(error, connection, code) {
    this.#unlisten.abort();
    this.#outbox?.stop();
    this.#tab.release();
    this.#drop(code);
    for (const [, reject] of this.#waiting.splice(0)) reject(error);
    this.#say(connection);
  }

  /** Lets go of the sockets and timers, without deciding what comes next. */
  #drop(code) {
    clearTimeout(this.#timer);
    clearTimeout(this.#refresh);
    this.#next?.discard(code);
    this.#conn?.discard(code);
    this.#next = this.#conn = null;
    for (const key of [...this.#typing.keys()]) this.#typingEnds(key);
    this.#view.lose(Date.now());
  }

  /** Resolves once connected; with limit it rejects after 10 s. */
  #up(limit = true) {
    if (this.#conn) return Promise.resolve();
    const { state, code, reason } = this.#connection;
    if (state === "closed" || state === "idle") {
      return Promise.reject(new MusterError({ code, name: "NOT_CONNECTED", message: reason || "call connect first" }));
    }
    return new Promise((resolve, reject) => {
      let timer;
      const entry = [resolve, reject].map((f) => (v) => (clearTimeout(timer), f(v)));
      const late = () => {
        this.#waiting = this.#waiting.filter((e) => e !== entry);
        reject(new MusterError({ name: "NOT_CONNECTED", message: "no connection to the server", retryable: true }));
      };
      if (limit) timer = setTimeout(late, ANSWER_MS);
      this.#waiting.push(entry);
    });
  }

  get #refreshable() {
    return typeof this.#options.token === "function";
  }
  #refreshBefore(expAt) {
    clearTimeout(this.#refresh);
    if (!expAt || !this.#refreshable) return;
    const left = expAt - Date.now() - this.#ahead;
    const wait = Math.min(2 ** 31 - 1, Math.max(1_000, left - Math.min(60_000, left / 2)));
    this.#refresh = setTimeout(async () => {
      try {
        this.#token = await this.#fetchToken();
        const { exp_at } = await this.call("refresh", { token: this.#token });
        this.#refreshBefore(exp_at);
      } catch (error) {
        this.#error(error); // the server closes with 4013 when the token has expired; that fetches a new one
      }
    }, wait);
  }

  // What is wanted and what the server knows.

  #sync() {
    if (this.#syncing || !this.#conn) return;
    this.#syncing = true;
    queueMicrotask(() => {
      this.#syncing = false;
      if (this.#conn) this.#syncNow(this.#conn);
    });
  }

  #syncNow(conn) {
    for (const u of [...conn.asked]) if (!this.#view.has(u)) conn.forget(u);
    for (const users of portions(conn.unasked)) {
      conn.call("watch", { remove: users }).catch((e) => this.#amiss(conn, e, () => users.forEach((u) => conn.asked.add(u))));
    }
    conn.unasked.clear();
    for (const users of portions(this.#view.ids().filter((u) => !conn.asked.has(u)))) {
      const mark = this.#view.mark;
      for (const u of users) conn.asked.add(u);
      const apply = (part) => conn === this.#conn && this.#view.snapshot(users, part, mark);
      conn.call("watch", { add: users }, apply).catch((e) => this.#amiss(conn, e, () => users.forEach((u) => conn.asked.delete(u))));
    }
    for (const id of [...conn.entered]) {
      if (this.#rooms.has(id)) continue;
      conn.entered.delete(id);
      conn.call("room.leave", { room: id }).catch((e) => this.#amiss(conn, e, () => {}));
    }
    for (const [id, room] of this.#rooms) {
      if (conn.entered.has(id)) continue;
      conn.entered.add(id);
      conn.call("room.enter", room.params).then(
        (reply) => this.#roomReply(conn, { ...reply, room: id }),
        (e) => this.#roomReply(conn, { room: id, error: e }),
      );
    }
  }

  /** A part of the wish was refused: tried again if that can help, else the application hears of it. */
  #amiss(conn, error, undo) {
    if (conn !== this.#conn) return; // the next connect declares it all
    if (!error.retryable) return this.#error(error);
    undo();
    setTimeout(() => this.#sync(), backoff(3, error.retryAfterMs));
  }

  // What the server says.

  #push(conn, push) {
    if (push.presence) this.#view.push(push.presence);
    if (push.self) {
      for (const id of this.#kept.keys()) if (!claimed(push.self, id)) this.#kept.delete(id); // it was ended elsewhere
      this.#self(push.self);
    }
    if (push.outbox && conn === this.#conn) this.#outbox?.take(push.outbox);
    for (const contact of push.contact ?? []) this.#emit("contact", contact);
    for (const t of push.typing ?? []) this.#typingPush(t);
    if (push.room) this.#roomPush(push.room);
    if (push.disconnect) conn.parting = push.disconnect;
    if (push.session_revoked) conn.parting = { code: 4505, reason: push.session_revoked.reason, reconnect: false };
    if (push.reconnect) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#dial(), push.reconnect.retry_after_ms ?? 0);
    }
  }

  #self(self) {
    if (!self) return;
    const ver = this.me?.presence?.ver;
    if (ver && self.presence?.ver && compare(self.presence.ver, ver) < 0) return;
    this.me = self;
    this.#emit("self", self);
  }

  /** Answers a ping: with an ack if one is due, as any frame will do. */
  #pong(conn) {
    const ack = conn === this.#conn && this.#outbox?.owed();
    return ack ? { ack } : {};
  }
  #ack() {
    const ack = this.#conn && this.#outbox?.owed(); // without a connection connect will say it
    if (ack) this.#conn.send({ ack });
  }

  #serverTime() {
    return this.#clock ? this.#clock.server_at + performance.now() - this.#clock.at : Date.now();
  }

  /** Notes a claim of the session, to be set again if another session has to begin. */
  #hold(claim) {
    this.#kept.delete(claim.id);
    const ttl = claim.ttl_ms || 0;
    if (ttl <= SESSION_TTL_MS) this.#kept.set(claim.id, { claim, until: ttl ? Date.now() + ttl : 0 });
  }
  /** Sets the claims of the session before; those that another device or the user has are newer. */
  #restore(self) {
    for (const [id, { claim, until }] of this.#kept) {
      const ttl_ms = until ? until - Date.now() : undefined;
      if (until && ttl_ms < MIN_TTL_MS) this.#kept.delete(id);
      else if (!claimed(self, id)) this.call("claim", { ...claim, ttl_ms }).catch((e) => this.#error(e));
    }
  }

  #typingPush({ user, room = "", kind = "text", stop, ttl_ms = 6_000 }) {
    const key = `${room}\n${user}`;
    if (stop) return this.#typingEnds(key);
    const was = this.#typing.get(key);
    clearTimeout(was);
    this.#typing.set(key, setTimeout(() => this.#typingEnds(key), ttl_ms));
    if (!was) this.#emit("typing", { user, room, kind, typing: true });
  }
  #typingEnds(key) {
    if (!this.#typing.has(key)) return;
    clearTimeout(this.#typing.get(key));
    this.#typing.delete(key);
    const [room, user] = key.split("\n");
    this.#emit("typing", { user, room, typing: false });
  }

  #roomReply(conn, reply) {
    const room = this.#rooms.get(reply.room);
    if (!room || conn !== this.#conn) return;
    if (reply.error) {
      const error = reply.error instanceof MusterError ? reply.error : new MusterError(reply.error);
      if (!error.retryable) return this.#emit("room", { room: room.id, error });
      return this.#amiss(conn, error, () => conn.entered.delete(room.id));
    }
    this.#emit("room", { room: room.id, ...room.reset(reply), count: room.count });
  }
  #roomPush(push) {
    const room = this.#rooms.get(push.room);
    const change = room?.apply(push);
    if (change) this.#emit("room", { room: room.id, ...change, count: room.count });
  }

  // The page.

  #listen() {
    this.#unlisten.abort();
    this.#unlisten = new AbortController();
    const { signal } = this.#unlisten;
    const on = (target, types, f) => types.forEach((type) => target?.addEventListener?.(type, f, { signal, passive: true, capture: true }));
    if (this.#options.trackActivity) on(globalThis, ["pointerdown", "pointermove", "keydown", "wheel", "touchstart"], () => this.activity());
    on(globalThis.document, ["visibilitychange"], () => {
      if (!hidden() && this.#options.trackActivity) this.activity();
      if (!hidden()) this.#hurry();
      this.#visibility();
    });
    on(globalThis, ["online"], () => this.#hurry());
    on(globalThis, ["pagehide"], (e) => {
      this.#tab.release();
      this.#drop(e.persisted ? undefined : 1001);
      this.#say({ state: "idle" });
    });
    on(globalThis, ["pageshow"], (e) => e.persisted && this.connect().catch(() => {}));
  }

  #visibility() {
    if (!this.#conn || this.#conn.inactive === hidden()) return;
    this.#conn.inactive = hidden();
    this.#conn.send({ client_state: { inactive: hidden() } });
  }

  /** Something changed for the better: no need to sit out a delay that the server did not order. */
  #hurry() {
    if (this.#connection.state === "waiting" && !this.#connection.ordered) this.#dial();
  }

  #say(connection) {
    this.#connection = Object.freeze(connection);
    this.#emit("state", connection);
  }
  #error(error) {
    this.#emit("error", error);
  }
  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

const claimed = (self, id) => !!self?.claims?.some((c) => c.id === id);

/** A promise that rejects when the signal aborts. */
function abortable(promise, signal) {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const aborted = () => reject(signal.reason);
    signal.addEventListener("abort", aborted, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", aborted));
  });
}

const hidden = () => globalThis.document?.visibilityState === "hidden";

function ownUrl() {
  const { protocol, host } = globalThis.location;
  return `${protocol === "https:" ? "wss" : "ws"}://${host}/v1/ws`;
}
