import { test, mock, beforeEach, afterEach } from "node:test";
import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { Muster, MusterError, Outbox, Room, View, backoff, compare, decode, messageId, portions, positionIn, verdict } from "./muster.js";

/** A socket whose other end is the test. */
class Socket {
  static all = [];
  readyState = 0;
  sent = [];
  closedWith = null;
  constructor(url, protocols) {
    Object.assign(this, { url, protocols });
    Socket.all.push(this);
  }
  send(text) {
    this.sent.push(JSON.parse(text));
  }
  close(code) {
    this.closedWith ??= { code };
    this.readyState = 3;
  }
  // what the test does
  open() {
    if (this.readyState === 1) return;
    this.readyState = 1;
    this.onopen?.();
  }
  say(...messages) {
    this.onmessage?.({ data: messages.map((m) => JSON.stringify(m)).join("\n") });
  }
  break(code = 1006, reason = "") {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }
  /** The commands of a method, oldest first. */
  of(method) {
    return this.sent.filter((c) => method in c);
  }
}

class Store {
  items = new Map();
  getItem(k) {
    return this.items.get(k) ?? null;
  }
  setItem(k, v) {
    this.items.set(k, String(v));
  }
  removeItem(k) {
    this.items.delete(k);
  }
}

const turn = async () => {
  for (let i = 0; i < 30; i++) await Promise.resolve();
};
const clients = [];

function client(options = {}) {
  const m = new Muster({ url: "ws://test/v1/ws", token: "t", WebSocket: Socket, storage: new Store(), ...options });
  m.log = [];
  for (const type of ["enter", "update", "leave", "typing", "room", "self", "contact", "error", "state"]) {
    m.addEventListener(type, (e) => m.log.push([type, e.detail]));
  }
  m.events = (type) => m.log.filter(([t]) => t === type).map(([, d]) => d);
  clients.push(m);
  return m;
}

/** Connects m and returns its socket after the server's reply. */
async function up(m, reply = {}) {
  m.connect().catch(() => {});
  await turn();
  return welcome(Socket.all.at(-1), reply);
}
async function welcome(socket, reply = {}) {
  socket.open();
  await turn();
  const [c] = socket.of("connect");
  socket.say({ id: c.id, connect: { session_id: "s1", user: "alice", ping_ms: 20_000, done: true, ...reply } });
  await turn();
  return socket;
}
async function pass(ms) {
  mock.timers.tick(ms);
  await turn();
}

beforeEach(() => {
  Socket.all = [];
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_790_000_000_000 });
  mock.method(Math, "random", () => 0.5);
});
afterEach(() => {
  for (const m of clients.splice(0)) m.close();
  mock.timers.reset();
  mock.restoreAll();
});

test("decode takes one object a line and skips what is none", () => {
  assert.deepEqual(decode('{"id":1}\n\n{"push":{}}\nnonsense\n[1]\n{}'), [{ id: 1 }, { push: {} }, {}]);
});

test("versions are ordered by term, then by number", () => {
  for (const [a, b, sign] of [
    [[1, 2], [1, 2], 0],
    [[1, 3], [1, 2], 1],
    [[2, 1], [1, 9], 1],
    [[1, 9], [2, 1], -1],
    [undefined, [1, 1], -1],
    [[1, 1], undefined, 1],
  ]) {
    assert.equal(Math.sign(compare(a, b)), sign, JSON.stringify([a, b]));
  }
});

test("back-off: full jitter between 0 and a doubling cap, never before the server allows", () => {
  assert.equal(backoff(0, 0, () => 0.999), 0.999 * 200);
  assert.equal(backoff(3, 0, () => 0.5), 800);
  assert.equal(backoff(50, 0, () => 1), 20_000);
  assert.equal(backoff(0, 7_300, () => 0.5), 7_300);
});

test("close codes: the range says what to do", () => {
  for (const code of [1000, 1001, 1006, 1011, 4000, 4011, 4012, 4016, 4499]) assert.equal(verdict(code, false), "retry", code);
  for (const code of [4500, 4504, 4505, 4512, 4999]) assert.equal(verdict(code, true), "final", code);
  assert.equal(verdict(4510, false), "renew");
  assert.equal(verdict(4013, true), "retry");
  assert.equal(verdict(4013, false), "final");
});

test("ids are cut by number and by bytes", () => {
  const ids = Array.from({ length: 2_300 }, (_, i) => `u${i}`);
  assert.deepEqual(portions(ids).map((p) => p.length), [1_000, 1_000, 300]);
  assert.deepEqual(portions(ids).flat(), ids);
  const wide = Array.from({ length: 10 }, () => "é".repeat(5_000));
  assert.ok(portions(wide).every((p) => Buffer.byteLength(JSON.stringify(p)) <= 33_000));
  assert.equal(portions(wide).flat().length, 10);
});

test("view: newer wins, older and equal are dropped, stale lifts with an equal version", () => {
  const seen = [];
  const v = new View((event, { user, presence }) => seen.push([event, user, presence.state]));
  v.add("bob");
  v.push([{ user: "bob", state: "online", ver: [4, 7] }]);
  v.push([{ user: "bob", state: "away", ver: [4, 7] }]);
  v.push([{ user: "bob", state: "away", ver: [3, 99] }]);
  assert.equal(v.get("bob").state, "online");
  v.push([{ user: "bob", state: "online", ver: [4, 7], stale: true, as_of_at: 5 }]);
  assert.equal(v.get("bob").stale, true);
  v.push([{ user: "bob", state: "online", ver: [4, 7] }]);
  assert.equal(v.get("bob").stale, false);
  v.push([{ user: "bob", state: "unknown", stale: true, as_of_at: 6 }]);
  assert.deepEqual([v.get("bob").state, v.get("bob").stale, v.get("bob").as_of_at], ["online", true, 6]);
  v.push([{ user: "bob", state: "online", ver: [4, 7] }]);
  assert.equal(v.get("bob").stale, false);
  v.push([{ user: "bob", state: "away", ver: [4, 8] }, { user: "nobody", state: "online", ver: [9, 9] }]);
  v.push([{ user: "bob", state: "offline", ver: [5, 1], reason: "timeout" }]);
  assert.deepEqual(seen, [
    ["enter", "bob", "online"],
    ["update", "bob", "online"],
    ["update", "bob", "online"],
    ["update", "bob", "online"],
    ["update", "bob", "online"],
    ["update", "bob", "away"],
    ["leave", "bob", "offline"],
  ]);
  assert.equal(v.get("nobody"), undefined);
});

test("view: a snapshot says who is offline only when it is done, and never of those pending or newer", () => {
  const v = new View(() => {});
  for (const u of ["a", "b", "c", "d"]) v.add(u);
  const mark = v.mark;
  v.snapshot(["a", "b", "c", "d"], { presences: [{ user: "a", state: "online", ver: [1, 1] }], pending: ["b"] }, mark);
  assert.deepEqual(["a", "b", "c"].map((u) => v.get(u).state), ["online", "unknown", "unknown"]);
  v.push([{ user: "c", state: "away", ver: [1, 5] }]); // between two parts
  v.snapshot(["a", "b", "c", "d"], { done: true }, mark);
  assert.deepEqual(["a", "b", "c", "d"].map((u) => v.get(u).state), ["online", "unknown", "away", "offline"]);
  assert.ok(v.mark > mark);
});

test("view: a pending user keeps the earlier state, marked stale", () => {
  const v = new View(() => {});
  v.add("bob");
  v.push([{ user: "bob", state: "dnd", text: "in a call", ver: [1, 1] }]);
  v.snapshot(["bob"], { pending: ["bob"], done: true }, v.mark);
  assert.deepEqual({ ...v.get("bob") }, { user: "bob", state: "dnd", text: "in a call", ver: [1, 1], stale: true });
});

test("room: snapshot differences and versioned changes", () => {
  const r = new Room("lobby", {});
  assert.deepEqual(r.reset({ ver: [1, 3], occupants: [{ user: "a", entered_at: 1 }], count: 1 }).enter.map((o) => o.user), ["a"]);
  assert.equal(r.apply({ ver: [1, 3], leave: [{ user: "a" }] }), undefined);
  assert.equal(r.apply({ ver: [1, 4], enter: [{ user: "b", entered_at: 2 }], count: 2 }).enter.length, 1);
  assert.deepEqual([...r.occupants.keys()], ["a", "b"]);
  const diff = r.reset({ ver: [1, 9], occupants: [{ user: "b", entered_at: 2, info: { x: 1 } }], count: 1 });
  assert.deepEqual([diff.enter.length, diff.update[0].user, diff.leave[0].user], [0, "b", "a"]);
  const all = r.apply({ ver: [1, 10], enter: [{ user: "c", entered_at: 3 }], count: 1, all: true });
  assert.deepEqual([all.enter[0].user, all.leave[0].user, [...r.occupants.keys()]], ["c", "b", ["c"]]);
});

test("connect declares everything and the reply fills the view", async () => {
  const m = client({ graceMs: 9_000 });
  m.watch("bob", ["carol"]);
  m.enter("lobby", { info: { page: 1 } });
  const s = await up(m, {
    node: "e7",
    presences: [{ user: "bob", state: "online", ver: [4, 77], devices: { mobile: "online" } }],
    rooms: [{ room: "lobby", ver: [1, 1], occupants: [{ user: "alice", state: "online", entered_at: 5 }], count: 1 }],
    self: { presence: { user: "alice", state: "online", ver: [4, 1] } },
  });
  assert.deepEqual(s.protocols, ["muster.v1.json"]);
  const { attempt, device_id, ...sent } = s.of("connect")[0].connect;
  assert.deepEqual(sent, {
    token: "t", class: "web", idle_ms: 0, watch: ["bob", "carol"], rooms: [{ room: "lobby", info: { page: 1 } }], grace_ms: 9_000, client: "muster.js",
  });
  assert.match(device_id, /^[0-9a-f]{32}$/);
  assert.equal(attempt, 1_790_000_000_000);
  assert.equal(m.connection.state, "connected");
  assert.equal(m.presence("bob").devices.mobile, "online");
  assert.equal(m.presence("carol").state, "offline");
  assert.deepEqual([...m.room("lobby").occupants.keys()], ["alice"]);
  assert.deepEqual([m.user, m.node, m.me.presence.state], ["alice", "e7", "online"]);
  assert.equal(s.of("watch").length, 0, "nothing is left to say");
});

test("a reconnect resumes the session with a higher attempt; the view is stale meanwhile and right after", async () => {
  const m = client();
  m.watch("bob", "carol", "dave");
  const s = await up(m, { presences: ["bob", "carol", "dave"].map((user, i) => ({ user, state: "online", ver: [4, 70 + i] })) });
  await pass(60_000 - 35_000);
  s.say({});
  assert.deepEqual(s.sent.at(-1), {}, "a ping is answered");
  s.break(1006);
  assert.equal(m.connection.state, "waiting");
  assert.equal(m.presence("bob").stale, true);
  await pass(100);
  const [, again] = Socket.all;
  await welcome(again, { resumed: true, presences: [{ user: "bob", state: "away", ver: [4, 80] }], pending: ["carol"] });
  const c = again.of("connect")[0].connect;
  assert.equal(c.session_id, "s1");
  assert.ok(c.attempt > s.of("connect")[0].connect.attempt);
  assert.equal(c.device_id, s.of("connect")[0].connect.device_id);
  assert.equal(c.idle_ms, 25_100, "a reconnect is not activity");
  assert.equal(m.resumed, true);
  const of = (u) => [m.presence(u).state, m.presence(u).stale];
  assert.deepEqual([of("bob"), of("carol"), of("dave")], [["away", false], ["online", true], ["offline", false]]);
  again.say({ push: { presence: [{ user: "carol", state: "online", ver: [4, 71] }] } });
  assert.deepEqual(of("carol"), ["online", false]);
  assert.deepEqual(m.events("leave").map((e) => e.user), ["dave"]);
  assert.equal(m.events("enter").length, 3, "nobody enters twice");
});

test("watch and unwatch are joined in one frame each, and refused ones are tried again", async () => {
  const m = client();
  const s = await up(m);
  m.watch("a");
  m.watch("b");
  await turn();
  assert.deepEqual(s.of("watch").map((c) => c.watch), [{ add: ["a", "b"] }]);
  s.say({ id: s.of("watch")[0].id, error: { code: 111, name: "RATE_LIMITED", retryable: true, retry_after_ms: 1_200 } });
  await turn();
  await pass(1_199);
  assert.equal(s.of("watch").length, 1);
  await pass(1);
  assert.deepEqual(s.of("watch")[1].watch, { add: ["a", "b"] });
  s.say({ id: s.of("watch")[1].id, watch: { presences: [{ user: "a", state: "dnd", ver: [1, 1] }], done: true } });
  assert.deepEqual([m.presence("a").state, m.presence("b").state], ["dnd", "offline"]);
  m.unwatch("a");
  m.watch("c");
  m.unwatch("c");
  await turn();
  assert.deepEqual(s.of("watch").slice(2).map((c) => c.watch), [{ remove: ["a"] }]);
  s.say({ push: { presence: [{ user: "a", state: "away", ver: [1, 2] }] } });
  assert.equal(m.presence("a"), undefined);
  m.unwatch("b");
  m.watch("b");
  await turn();
  assert.deepEqual(s.of("watch").slice(3).map((c) => c.watch), [{ remove: ["b"] }, { add: ["b"] }], "asked again, so answered again");
});

test("what was watched while the socket changed is declared afterwards", async () => {
  const m = client();
  m.connect();
  await turn();
  const [s] = Socket.all;
  s.open();
  await turn();
  m.watch("late");
  m.enter("lobby");
  const many = Array.from({ length: 1_500 }, (_, i) => `u${i}`);
  m.watch(many);
  s.say({ id: s.of("connect")[0].id, connect: { session_id: "s1", user: "alice", done: true } });
  await turn();
  assert.deepEqual(s.of("watch").map((c) => c.watch.add.length), [1_000, 501]);
  assert.deepEqual(s.of("room.enter")[0]["room.enter"], { room: "lobby" });
});

test("query answers once, in parts, and watches nothing", async () => {
  const m = client();
  const s = await up(m);
  const answer = m.query(["a", "b", "c"]);
  await turn();
  const { id } = s.of("query")[0];
  s.say({ id, query: { presences: [{ user: "a", state: "online", ver: [1, 1] }] } });
  s.say({ id, query: { pending: ["b"], done: true } });
  const got = await answer;
  assert.deepEqual([...got].map(([u, p]) => [u, p.state]), [["a", "online"], ["b", "unknown"], ["c", "offline"]]);
  assert.deepEqual(m.watched, []);
});

test("errors are typed; a lost connection rejects what waits", async () => {
  const m = client();
  const s = await up(m);
  const refused = m.setStatus({ state: "asleep" });
  await turn();
  s.say({ id: s.of("status")[0].id, error: { code: 107, name: "BAD_REQUEST", message: "no such state" } });
  await assert.rejects(refused, (e) => e instanceof MusterError && e.code === 107 && e.name === "BAD_REQUEST" && !e.retryable);
  const lost = m.setInvisible();
  await turn();
  assert.deepEqual(s.of("status")[1].status, { state: "invisible" });
  s.break();
  await assert.rejects(lost, { name: "DISCONNECTED", retryable: true });
  const unanswered = m.setStatus({ state: "away" });
  await pass(10_000);
  await assert.rejects(unanswered, { name: "NOT_CONNECTED" });
  await assert.rejects(client().ping(), { name: "NOT_CONNECTED" });
});

test("being seen again brings back the status that was set", async () => {
  const m = client();
  const s = await up(m, { self: { invisible: true, claims: [{ id: "manual", state: "dnd", text: "in a call", priority: 90 }] } });
  m.setInvisible(false).catch(() => {});
  await turn();
  assert.deepEqual(s.of("status")[0].status, { state: "dnd", text: "in a call" });
});

test("a final close code ends it, and calls say so", async () => {
  const m = client();
  const s = await up(m);
  s.say({ push: { disconnect: { code: 4505, reason: "revoked" } } });
  s.break(4505, "revoked");
  assert.deepEqual([m.connection.state, m.connection.code, m.connection.reason], ["closed", 4505, "revoked"]);
  await pass(60_000);
  assert.equal(Socket.all.length, 1);
  await assert.rejects(m.setStatus({ state: "online" }), { code: 4505 });
});

test("a refused connect rejects for good, or waits as long as it is told", async () => {
  const m = client();
  const refused = m.connect();
  await turn();
  let s = Socket.all[0];
  s.open();
  await turn();
  s.say({ id: 1, error: { code: 101, name: "UNAUTHORIZED", message: "bad token" } });
  await assert.rejects(refused, { code: 101, message: "bad token" });
  assert.equal(m.connection.state, "closed");

  const n = client();
  n.connect().catch(() => {});
  await turn();
  s = Socket.all[1];
  s.open();
  await turn();
  s.say({ id: 1, error: { code: 128, name: "BUSY", retryable: true, retry_after_ms: 3_000 } });
  await turn();
  assert.equal(n.connection.state, "waiting");
  await pass(2_999);
  assert.equal(Socket.all.length, 2);
  await pass(1);
  assert.equal(Socket.all.length, 3);
});

test("back-off grows while connections do not last, and starts anew after a steady one", async () => {
  const m = client();
  const s = await up(m);
  const waits = [];
  const wait = () => waits.push(m.connection.retry_at - Date.now());
  s.break(4000);
  wait();
  for (let i = 0; i < 3; i++) {
    await pass(waits.at(-1));
    Socket.all.at(-1).break();
    wait();
  }
  assert.deepEqual(waits, [100, 200, 400, 800]);
  await pass(800);
  const steady = await welcome(Socket.all.at(-1));
  await pass(15_000);
  steady.break();
  wait();
  assert.equal(waits.at(-1), 100);
});

test("silence beyond the ping interval and 10 s is a lost connection", async () => {
  const m = client();
  const s = await up(m, { ping_ms: 20_000 });
  await pass(29_999);
  s.say({});
  await pass(29_999);
  assert.equal(m.connection.state, "connected");
  await pass(2);
  assert.equal(m.connection.state, "waiting");
  assert.ok(s.closedWith);
});

test("a reconnect push makes before it breaks", async () => {
  const m = client();
  m.watch("bob");
  const s = await up(m, { presences: [{ user: "bob", state: "online", ver: [1, 1] }] });
  s.say({ push: { reconnect: { code: 4011, reason: "drain", retry_after_ms: 7_300 } } });
  await pass(7_300);
  const next = Socket.all[1];
  assert.equal(m.connected, true);
  s.say({ push: { presence: [{ user: "bob", state: "away", ver: [1, 2] }] } });
  assert.equal(m.presence("bob").state, "away", "the old socket still counts");
  next.open();
  await turn();
  m.watch("carol"); // after the declaration: goes to the old socket, then to the new one
  await turn();
  await welcome(next, { resumed: true, presences: [{ user: "bob", state: "away", ver: [1, 2] }] });
  assert.ok(s.closedWith);
  assert.deepEqual(next.of("watch").map((c) => c.watch), [{ add: ["carol"] }]);
  assert.equal(m.events("state").at(-1).state, "connected");
  assert.ok(!m.log.some(([, d]) => d.state === "waiting" || d.presence?.stale), "nobody noticed");
});

test("a failed make-before-break keeps the old socket and tries again", async () => {
  const m = client();
  const s = await up(m);
  s.say({ push: { reconnect: { retry_after_ms: 0 } } });
  await pass(0);
  Socket.all[1].break(1006);
  assert.equal(m.connection.state, "connected");
  await pass(100);
  assert.equal(Socket.all.length, 3);
  s.break(1006);
  assert.equal(m.connected, false);
  await welcome(Socket.all[2]);
  assert.equal(m.connected, true);
});

test("4510: another socket has the session, so this tab becomes a device of its own", async () => {
  const m = client();
  const s = await up(m);
  const { device_id } = s.of("connect")[0].connect;
  s.break(4510);
  await pass(100);
  Socket.all[1].open();
  await turn();
  const c = Socket.all[1].of("connect")[0].connect;
  assert.notEqual(c.device_id, device_id);
  assert.equal(c.session_id, undefined);

  const fixed = client({ deviceId: "mine" });
  (await up(fixed)).break(4510);
  assert.equal(fixed.connection.state, "closed", "the device id is the application's, so is the choice");
});

test("a copied tab takes a device id of its own, a reloaded one keeps its own", async () => {
  mock.timers.reset(); // messages between tabs are real
  const store = new Store();
  const first = client({ storage: store });
  await up(first);
  assert.ok(first.deviceId);
  const copy = new Store();
  copy.items = new Map(store.items);
  const second = client({ storage: copy });
  second.connect().catch(() => {});
  await until(() => Socket.all.length === 2);
  assert.notEqual(second.deviceId, first.deviceId);
  first.close();
  const reloaded = client({ storage: store });
  reloaded.connect().catch(() => {});
  await turn();
  assert.equal(Socket.all.length, 3, "at once: the page before let go of the device");
  assert.equal(reloaded.deviceId, first.deviceId);
  assert.equal(reloaded.sessionId, "s1");
});

test("activity is throttled; away makes the next input count at once", async () => {
  const m = client();
  const s = await up(m);
  m.activity();
  await pass(20_000);
  s.say({});
  m.activity();
  assert.equal(s.of("activity").length, 0, "the connect itself said it");
  await pass(10_000);
  m.activity();
  m.activity();
  assert.equal(s.of("activity").length, 1);
  m.away().catch(() => {});
  await turn();
  m.activity();
  assert.deepEqual(s.of("activity").map((c) => c.activity), [{}, { away: true }, {}]);
});

test("typing: one frame in 3 s out; in, it ends by itself", async () => {
  const m = client();
  const s = await up(m);
  m.typing({ user: "bob" });
  m.typing({ user: "bob" });
  m.typing({ user: "carol" });
  await pass(3_000);
  m.typing({ user: "bob" });
  m.typing({ user: "bob", stop: true });
  m.typing({ user: "bob", stop: true });
  assert.deepEqual(s.of("typing").map((c) => c.typing), [{ user: "bob" }, { user: "carol" }, { user: "bob" }, { user: "bob", stop: true }]);

  s.say({ push: { typing: [{ user: "bob", kind: "text", ttl_ms: 6_000 }] } });
  await pass(4_000);
  s.say({ push: { typing: [{ user: "bob", ttl_ms: 6_000 }] } });
  await pass(5_999);
  assert.equal(m.isTyping("bob"), true);
  await pass(1);
  assert.equal(m.isTyping("bob"), false);
  assert.deepEqual(m.events("typing").map((t) => t.typing), [true, false]);
  m.watch("carol");
  s.say({ push: { presence: [{ user: "carol", state: "online", ver: [1, 1] }], typing: [{ user: "carol" }] } });
  assert.equal(m.isTyping("carol"), true);
  s.say({ push: { presence: [{ user: "carol", state: "offline", ver: [1, 2] }] } });
  assert.equal(m.isTyping("carol"), false, "who is gone does not type");
});

test("rooms: live occupants, refusal, leave", async () => {
  const m = client();
  const s = await up(m);
  const room = m.enter("lobby");
  m.enter("secret");
  await turn();
  const [a, b] = s.of("room.enter");
  s.say({ id: a.id, "room.enter": { ver: [1, 1], occupants: [{ user: "alice", state: "online", entered_at: 1 }], count: 1 } });
  s.say({ id: b.id, error: { code: 103, name: "PERMISSION_DENIED", message: "no" } });
  await turn();
  s.say({ push: { room: { room: "lobby", ver: [1, 2], enter: [{ user: "bob", state: "online", entered_at: 2 }], count: 2 } } });
  s.say({ push: { room: { room: "lobby", ver: [1, 2], leave: [{ user: "bob" }], count: 1 } } });
  assert.deepEqual([...room.occupants.keys()], ["alice", "bob"]);
  assert.deepEqual(m.events("room").filter((r) => r.error).map((r) => [r.room, r.error.code]), [["secret", 103]]);
  m.enter("busy");
  await turn();
  s.say({ id: s.of("room.enter")[2].id, error: { code: 128, name: "BUSY", retryable: true, retry_after_ms: 2_000 } });
  await turn();
  await pass(2_000);
  assert.equal(s.of("room.enter").length, 4, "tried again");
  m.leave("lobby");
  await turn();
  assert.deepEqual(s.of("room.leave")[0]["room.leave"], { room: "lobby" });
});

test("an expiring token is refreshed in band; an expired one is fetched anew", async () => {
  let n = 0;
  const m = client({ token: async () => `t${++n}` });
  const hour = 3_600_000; // the server's clock is ahead
  const s = await up(m, { exp_at: Date.now() + hour + 100_000, server_at: Date.now() + hour });
  s.say({});
  await pass(29_000);
  s.say({});
  await pass(21_000);
  assert.deepEqual(s.of("refresh")[0].refresh, { token: "t2" });
  s.break(4013);
  await pass(100);
  Socket.all[1].open();
  await turn();
  assert.equal(Socket.all[1].of("connect")[0].connect.token, "t3");
});

test("a token refused as expired is fetched anew; one that cannot be fetched is final", async () => {
  let n = 0;
  const m = client({ token: () => `t${++n}` });
  m.connect().catch(() => {});
  await turn();
  const expired = { id: 1, error: { code: 109, name: "TOKEN_EXPIRED" } };
  Socket.all[0].open();
  await turn();
  Socket.all[0].say(expired);
  await turn();
  await pass(100);
  Socket.all[1].open();
  await turn();
  assert.equal(Socket.all[1].of("connect")[0].connect.token, "t2");

  const fixed = client();
  const refused = fixed.connect();
  await turn();
  Socket.all[2].open();
  await turn();
  Socket.all[2].say(expired);
  await assert.rejects(refused, { code: 109 });
});

test("a disconnect push before the connect reply says how long to wait", async () => {
  const m = client();
  m.connect().catch(() => {});
  await turn();
  Socket.all[0].open();
  await turn();
  Socket.all[0].say({ push: { disconnect: { code: 4008, reason: "rate_limited", reconnect: true, retry_after_ms: 5_000 } } });
  Socket.all[0].break(4008);
  await pass(4_999);
  assert.equal(Socket.all.length, 1);
  await pass(1);
  assert.equal(Socket.all.length, 2);
});

test("bye leaves at once and forgets the session; close keeps it", async () => {
  const store = new Store();
  const m = client({ storage: store });
  const s = await up(m);
  m.close();
  assert.equal(s.of("bye").length, 0);
  assert.equal(store.getItem("muster.session"), "s1");
  const again = client({ storage: store, deviceId: "d1" });
  const t = await up(again);
  again.bye();
  assert.deepEqual(t.sent.at(-1), { bye: {} });
  assert.deepEqual(t.closedWith, { code: 1000 });
  assert.equal(store.getItem("muster.session"), null);
  assert.equal(again.connection.state, "closed");
});

const entries = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => ({ offset: from + i, body: from + i }));
const outboxPush = (o) => ({ push: { outbox: { epoch: "e1", head: 99, ...o } } });
const step = (d) => (d.entry ? d.entry.body : d.gap ? `gap ${d.gap.from}-${d.gap.to} ${d.gap.reason}` : d.reset ? `reset ${d.position.epoch}` : d);

/** A client that reads its outbox into `m.got`. */
function reader(options = {}) {
  const got = [];
  const m = client({ ...options, outbox: { handle: (d) => void got.push(step(d)), ...options.outbox } });
  m.got = got;
  return m;
}

test("outbox: each entry once, in order; acks once a second, after 64, or in place of a pong", async () => {
  const m = reader();
  const s = await up(m, { outbox: { epoch: "e1", head: 5, entries: entries(4, 5) } });
  assert.deepEqual(s.of("connect")[0].connect.outbox, {});
  s.say(outboxPush({ entries: entries(5, 7) }));
  await turn();
  assert.deepEqual(m.got, [4, 5, 6, 7]);
  await pass(999);
  assert.equal(s.of("ack").length, 0);
  await pass(1);
  assert.deepEqual(s.of("ack"), [{ ack: { outbox: 7, epoch: "e1" } }]);
  s.say(outboxPush({ entries: entries(8, 8) }));
  await turn();
  s.say({});
  assert.deepEqual(s.sent.at(-1), { ack: { outbox: 8, epoch: "e1" } });
  s.say({});
  assert.deepEqual(s.sent.at(-1), {});
  s.say(outboxPush({ entries: entries(9, 72) }));
  for (let i = 0; i < 40; i++) await turn();
  assert.deepEqual(s.sent.at(-1), { ack: { outbox: 72, epoch: "e1" } });
  await pass(5_000);
  assert.equal(s.of("ack").length, 3, "and no more");
});

test("outbox: a resume goes on after what was processed; gaps are told once", async () => {
  const store = new Store();
  const m = reader({ storage: store });
  const s = await up(m, { outbox: { epoch: "e1", entries: entries(1, 3) } });
  s.break();
  await pass(100);
  const t = await welcome(Socket.all[1], { resumed: true, outbox: { epoch: "e1", entries: entries(2, 5) } });
  assert.deepEqual(t.of("connect")[0].connect.outbox, { epoch: "e1", offset: 3 });
  t.say(outboxPush({ gap: { from: 6, to: 8, reason: "ttl" }, entries: entries(9, 9) }));
  t.say(outboxPush({ gap: { from: 5, to: 9, reason: "ttl" } }));
  t.say(outboxPush({ gap: { from: 8, to: 10, reason: "overflow" } }));
  t.say(outboxPush({ entries: entries(12, 13) })); // 11 is missing
  t.say(outboxPush({ gap: { from: 13, to: 13, reason: "ttl" }, entries: entries(14, 14) }));
  await turn();
  assert.deepEqual(m.got, [1, 2, 3, 4, 5, "gap 6-8 ttl", 9, "gap 10-10 overflow"]);
  m.close();
  const again = reader({ storage: store });
  const u = await up(again);
  assert.deepEqual(u.of("connect")[0].connect.outbox, { epoch: "e1", offset: 10 }, "the position is kept beside the device id");
  again.bye({ forget: true });
  assert.deepEqual(u.sent.slice(-2), [{ device: { forget: true } }, { bye: {} }]);
});

test("outbox: an entry is processed when its handler is; a failure brings it again, and nothing is acked meanwhile", async () => {
  const got = [];
  let go;
  let failures = 2;
  const saved = [];
  const m = client({
    outbox: {
      handle: async (d) => {
        got.push(step(d));
        if (d.entry.offset === 1) await new Promise((r) => (go = r));
        if (d.entry.offset === 2 && failures-- > 0) throw new Error("the disk is on fire");
      },
      position: { load: async () => null, save: async (p) => void saved.push(p.offset) },
    },
  });
  const s = await up(m, { outbox: { epoch: "e1", entries: entries(1, 3) } });
  await pass(5_000);
  assert.deepEqual([got, saved, s.of("ack").length], [[1], [], 0]);
  s.break();
  go();
  await turn();
  assert.deepEqual([got, saved], [[1, 2], [1]]);
  await pass(100);
  await welcome(Socket.all[1], { resumed: true, outbox: { epoch: "e1", entries: entries(1, 3) } });
  await pass(1_000);
  assert.deepEqual([got, saved], [[1, 2, 2, 2, 3], [1, 2, 3]]);
  assert.deepEqual(m.events("error").map((e) => e.message), ["the disk is on fire", "the disk is on fire"]);
  m.close();
  assert.equal(m.connection.state, "closed");
});

test("outbox: a reset starts over, and what was being processed does not count in the new epoch", async () => {
  const m = reader({ outbox: { position: { load: () => ({ epoch: "e1", offset: 30 }), save() {} } } });
  const s = await up(m, { outbox: { epoch: "e2", reset: true, entries: entries(3, 4) } });
  assert.deepEqual(s.of("connect")[0].connect.outbox, { epoch: "e1", offset: 30 });
  await pass(1_000);
  assert.deepEqual(s.of("ack").at(-1), { ack: { outbox: 4, epoch: "e2" } });
  s.say(outboxPush({ epoch: "e3", entries: entries(1, 1) })); // another epoch, without a word
  await turn();
  await pass(1_000);
  assert.deepEqual(s.of("ack").at(-1), { ack: { outbox: 1, epoch: "e3" } });
  s.say(outboxPush({ epoch: "e3", reset: true }), outboxPush({ epoch: "e3", entries: entries(1, 1) }));
  await turn();
  assert.deepEqual(m.got, ["reset e2", 3, 4, "reset e3", 1, "reset e3", 1]);

  let go;
  const got = [];
  const slow = client({ outbox: { handle: (d) => (got.push(step(d)), new Promise((r) => (go = r))) } });
  const t = await up(slow, { outbox: { epoch: "e1", entries: entries(8, 8) } });
  t.say(outboxPush({ epoch: "e2", reset: true }));
  go();
  await turn();
  t.break();
  await pass(100);
  Socket.all.at(-1).open();
  await turn();
  assert.deepEqual(Socket.all.at(-1).of("connect")[0].connect.outbox, { epoch: "e2" });
  assert.deepEqual(got, [8, "reset e2"]);
});

test("outbox: what came before this device's time is no gap; a server without end does not fill the memory", async () => {
  const m = reader();
  await up(m, { outbox: { epoch: "e1", gap: { from: 1, to: 28, reason: "acked" }, entries: entries(29, 30) } });
  assert.deepEqual(m.got, [29, 30]);
  const o = new Outbox(() => new Promise(() => {}), { load() {}, save() {} }, { ack() {}, error() {} });
  await o.start();
  for (let n = 1; n < 2_000; n += 100) o.take({ epoch: "e1", entries: entries(n, n + 99) });
  o.take({ epoch: "e1", entries: entries(600, 600) });
  assert.deepEqual(o.declare(), { epoch: "e1" });
});

test("outbox: another device of the same page goes on where it was", async () => {
  const m = reader();
  const s = await up(m, { outbox: { epoch: "e1", entries: entries(1, 3) } });
  s.break(4510);
  await pass(100);
  const t = await welcome(Socket.all[1], { session_id: "s2", outbox: { epoch: "e1", entries: entries(2, 3) } });
  assert.deepEqual(t.of("connect")[0].connect.outbox, {}, "the server does not know the new device");
  t.say(outboxPush({ entries: entries(6, 6) })); // nothing that is kept lies between
  await turn();
  assert.deepEqual(m.got, [1, 2, 3, 6]);
});

test("outbox: a position that cannot be loaded is final; one in a Storage", async () => {
  const m = reader({ outbox: { position: { load: () => Promise.reject(new Error("locked")), save() {} } } });
  await assert.rejects(m.connect(), /locked/);
  assert.equal(m.connection.state, "closed");
  const p = positionIn(new Store(), "k");
  assert.equal(p.load(), null);
  p.save({ epoch: "e", offset: 7 });
  assert.deepEqual(p.load(), { epoch: "e", offset: 7 });
});

test("publish: one id with the server's time, until it is answered", async () => {
  const m = client();
  const hour = 3_600_000;
  let s = await up(m, { server_at: Date.now() + hour });
  const done = m.publish("bob", { text: "hi" }, { class: "critical", ttl_ms: 60_000, collapse_key: "k", ack_mode: "any_device" });
  await turn();
  const [{ id, publish }] = s.of("publish");
  const { client_id, ...rest } = publish;
  assert.deepEqual(rest, { user: "bob", body: { text: "hi" }, class: "critical", ttl_ms: 60_000, collapse_key: "k", ack_mode: "any_device" });
  assert.match(client_id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  const at = parseInt(client_id.slice(0, 8) + client_id.slice(9, 13), 16);
  assert.ok(Math.abs(at - Date.now() - hour) < 5_000, `${at}`);
  s.say({ id, error: { code: 123, name: "MOVING", retryable: true, retry_after_ms: 500 } });
  await turn();
  await pass(500);
  assert.equal(s.of("publish").length, 2);
  s.break();
  await turn();
  await pass(100);
  s = await welcome(Socket.all[1]);
  await pass(200);
  await pass(10_000);
  await pass(2_000);
  assert.equal(s.of("publish").length, 2, "no answer for 10 s: again");
  assert.ok(s.of("publish").every((c) => c.publish.client_id === client_id));
  s.say({ id: s.of("publish")[1].id, publish: { client_id, at: 5 } });
  assert.deepEqual(await done, { client_id, at: 5 });
});

test("publish: refusals that waiting cannot mend, an abort and the end reject, with the id", async () => {
  const m = client();
  const s = await up(m);
  for (const [code, retryable] of [[121, false], [126, false], [127, true], [129, false]]) {
    const p = m.publish("bob", 1, { client_id: "mine" });
    await turn();
    s.say({ id: s.of("publish").at(-1).id, error: { code, name: "NO", retryable } });
    await assert.rejects(p, { code, clientId: "mine" });
  }
  const abort = new AbortController();
  const given = m.publish("bob", 1, { signal: abort.signal });
  await turn();
  abort.abort();
  await assert.rejects(given, (e) => e.name === "AbortError" && e.clientId === s.of("publish").at(-1).publish.client_id);
  const last = m.publish("bob", 1);
  await turn();
  m.close();
  await turn();
  await pass(1_000);
  await assert.rejects(last, (e) => e.name === "NOT_CONNECTED" && e.clientId !== "");
  const ids = new Set(Array.from({ length: 500 }, () => messageId(1_790_000_000_000)));
  assert.equal(ids.size, 500);
});

test("contacts, blocks and the rest", async () => {
  const m = client();
  const s = await up(m);
  const answers = (method, ...replies) => replies.forEach((r, i) => s.say({ id: s.of(method).at(i - replies.length).id, [method]: r }));
  const asked = m.contact("bob", "subscribe");
  await turn();
  assert.deepEqual(s.of("contact")[0].contact, { user: "bob", action: "subscribe" });
  answers("contact", { contact: { user: "bob", pending_out: true } });
  assert.deepEqual(await asked, { user: "bob", pending_out: true });
  const list = m.contacts();
  await turn();
  answers("contacts", { contacts: [{ user: "a" }, { user: "b" }], more: true });
  await turn();
  assert.deepEqual(s.of("contacts").map((c) => c.contacts), [{}, { after: "b" }]);
  answers("contacts", { contacts: [{ user: "c", pending_in: true }] });
  assert.deepEqual((await list).map((c) => c.user), ["a", "b", "c"]);
  const blocked = m.block(Array.from({ length: 101 }, (_, i) => `u${i}`));
  await turn();
  answers("block", {});
  await turn();
  answers("block", {});
  await blocked;
  assert.deepEqual(s.of("block").map((c) => c.block.add.length), [100, 1]);
  s.say({ push: { contact: [{ user: "x", pending_in: true }, { user: "y" }] } });
  assert.deepEqual(m.events("contact"), [{ user: "x", pending_in: true }, { user: "y" }]);
});

test("what belonged to the session is set again when another one had to begin", async () => {
  const m = client();
  let s = await up(m);
  const say = async (promise) => {
    await turn();
    const { id, ...command } = s.sent.at(-1);
    s.say({ id, [Object.keys(command)[0]]: {} });
    await promise;
  };
  await say(m.setStatus({ state: "dnd", text: "call", ttl_ms: 300_000 }));
  await say(m.setClaim({ id: "g", source: "game", state: "away" }));
  await say(m.setClaim({ id: "long", state: "away", ttl_ms: 3_600_000 }));
  await say(m.setClaim({ id: "short", state: "away", ttl_ms: 30_000 }));
  await say(m.setClaim({ id: "ended", state: "away" }));
  await say(m.endClaim("ended"));
  await say(m.setClaim({ id: "gone", state: "away" }));
  s.say({ push: { self: { claims: [{ id: "manual" }, { id: "g" }, { id: "short" }] } } });
  s.break();
  await pass(100);
  s = await welcome(Socket.all[1], { resumed: true });
  assert.equal(s.of("claim").length, 0, "the session went on");
  await pass(25_000);
  s.break();
  await pass(100);
  s = await welcome(Socket.all[2], { session_id: "s2", self: { claims: [{ id: "long" }] } });
  assert.deepEqual(s.of("claim").map((c) => c.claim), [
    { id: "manual", source: "manual", state: "dnd", text: "call", ttl_ms: 274_800 },
    { id: "g", source: "game", state: "away" },
  ]);
  await say(m.setStatus({ state: "online" }));
  s.break();
  await pass(200);
  s = await welcome(Socket.all[3], { session_id: "s3", self: { claims: [{ id: "g" }] } });
  assert.equal(s.of("claim").length, 0, "another device has set one of the same name");
});

const vectorFolder = new URL("../testdata/wire/", import.meta.url);
const vectors = readdirSync(vectorFolder)
  .filter((f) => f.endsWith(".json"))
  .flatMap((f) => JSON.parse(readFileSync(new URL(f, vectorFolder))).map((v) => ({ ...v, name: `${f}: ${v.name}` })));

test("every vector of the server's lines can be read, and none breaks the client", async () => {
  const received = vectors.filter((v) => v.dir === "s2c");
  assert.ok(received.length > 50);
  for (const v of received) {
    const line = v.in_hex ? Buffer.from(v.in_hex, "hex").toString() : typeof v.in === "string" ? v.in : JSON.stringify(v.in);
    if (typeof v.in === "object") assert.deepEqual(decode(line), [v.in], v.name);
    const m = reader();
    m.watch("u1", "u2", "u3");
    m.enter("r9");
    const s = await up(m);
    s.onmessage({ data: line });
    await turn();
    assert.equal(m.connected, true, v.name);
    for (const p of v.in?.push?.presence ?? []) {
      const known = (v.out ?? v.in).push.presence.find((o) => o.user === p.user)?.state ?? "unknown";
      if (m.watched.includes(p.user)) assert.equal(m.presence(p.user).state, known, v.name);
    }
    m.close();
  }
});

test("what the client sends are commands and fields of the vectors", async () => {
  const fields = new Map();
  for (const { dir, in: line } of vectors) {
    if (dir !== "c2s" || !line || typeof line !== "object") continue;
    for (const [method, params] of Object.entries(line)) {
      if (!fields.has(method)) fields.set(method, new Set());
      Object.keys(params ?? {}).forEach((f) => fields.get(method).add(f));
    }
  }
  const m = reader({ graceMs: 1_000, token: () => "t" });
  m.watch("bob");
  const s = await up(m, { exp_at: Date.now() + 10_000, outbox: { epoch: "e1", entries: entries(1, 1) } });
  m.watch("carol");
  m.unwatch("bob");
  m.enter("lobby", { info: { at: "home" } });
  const wanted = [
    m.query(["dave"]), m.setStatus({ state: "dnd", text: "t", emoji: "e", ttl_ms: 10_000 }), m.setInvisible(),
    m.setClaim({ id: "call", source: "call", state: "dnd" }), m.endClaim("call"), m.setAudience({ last_seen: { rule: "nobody" } }), m.away(), m.ping(),
    m.publish("dave", { a: 1 }, { class: "normal", ttl_ms: 10_000, collapse_key: "k", ack_mode: "any_device" }), m.contact("dave", "approve"), m.contacts(),
    m.block("dave"), m.unblock("dave"), m.notifyWhen("dave", 10_000), m.endNotifyWhen("dave"), m.registerPush("fcm", "t"), m.forgetDevice(),
  ];
  wanted.forEach((w) => w.catch(() => {}));
  m.typing({ user: "carol", kind: "audio" });
  m.typing({ user: "carol", kind: "audio", stop: true });
  await turn();
  m.leave("lobby");
  await pass(5_000);
  m.bye();
  const methods = new Set();
  for (const { id, ...command } of s.sent) {
    for (const [method, params] of Object.entries(command)) {
      methods.add(method);
      assert.ok(fields.has(method), `no vector has the command ${method}`);
      for (const f of Object.keys(params)) assert.ok(fields.get(method).has(f), `no vector of ${method} has ${f}`);
    }
  }
  assert.equal(methods.size, 21, [...methods].join(" "));
});

async function until(condition) {
  const deadline = Date.now() + 5_000;
  while (!condition()) {
    assert.ok(Date.now() < deadline, `still waiting for ${condition}`);
    await new Promise((r) => setImmediate(r));
  }
}
