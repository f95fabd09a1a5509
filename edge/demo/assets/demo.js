// The demo page. It keeps nothing of its own about others: what it shows is what the
// client's view says, drawn again on each event. Text from others goes through
// textContent alone.
import { Muster } from "./muster.js";
import { Inbox } from "./inbox.js";

const $ = (id) => document.getElementById(id);
const suggested = ["alice", "bob"];
const roomName = "lobby";
const stateNames = { online: "Online", away: "Away", dnd: "Busy", offline: "Offline", invisible: "Invisible", unknown: "Not known yet" };
const left = {
  explicit: "left",
  timeout: "left: connection lost",
  kicked: "was signed out by the server",
  node_lost: "left: their server is gone",
  expired: "left: session expired",
};
const buckets = { recently: "recently", week: "within a week", month: "within a month", long_ago: "long ago" };

const url = new URL(location.href);
const people = new Map(); // user → row of the list
const relations = new Map(); // user → contact, as the server keeps it
const awaited = new Set(); // users whose coming we are told of
let muster = null;
let inbox = null;
let peer = "";

// Names and times.

/** What a name becomes as an id: "Zoë M." is zoe-m. */
function idOf(name) {
  const plain = name.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  return plain.trim().replace(/\s+/g, "-").replace(/[^a-z0-9._@+=-]/g, "").slice(0, 64);
}
const show = (user) => user.charAt(0).toUpperCase() + user.slice(1);
const hue = (user) => Math.round([...user].reduce((h, c) => (h * 31 + c.codePointAt(0)) % 9973, 7) * 137.5) % 360; // golden angle

function ago(at) {
  const s = Math.max(0, (Date.now() - at) / 1000);
  if (s < 60) return "just now";
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
  return `${Math.floor(s / 86400)} d ago`;
}
function lasting(at) {
  const s = Math.max(0, (Date.now() - at) / 1000);
  if (s < 60) return "";
  return s < 3600 ? ` for ${Math.floor(s / 60)} min` : s < 86400 ? ` for ${Math.floor(s / 3600)} h` : ` for ${Math.floor(s / 86400)} d`;
}

// Drawing.

function element(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
}
function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}
function drawAvatar(e, user, state) {
  const badge = element("i", "badge");
  badge.dataset.state = e.dataset.state = state;
  e.style.setProperty("--hue", hue(user));
  e.replaceChildren(user.charAt(0), badge);
}
/** Sets text only when it differs, so that a screen reader hears changes alone. */
function setText(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

function stateLine(p) {
  if (p.state === "unknown") return muster.connected ? "The server does not know yet" : "Not known yet";
  const seen = p.last_seen_at ? `last seen ${ago(p.last_seen_at)}` : p.last_seen ? `last seen ${buckets[p.last_seen] ?? ""}` : "";
  let text = p.state === "offline" ? ["Offline", seen].filter(Boolean).join(" · ") : stateNames[p.state] + (p.since_at ? lasting(p.since_at) : "");
  if (p.stale) text += p.as_of_at ? ` · as of ${ago(p.as_of_at)}` : " · not confirmed";
  return text;
}
function statusText(p) {
  return [p.emoji, p.text && `“${p.text}”`].filter(Boolean).join(" ");
}

function addPerson(user) {
  const li = $("person").content.firstElementChild.cloneNode(true);
  const one = (c) => li.querySelector(c);
  const row = { li, avatar: one(".avatar"), devices: one(".devices"), line: one(".line"), text: one(".text"), input: one(".type-to"), typing: one(".typing"), actions: one(".actions"), write: one(".write") };
  li.dataset.user = user;
  one(".is").textContent = show(user);
  one(".typing span").textContent = `${show(user)} is typing`;
  one(".remove").setAttribute("aria-label", `Stop watching ${show(user)}`);
  one(".remove").addEventListener("click", () => unwatch(user));
  row.input.setAttribute("aria-label", `Write to ${show(user)}`);
  one(".write button").setAttribute("aria-label", `Send to ${show(user)}`);
  row.input.addEventListener("input", () => {
    if (row.input.value) muster.typing({ user });
    else muster.typing({ user, stop: true });
    done("status");
  });
  row.input.addEventListener("blur", () => muster.typing({ user, stop: true }));
  row.write.addEventListener("submit", (e) => {
    e.preventDefault();
    muster.typing({ user, stop: true });
    write(user, row.input);
  });
  people.set(user, row);
  $("people").append(li);
}

function drawPerson(user) {
  const row = people.get(user);
  const p = muster.presence(user);
  if (!row || !p) return;
  const here = p.state !== "offline" && p.state !== "unknown";
  row.li.dataset.state = p.state;
  row.li.classList.toggle("stale", p.stale);
  if (row.avatar.dataset.state !== p.state) drawAvatar(row.avatar, user, p.state);
  setText(row.line, stateLine(p));
  setText(row.text, statusText(p));
  drawDevices(row.devices, p.devices ?? {});
  const { blocked } = relations.get(user) ?? {};
  row.write.hidden = !!blocked;
  row.input.disabled = !muster.connected;
  row.input.placeholder = `${here ? "Write to" : "Message for"} ${show(user)}`;
  drawActions(row, user, p);
  row.typing.hidden = !muster.isTyping(user);
  row.line.hidden = !row.typing.hidden;
}

const known = (c) => ["to", "from", "both"].includes(c.subscription);

/** What can be done about a person: contact, block, and to be told when they come. */
function drawActions(row, user, p) {
  const c = relations.get(user) ?? {};
  const list = [];
  if (c.blocked) list.push(["Unblock", () => muster.unblock(user)]);
  else {
    if (known(c)) list.push(["Remove contact", () => muster.contact(user, "remove")]);
    else if (c.pending_out) list.push(["Asked · withdraw", () => muster.contact(user, "remove")]);
    else if (!c.pending_in) list.push(["Add contact", () => befriend(user)]);
    if (awaited.has(user)) list.push(["Tell me no more", () => expect(user, false)]);
    else if (p.state === "offline") list.push(["Tell me when here", () => expect(user, true)]);
    list.push(["Block", () => muster.block(user)]);
  }
  const key = JSON.stringify([known(c), c.blocked, list.map(([label]) => label), muster.connected]);
  if (row.actions.dataset.key === key) return;
  row.actions.dataset.key = key;
  const focused = [...row.actions.children].indexOf(document.activeElement);
  row.actions.replaceChildren(...list.map(([label, action]) => actionButton(label, user, action)));
  row.actions.children[focused]?.focus();
  row.li.classList.toggle("blocked", !!c.blocked);
  row.li.classList.toggle("contact", known(c));
}
function actionButton(label, user, action) {
  const b = element("button", "small", label);
  b.type = "button";
  b.disabled = !muster.connected;
  b.setAttribute("aria-label", `${label}: ${show(user)}`);
  b.addEventListener("click", () => act(action().then(() => listContacts())));
  return b;
}

/** Wants to be told, wherever this user is by then, when someone comes; or no more. */
async function expect(user, on) {
  await (on ? muster.notifyWhen(user) : muster.endNotifyWhen(user));
  keepAwaited(user, on);
}
function keepAwaited(user, on) {
  if (on) awaited.add(user);
  else awaited.delete(user);
  sessionStorage.setItem(`muster.${muster.user}.awaited`, JSON.stringify([...awaited]));
}

/** Asks to see someone and lets them see us: with their yes to both, the two are contacts of each other. */
async function befriend(user) {
  await muster.contact(user, "approve");
  await muster.contact(user, "subscribe");
}

function drawRelations() {
  drawPeople();
  const asking = [...relations.values()].filter((c) => c.pending_in && !c.blocked).map((c) => c.user);
  const key = JSON.stringify([asking, muster.connected]);
  if ($("requests").dataset.key !== key) {
    $("requests").dataset.key = key;
    $("requests").replaceChildren(...asking.map((user) => {
      const li = received("request", user, `${show(user)} asks to be your contact`);
      const accept = actionButton("Accept", user, () => befriend(user).then(() => watch(user)));
      accept.classList.add("primary");
      li.append(accept, actionButton("Decline", user, () => muster.contact(user, "deny")));
      return li;
    }));
  }
  const hiddenOnes = [...relations.values()].filter((c) => c.blocked && !people.has(c.user)).map((c) => c.user);
  $("blocked").hidden = !hiddenOnes.length;
  $("blocked").replaceChildren("Blocked: ", ...hiddenOnes.map((user) => actionButton(`Unblock ${show(user)}`, user, () => muster.unblock(user))));
  drawInbox();
}

/** One line of the inbox. */
function received(kind, user, text) {
  const li = element("li", kind);
  li.dataset.user = user ?? "";
  const avatar = element("span", "avatar small");
  avatar.setAttribute("aria-hidden", "true");
  if (kind === "online") avatar.append(icon("bell"));
  else drawAvatar(avatar, user || "muster", "online");
  avatar.querySelector(".badge")?.remove();
  li.append(avatar, element("p", "", text));
  return li;
}
function drawInbox() {
  const lines = {
    message: (m) => (m.from ? `${show(m.from)}: ${m.text}` : m.text),
    online: (m) => `${show(m.from)} is here, as you wanted to know`,
    missed: (m) => `${m.text} ${m.text === "1" ? "message" : "messages"} waited too long and went`,
    reset: () => "What was stored for you was lost; this is what is left",
  };
  $("messages").replaceChildren(...inbox.messages.map((m) => {
    const li = received(m.kind, m.from, lines[m.kind](m));
    li.append(element("time", "", when(m.at)));
    return li;
  }));
  $("inbox").hidden = !inbox.messages.length && !$("requests").children.length;
  $("inbox-clear").hidden = !inbox.messages.length;
  setText($("inbox-count"), inbox.messages.length ? String(inbox.messages.length) : "");
}
function when(at) {
  const time = new Date(at);
  const today = time.toDateString() === new Date().toDateString();
  return today ? time.toLocaleTimeString([], { hourCycle: "h23", hour: "2-digit", minute: "2-digit" }) : time.toLocaleDateString();
}

function drawDevices(e, devices) {
  const key = JSON.stringify(devices);
  if (e.dataset.key === key) return;
  e.dataset.key = key;
  e.replaceChildren(...Object.entries(devices).map(([kind, state]) => {
    const d = element("span", "device");
    d.dataset.class = kind;
    d.dataset.state = state;
    d.append(icon(["desktop", "mobile", "web", "tv", "bot"].includes(kind) ? kind : "web"), kind, element("span", "unseen", ` ${stateNames[state] ?? state}`));
    return d;
  }));
}

function drawPeople() {
  for (const user of people.keys()) drawPerson(user);
  const here = [...people.keys()].filter((u) => ["online", "away", "dnd"].includes(muster.presence(u)?.state)).length;
  setText($("people-count"), people.size ? `${here} of ${people.size} here` : "");
  $("nobody").hidden = people.size > 0;
}

function drawMe() {
  const own = muster.me?.presence ?? {};
  const invisible = muster.me?.invisible ?? false;
  const state = invisible ? "invisible" : own.state || "online";
  drawAvatar($("my-avatar"), muster.user, invisible ? "offline" : state);
  setText($("my-name"), show(muster.user));
  const text = statusText(own);
  if (!muster.connected) setText($("my-line"), "Not connected: others may see you leave");
  else setText($("my-line"), invisible ? "Seen as offline" : `Seen as ${stateNames[state].toLowerCase()}${text ? `: ${text}` : ""}`);
  $("hidden-banner").hidden = !invisible;
  const chosen = invisible ? "invisible" : muster.manualStatus.state; // online also when idleness makes it away
  for (const r of $("states").querySelectorAll("input")) r.checked = r.value === chosen;
  if (document.activeElement !== $("status-text")) $("status-text").value = own.text ?? "";
}

function drawRoom() {
  const room = muster.room(roomName);
  const all = [...(room?.occupants.values() ?? [])].sort((a, b) => a.entered_at - b.entered_at);
  setText($("room-count"), room ? String(Math.max(room.count, all.length)) : "");
  const key = JSON.stringify(all.map((o) => [o.user, o.state]));
  if ($("occupants").dataset.key === key) return;
  $("occupants").dataset.key = key;
  $("occupants").replaceChildren(...all.map((o) => {
    const li = element("li");
    const avatar = element("span", "avatar small");
    avatar.setAttribute("aria-hidden", "true");
    drawAvatar(avatar, o.user, o.state ?? "online");
    li.dataset.user = o.user;
    li.append(avatar, element("span", "who-is", show(o.user)), element("span", "unseen", stateNames[o.state ?? "online"]));
    if (o.user === muster.user) li.append(element("span", "tag", "you"));
    return li;
  }));
}

function drawConnection() {
  const { state, code, reason, retry_at: at } = muster.connection;
  const wait = at ? Math.max(0, Math.ceil((at - Date.now()) / 1000)) : 0;
  const text = {
    idle: "Not connected",
    connecting: "Connecting …",
    connected: "Connected",
    waiting: "Connection lost",
    closed: code ? `Refused: ${reason || code}` : "Signed out",
  }[state];
  $("connection").dataset.state = state;
  setText($("connection-text"), text);
  // Beside the text that a screen reader speaks, as this changes each second.
  const ms = muster.latencyMs;
  const detail = state === "waiting" ? `again in ${wait} s` : state === "connected" && ms !== undefined ? `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms` : "";
  $("latency").hidden = !detail;
  setText($("latency"), detail);
}

function draw() {
  drawConnection();
  if (!muster.user) return;
  drawMe();
  drawRelations();
  drawRoom();
}

function note(text) {
  const li = element("li");
  const time = element("time", "", new Date().toLocaleTimeString([], { hourCycle: "h23" }));
  li.append(time, element("span", "", text));
  $("log").prepend(li);
  while ($("log").children.length > 60) $("log").lastElementChild.remove();
}
function fault(error) {
  setText($("fault"), error ? error.message || String(error) : "");
  $("fault").hidden = !error;
}
function done(step) {
  document.querySelector(`[data-step="${step}"]`).classList.add("done");
}

// What the client tells.

function noteChange({ user, presence: p, previous }) {
  if (p.stale !== previous.stale && p.state === previous.state && p.text === previous.text) return;
  if (p.state === "unknown" || (previous.state === "unknown" && p.state === "offline")) return;
  if (p.state === "offline" && previous.state !== "offline") note(`${show(user)} ${left[p.reason] ?? "is offline"}`);
  else if (p.state !== previous.state) note(`${show(user)} is ${stateNames[p.state].toLowerCase()}${previous.state === "offline" ? " now" : ""}`);
  if (p.state !== "offline" && (p.text ?? "") !== (previous.text ?? "")) note(p.text ? `${show(user)}: ${statusText(p)}` : `${show(user)} cleared the status text`);
}

function listen(m) {
  for (const type of ["enter", "update", "leave"]) {
    m.addEventListener(type, ({ detail }) => {
      drawPeople();
      noteChange(detail);
      if (detail.user === peer && type === "enter") done("open");
      if (detail.user === peer && type === "leave") done("leave");
    });
  }
  let wasInvisible = false;
  m.addEventListener("self", () => {
    drawMe();
    const invisible = m.me.invisible ?? false;
    if (invisible !== wasInvisible) note(invisible ? "You appear offline to everyone" : "You can be seen again");
    if (invisible) done("hide");
    wasInvisible = invisible;
  });
  m.addEventListener("contact", ({ detail }) => noteContact(detail));
  m.addEventListener("typing", drawPeople);
  m.addEventListener("room", ({ detail }) => {
    if (detail.error) fault(detail.error);
    drawRoom();
  });
  m.addEventListener("latency", drawConnection);
  m.addEventListener("error", ({ detail }) => fault(detail));
  let lost = false;
  m.addEventListener("state", ({ detail }) => {
    if (detail.state === "waiting" && !lost) note("Connection lost");
    if (detail.state === "connected") {
      if (lost) note(m.resumed ? "Reconnected: the same session goes on" : "Reconnected");
      fault(null);
      listContacts(true);
      setTimeout(ping, 500); // not while the page is still busy with itself
    }
    if (detail.state !== "connecting") lost = detail.state === "waiting";
    draw();
  });
}

/** All relations as the server keeps them; what changed while this tab was away came as no event. */
async function listContacts(quiet = false) {
  try {
    const all = await muster.contacts();
    for (const user of relations.keys()) if (!all.some((c) => c.user === user)) relations.delete(user);
    for (const c of all) quiet ? relations.set(c.user, c) : noteContact(c);
    drawRelations();
  } catch (error) {
    if (muster.connected) fault(error);
  }
}
function noteContact(c) {
  const was = relations.get(c.user) ?? {};
  relations.set(c.user, c);
  if (c.pending_in && !was.pending_in) note(`${show(c.user)} asks to be your contact`);
  if (c.subscription === "both" && was.subscription !== "both") note(`You and ${show(c.user)} are contacts`);
  if (known(was) && !known(c)) note(`${show(c.user)} is no contact any more`);
  if (c.pending_out || known(c)) done("contact");
  drawRelations();
}

function noteReceived({ kind, from, text }) {
  if (kind === "online") keepAwaited(from, false);
  if (kind === "message") note(`${from ? show(from) : "The server"} wrote: ${text}`);
  drawInbox();
  drawPeople();
}

// What the user does.

/** Leaves a message, whether its receiver is here or not; it is stored when this ends well. */
async function write(user, input) {
  const text = input.value.trim();
  if (!text) return;
  input.value = "";
  const away = muster.presence(user)?.state === "offline";
  try {
    await muster.publish(user, { text });
    note(`To ${show(user)}: ${text}${away ? ` (waits for ${show(user)})` : ""}`);
    fault(null);
    done(away ? "message" : "status");
  } catch (error) {
    input.value ||= text;
    fault(error);
  }
}

async function fetchToken(user) {
  const answer = await fetch("/demo/token", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ user }) });
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.message || `the server answered ${answer.status}`);
  return body.token;
}

function ping() {
  if (muster.connected) muster.ping().catch(() => {}); // a lost connection shows itself
}

async function act(action, input) {
  try {
    await action;
    fault(null);
  } catch (error) {
    fault(error);
    input?.focus();
    drawMe();
  }
}

function chosenState() {
  return $("states").querySelector("input:checked")?.value ?? "online";
}
function setStatus(state) {
  const text = $("status-text").value.trim();
  done("status");
  return act(muster.setStatus(text && state !== "invisible" ? { state, text } : { state }), $("status-text"));
}

function watch(user) {
  if (!people.has(user)) addPerson(user);
  muster.watch(user);
  keepWatched();
  drawPeople();
}
function unwatch(user) {
  muster.typing({ user, stop: true });
  muster.unwatch(user);
  people.get(user)?.li.remove();
  people.delete(user);
  keepWatched();
  drawPeople();
  $("add-name").focus();
}
function keepWatched() {
  url.searchParams.set("watch", [...people.keys()].join(","));
  history.replaceState(null, "", url);
}

function signIn(user) {
  peer = suggested.find((s) => s !== user);
  url.searchParams.set("as", user);
  history.replaceState(null, "", url);
  document.title = `${show(user)} · Muster`;
  $("welcome").hidden = true;
  for (const id of ["app", "connection"]) $(id).hidden = false;
  for (const e of document.querySelectorAll(".peer")) e.textContent = show(peer);
  $("open-peer").href = `/?as=${encodeURIComponent(peer)}&watch=${encodeURIComponent(user)}`;
  $("more-devices").href = `/?as=${encodeURIComponent(user)}`;

  for (const other of JSON.parse(sessionStorage.getItem(`muster.${user}.awaited`) || "[]")) awaited.add(other);
  inbox = new Inbox(sessionStorage, `muster.${user}.inbox`, noteReceived);
  muster = new Muster({ token: () => fetchToken(user), client: "demo page", storagePrefix: `muster.${user}.`, outbox: inbox.outbox });
  muster.user = user;
  listen(muster);
  const wanted = url.searchParams.get("watch");
  const names = wanted === null ? [peer] : wanted.split(",").map(idOf);
  for (const name of new Set(names)) if (name && name !== user) watch(name);
  muster.enter(roomName);
  draw();
  muster.connect().catch(() => {}); // the state says it
}

function signOut() {
  muster.bye({ forget: true }); // messages wait for the user, not for this tab
  location.assign("/");
}

function begin() {
  $("choices").replaceChildren(...suggested.map((user) => {
    const b = element("button");
    const avatar = element("span", "avatar large");
    avatar.setAttribute("aria-hidden", "true");
    drawAvatar(avatar, user, "online");
    b.type = "button";
    b.dataset.name = user;
    b.append(avatar, element("span", "", `Be ${show(user)}`));
    b.addEventListener("click", () => signIn(user));
    return b;
  }));
  $("sign-in").addEventListener("submit", (e) => {
    e.preventDefault();
    const user = idOf($("name").value);
    if (user) signIn(user);
    else setText($("sign-in-fault"), "A name needs at least one letter (a to z) or digit.");
  });
  $("add-form").addEventListener("submit", (e) => {
    e.preventDefault();
    const user = idOf($("add-name").value);
    if (!user) return fault(new Error("A name needs at least one letter (a to z) or digit."));
    fault(user === muster.user ? new Error("That is you.") : null);
    $("add-name").value = "";
    if (user !== muster.user) watch(user);
  });
  $("states").addEventListener("change", (e) => setStatus(e.target.value));
  $("status-form").addEventListener("submit", (e) => {
    e.preventDefault();
    setStatus(chosenState());
  });
  $("unhide").addEventListener("click", () => act(muster.setInvisible(false)));
  $("sign-out").addEventListener("click", signOut);
  $("inbox-clear").addEventListener("click", () => {
    inbox.clear();
    drawInbox();
  });
  setInterval(() => muster && drawConnection(), 1_000);
  setInterval(() => {
    if (!muster?.connected || document.hidden) return;
    drawPeople();
    ping();
  }, 10_000);

  const as = idOf(url.searchParams.get("as") ?? "");
  if (as) signIn(as);
  else $("welcome").hidden = false;
}

begin();
