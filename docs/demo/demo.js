// The page: CartPole, its picture, and the policy that balances it.
import { inspect, load, PolicyError } from "../../js/policy-core.js"; // on the site beside this file

const LIMIT = 2.4,
  LEAN = (12 * Math.PI) / 180,
  STEP = 0.02,
  LONGEST = 500,
  SHOWN = 250;
const PUSH = { newtons: 15, steps: 5 };
const $ = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);

// CARTPOLE, as in gymnasium: masses of 1 and 0.1 kg, a pole of 1 m, a force of 10 N to the left or right.

/** The state after 0.02 s: [x, speed, angle, angular speed], by Euler's method. `push` is a force of its own. */
export function dynamics([x, v, angle, turn], action, push = 0) {
  const force = (action === 1 ? 10 : -10) + push,
    sin = Math.sin(angle),
    cos = Math.cos(angle);
  const temp = (force + 0.05 * turn ** 2 * sin) / 1.1;
  const spin = (9.8 * sin - cos * temp) / (0.5 * (4 / 3 - (0.1 * cos ** 2) / 1.1));
  const speed = temp - (0.05 * spin * cos) / 1.1;
  return [x + STEP * v, v + STEP * speed, angle + STEP * turn, turn + STEP * spin];
}

const fallen = ([x, , angle]) => Math.abs(x) > LIMIT || Math.abs(angle) > LEAN;

/** Numbers in [0, 1): those of a seed in the query, else Math.random. */
function generator(seed) {
  if (seed === null) return Math.random;
  let a = Number(seed) | 0;
  return () => {
    // mulberry32
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const random = generator(query.get("seed"));
const game = { policy: null, memory: null, body: null, step: 0, episodes: 0, last: null, action: null };
const push = { force: 0, left: 0 };
let values = [],
  probabilities = [0.5, 0.5],
  running = false,
  ended = 0;

function begin() {
  game.body = Array.from({ length: 4 }, () => -0.05 + 0.1 * random());
  game.memory = game.policy?.reset() ?? null;
  game.step = 0;
  game.action = null;
  push.left = 0;
}

/** One step of the environment; an episode that ends is counted, and says whether the pole fell. */
function advance() {
  const { policy, memory, body } = game,
    options = { isFirst: game.step === 0 };
  const [, shown] = policy.distribution(memory, body, options);
  const [, value] = policy.value(memory, body, options);
  const draw = $("draw").checked ? { ...options, random } : options;
  [game.memory, game.action] = policy.act(memory, body, draw);
  probabilities = shown.probabilities;
  values.push(typeof value === "number" ? value : value[0]);
  if (values.length > SHOWN) values.shift();
  game.body = dynamics(body, game.action, push.left > 0 ? push.force : 0);
  push.left -= 1;
  game.step += 1;
  const fell = fallen(game.body);
  if (!fell && game.step < LONGEST) return null;
  game.episodes += 1;
  game.last = game.step;
  return fell ? "fell" : "done";
}

function shove(side) {
  push.force = side * PUSH.newtons;
  push.left = PUSH.steps;
  happen(`Pushed to the ${side < 0 ? "left" : "right"}${running ? "" : "; start to see it"}.`);
}

// THE PICTURE

const colors = {};

function readColors() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["ink", "soft", "line", "left", "right", "pole", "cart", "card"]) {
    colors[name] = style.getPropertyValue(`--${name}`).trim();
  }
}

/** The context of a canvas in CSS pixels, sharp on every screen. */
function fitted(canvas) {
  const { width, height } = canvas.getBoundingClientRect(),
    ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return [context, width, height];
}

function drawStage() {
  const [c, width, height] = fitted($("stage"));
  const metre = width / 5.6,
    ground = height * 0.76,
    [x, , angle] = game.body;
  const at = width / 2 + x * metre,
    cart = { w: 0.62 * metre, h: 0.3 * metre };
  c.lineCap = "round";
  c.strokeStyle = colors.line;
  c.lineWidth = 2;
  line(c, width / 2 - LIMIT * metre, ground, width / 2 + LIMIT * metre, ground);
  for (const end of [-LIMIT, LIMIT]) {
    line(c, width / 2 + end * metre, ground - 0.12 * metre, width / 2 + end * metre, ground + 0.12 * metre);
  }
  c.fillStyle = colors.soft;
  c.font = `${Math.max(11, width / 55)}px system-ui, sans-serif`;
  c.textAlign = "center";
  for (const [place, label] of [
    [-LIMIT, "−2.4 m"],
    [0, "0"],
    [LIMIT, "2.4 m"],
  ]) {
    const inside = Math.min(Math.max(width / 2 + place * metre, 24), width - 24);
    c.fillText(label, inside, ground + 0.42 * metre);
  }
  c.fillStyle = colors.cart;
  c.beginPath();
  c.roundRect(at - cart.w / 2, ground - cart.h - 2, cart.w, cart.h, 0.06 * metre);
  c.fill();
  arrow(c, at, ground - cart.h / 2 - 2, cart.w / 2 + 0.1 * metre, game.action, metre);
  const pivot = ground - cart.h - 2;
  c.strokeStyle = colors.pole;
  c.lineWidth = 0.1 * metre;
  line(c, at, pivot, at + Math.sin(angle) * metre, pivot - Math.cos(angle) * metre);
  c.fillStyle = colors.card;
  c.strokeStyle = colors.pole;
  c.lineWidth = 2;
  c.beginPath();
  c.arc(at, pivot, 0.055 * metre, 0, 2 * Math.PI);
  c.fill();
  c.stroke();
  if (push.left > 0) {
    // the hand
    const side = Math.sign(push.force);
    c.fillStyle = colors.ink;
    triangle(c, at - side * (cart.w / 2 + 0.08 * metre), pivot - 0.35 * metre, side, 0.2 * metre);
  }
}

function line(c, x, y, u, v) {
  c.beginPath();
  c.moveTo(x, y);
  c.lineTo(u, v);
  c.stroke();
}

function triangle(c, x, y, side, size) {
  c.beginPath();
  c.moveTo(x, y);
  c.lineTo(x - side * size, y - size * 0.55);
  c.lineTo(x - side * size, y + size * 0.55);
  c.fill();
}

/** The force of the action, as an arrow beside the cart. */
function arrow(c, x, y, away, action, metre) {
  if (action === null) return;
  const side = action === 1 ? 1 : -1;
  c.fillStyle = side < 0 ? colors.left : colors.right;
  triangle(c, x + side * (away + 0.16 * metre), y, side, 0.16 * metre);
}

function drawChart() {
  const [c, width, height] = fitted($("chart"));
  if (!values.length) return;
  const least = Math.min(...values),
    most = Math.max(...values),
    spread = Math.max(most - least, 0.5), // noise is no signal
    low = (least + most - spread) / 2,
    high = low + spread,
    room = 0.15 * spread;
  const bottom = height - 18,
    y = (v) => 6 + (bottom - 6) * (1 - (v - low + room) / (high - low + 2 * room));
  c.strokeStyle = colors.line;
  c.lineWidth = 1;
  line(c, 0.5, bottom, width - 0.5, bottom);
  c.strokeStyle = colors.left;
  c.lineWidth = 1.75;
  c.lineJoin = "round";
  c.beginPath();
  values.forEach((v, i) => c.lineTo(((i + SHOWN - values.length) / (SHOWN - 1)) * (width - 4) + 1, y(v)));
  c.stroke();
  c.fillStyle = colors.soft;
  c.font = "11px system-ui, sans-serif";
  c.textAlign = "left";
  c.fillText("5 s ago", 0, height - 4);
  c.textAlign = "center";
  c.fillText(`${least.toFixed(2)} to ${most.toFixed(2)}`, width / 2, height - 4);
  c.textAlign = "right";
  c.fillText("now", width, height - 4);
}

let described = -Infinity;

function draw(now = performance.now()) {
  drawStage();
  drawChart();
  ["left", "right"].forEach((name, i) => {
    const bar = $(name),
      p = probabilities[i];
    bar.querySelector(".fill").style.width = `${100 * p}%`;
    bar.querySelector(".number").textContent = p.toFixed(2);
    bar.setAttribute("aria-valuenow", p.toFixed(2));
  });
  $("value").textContent = values.length ? values.at(-1).toFixed(2) : "–";
  $("step").textContent = game.step;
  $("episodes").textContent = game.episodes;
  $("last").textContent = game.last ?? "–";
  if (now - described > 2000) {
    // often enough for whoever asks, and no chatter
    described = now;
    const [x, , angle] = game.body,
      degrees = (angle * 180) / Math.PI;
    const leans = `the pole leans ${Math.abs(degrees).toFixed(0)} degrees to the ${degrees < 0 ? "left" : "right"}`;
    $("stage").setAttribute(
      "aria-label",
      `The cart is at ${x.toFixed(1)} metres, ${leans}, step ${game.step}`,
    );
  }
}

// WHAT IS SAID

function say(text, kind = "") {
  $("status").textContent = text;
  $("status").dataset.kind = kind;
}

/** What happens on the stage, beside what is said of the file. */
function happen(text) {
  $("event").textContent = text;
}

function spaceText({ type, fields }) {
  const name = type.replace("policy_core/", "");
  if (fields.spaces) return `${name} of ${fields.spaces.length} parts`;
  return `${name}(${fields.n ?? fields.nvec ?? (fields.shape.join(" × ") || "scalar")})`;
}

const isCartPole = ({ observationSpace: o, actionSpace: a }) =>
  o.type === "policy_core/Box" &&
  o.fields.shape.join() === "4" &&
  o.fields.dtype.startsWith("float") &&
  a.type === "policy_core/Discrete" &&
  a.fields.n === 2 &&
  a.fields.start === 0;

function about(name, bytes, policy, info) {
  const size = info.leaves.reduce(
    (n, { shape }) => n + shape.slice(info.batch.length).reduce((a, b) => a * b, 1),
    0,
  );
  const { actor, memory } = policy.config.fields.actor
    ? policy.config.fields
    : policy.config.fields.config.fields;
  const network = actor.fields.hidden
    ? `MLP of ${actor.fields.hidden.join(", ") || "no layers"}`
    : actor.type.split("/")[1];
  const rows = [
    ["Name", name],
    ["Size", `${bytes.toLocaleString("en")} bytes, ${size.toLocaleString("en")} numbers`],
    ["Actor", memory ? `${memory.type.split("/")[1]}, then ${network}` : network],
    ["Fingerprint", policy.fingerprint],
    ...Object.entries(policy.metadata),
  ];
  $("about").replaceChildren(
    ...rows.map(([key, value]) => {
      const row = document.createElement("div"),
        term = document.createElement("dt"),
        text = document.createElement("dd");
      term.textContent = key;
      text.textContent = value;
      if (key === "Fingerprint")
        text.replaceChildren(Object.assign(document.createElement("code"), { textContent: value }));
      row.append(term, text);
      return row;
    }),
  );
}

// FILES

let opened = { name: "", bytes: null };

/** Puts the policy of a file in place; whatever is wrong with it, the policy before is kept. */
async function open(name, bytes, member = 0) {
  try {
    const info = await inspect(bytes),
      axes = info.batch.length;
    const index = axes ? [...new Array(axes - 1).fill(0), member] : [];
    const policy = await load(bytes, { member: index });
    if (!isCartPole(policy)) {
      say(
        `${name} is whole, but not for CartPole: it sees ${spaceText(policy.observationSpace)} and does ` +
          `${spaceText(policy.actionSpace)}, where CartPole has Box(4) and Discrete(2).${kept()}`,
        "bad",
      );
      return false;
    }
    policy.value(policy.reset(), [0, 0, 0, 0]); // which a policy without critic has not
    game.policy = policy;
    opened = { name, bytes };
    values = [];
    begin();
    about(name, bytes.byteLength, policy, info);
    members(axes ? info.batch.at(-1) : 0, member);
    const which = axes ? `, member ${member} of ${info.batch.at(-1)}` : "";
    const { observations, deviation } = policy.selfTest;
    const tested = observations
      ? `its self-test of ${observations} observations is within ${deviation.toExponential(0)}`
      : "it has no self-test";
    say(`${name}${which}: verified; ${tested}.`, "good");
    return true;
  } catch (error) {
    if (!(error instanceof PolicyError)) throw error;
    say(`${name} was refused. ${error.message}.${kept()}`, "bad");
    return false;
  } finally {
    if (game.policy) draw();
  }
}

const kept = () => (game.policy ? " The policy before goes on." : "");

function members(count, member) {
  $("members").hidden = count === 0;
  $("member").replaceChildren(
    ...Array.from({ length: Math.min(count, 1000) }, (_, i) => new Option(i, i, false, i === member)),
  );
}

async function fetched(path) {
  const url = new URL(path, location.href);
  if (url.origin !== location.origin) throw new PolicyError(`${path} is not of this site`);
  const response = await fetch(url);
  if (!response.ok) throw new PolicyError(`${path} is not there: ${response.status}`);
  return response.arrayBuffer();
}

async function openPath(path) {
  try {
    return await open(path, await fetched(path));
  } catch (error) {
    say(`${path} could not be read. ${error.message}.${kept()}`, "bad");
    return false;
  }
}

// TIME

let before = 0;

function tick(now) {
  if (running) {
    if (ended && now > ended) {
      ended = 0;
      begin();
    }
    const due = Math.min(Math.floor((now - before) / (1000 * STEP)), 5); // after a sleep: no catching up
    if (now - before > 200) before = now - 1000 * STEP * due;
    for (let i = 0; i < due && !ended; i++) {
      const end = advance();
      if (end === "fell") happen(`The pole fell after ${game.last} steps.`);
      if (end) ended = now + (end === "fell" ? 900 : 400);
    }
    before += 1000 * STEP * due;
    draw(now);
  }
  requestAnimationFrame(tick);
}

function run(on) {
  running = on;
  before = performance.now();
  $("pause").textContent = on ? "Pause" : "Start";
  if (on) happen("");
}

// BY MOUSE, KEY, FINGER AND FILE

function listen() {
  $("push-left").onclick = () => shove(-1);
  $("push-right").onclick = () => shove(1);
  $("pause").onclick = () => run(!running);
  $("reset").onclick = () => {
    ended = 0;
    values = [];
    begin();
    draw();
    happen("A new episode.");
  };
  $("stage").onclick = (event) => {
    // from the side of the cart that was clicked
    const { left, width } = $("stage").getBoundingClientRect();
    shove(event.clientX - left < width / 2 + (game.body[0] * width) / 5.6 ? 1 : -1);
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select")) return;
    const onButton = event.target.closest("button, label, a");
    const action = { ArrowLeft: "push-left", ArrowRight: "push-right", " ": "pause", r: "reset", R: "reset" }[
      event.key
    ];
    if (!action || (event.key === " " && onButton)) return; // a button has its own use of it
    event.preventDefault();
    $(action).click();
  });
  $("file").onchange = async () => {
    const [file] = $("file").files;
    if (file) await open(file.name, await file.arrayBuffer());
    $("file").value = "";
  };
  $("member").onchange = () => open(opened.name, opened.bytes, Number($("member").value));
  let inside = 0;
  const over = (change) => $("drop").classList.toggle("over", (inside = Math.max(inside + change, 0)) > 0);
  document.addEventListener("dragenter", () => over(1));
  document.addEventListener("dragleave", () => over(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", async (event) => {
    // anywhere: a miss must not leave the page
    event.preventDefault();
    over(-inside);
    const [file] = event.dataTransfer.files;
    if (file) await open(file.name, await file.arrayBuffer());
  });
  window.addEventListener("resize", () => game.body && draw());
}

function theme() {
  const dark = matchMedia("(prefers-color-scheme: dark)"),
    root = document.documentElement;
  let chosen = null;
  try {
    chosen = localStorage.getItem("policy-core-theme");
  } catch {
    /* a page without storage follows the system */
  }
  const show = () => {
    root.dataset.theme = chosen ?? (dark.matches ? "dark" : "light");
    $("theme").textContent = root.dataset.theme === "dark" ? "Light" : "Dark";
    $("theme").setAttribute("aria-label", `Change to ${$("theme").textContent.toLowerCase()} colors`);
    readColors();
    if (game.body && game.policy) draw();
  };
  $("theme").removeAttribute("aria-pressed");
  $("theme").onclick = () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("policy-core-theme", chosen);
    } catch {
      /* it holds for this page */
    }
    show();
  };
  dark.addEventListener("change", show);
  show();
}

/** `?steps=500&push=100`: so many steps at once, with a push at one, and what came of them in `#result`. */
function atOnce(steps) {
  const at = query.has("push") ? Number(query.get("push")) : -1,
    returns = [];
  let widest = 0,
    furthest = 0,
    jolt = 0; // the largest change of speed in a step

  for (let i = 0; i < steps; i++) {
    if (i === at) shove(i % 2 ? 1 : -1);
    const speed = game.body[1];
    const end = advance();
    jolt = Math.max(jolt, Math.abs(game.body[1] - speed));
    widest = Math.max(widest, Math.abs(game.body[2]));
    furthest = Math.max(furthest, Math.abs(game.body[0]));
    if (end) returns.push(game.last);
    if (end && i + 1 < steps) begin();
  }
  draw();
  const result = {
    steps,
    returns,
    step: game.step,
    widest,
    furthest,
    jolt,
    body: game.body,
    status: $("status").textContent,
  };
  $("result").textContent = JSON.stringify(result);
}

begin();
theme();
listen();
await openPath("cartpole.msgpack");
if (query.has("file")) await openPath(query.get("file"));
if (game.policy) {
  const steps = Math.min(Number(query.get("steps") ?? 0) || 0, 100_000);
  if (steps > 0) {
    run(false);
    atOnce(steps);
  } else {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    run(!still);
    if (still) happen("At rest, as your system asks for less motion.");
    draw();
    requestAnimationFrame(tick);
  }
}
document.documentElement.dataset.ready = "true";
