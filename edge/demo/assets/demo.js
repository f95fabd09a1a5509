// The demo page. It keeps nothing of its own about others: what it shows is what the
// client's view says, drawn again on each event. Text from others goes through
// textContent alone.
import { Muster } from "./muster.js";

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
let muster = null;
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
  const row = { li, avatar: one(".avatar"), devices: one(".devices"), line: one(".line"), text: one(".text"), input: one(".type-to"), typing: one(".typing") };
  li.dataset.user = user;
  one(".is").textContent = show(user);
  one(".typing span").textContent = `${show(user)} is typing`;
  one(".remove").setAttribute("aria-label", `Stop watching ${show(user)}`);
  one(".remove").addEventListener("click", () => unwatch(user));
  row.input.placeholder = `Type to ${show(user)}`;
  row.input.setAttribute("aria-label", `Type to ${show(user)}: only that you type is sent, not what`);
  row.input.addEventListener("input", () => {
    if (row.input.value) muster.typing({ user });
    else muster.typing({ user, stop: true });
    done("status");
  });
  row.input.addEventListener("blur", () => muster.typing({ user, stop: true }));
  row.input.addEventListener("keydown", (e) => {
    if (e.key !== "Enter") return;
    row.input.value = "";
    muster.typing({ user, stop: true });
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
  row.input.hidden = !here;
  row.input.disabled = !muster.connected;
  if (!here) row.input.value = "";
  row.typing.hidden = !muster.isTyping(user);
  row.line.hidden = !row.typing.hidden;
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
  drawPeople();
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
      setTimeout(ping, 500); // not while the page is still busy with itself
    }
    if (detail.state !== "connecting") lost = detail.state === "waiting";
    draw();
  });
}

// What the user does.

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
    done("status");
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

  muster = new Muster({ token: () => fetchToken(user), client: "demo page", storagePrefix: `muster.${user}.` });
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
  muster.bye();
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
