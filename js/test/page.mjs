// The page in a headless Chromium, driven by its DevTools protocol: `node page.mjs CHROMIUM URL FOLDER`.
// Prints the findings as JSON, for tests/test_demo_page.py to judge; screenshots go into FOLDER.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [chromium, url, folder] = process.argv.slice(2);
const profile = mkdtempSync(join(tmpdir(), "policy-core-page-"));
const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

async function until(what, f, seconds = 40) {
  for (const end = Date.now() + 1000 * seconds; Date.now() < end; await pause(0.05)) {
    const value = await f();
    if (value) return value;
  }
  throw new Error(`waited ${seconds} s for ${what}`);
}

const flags = [
  "--headless=new",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-dev-shm-usage",
  "--no-first-run",
  "--remote-debugging-port=0",
  `--user-data-dir=${profile}`,
  "--force-device-scale-factor=1",
  "about:blank",
];
const browser = spawn(chromium, flags, { stdio: "ignore" });

async function connect() {
  const port = await until("Chromium", () => {
    try {
      return readFileSync(join(profile, "DevToolsActivePort"), "utf8").split("\n")[0];
    } catch {
      return null;
    }
  });
  const targets = await until("a page", async () => {
    const all = await (await fetch(`http://127.0.0.1:${port}/json`)).json();
    return all.find((target) => target.type === "page");
  });
  const socket = new WebSocket(targets.webSocketDebuggerUrl),
    waiting = new Map(),
    events = [];
  await new Promise((resolve, reject) => ((socket.onopen = resolve), (socket.onerror = reject)));
  let last = 0;
  socket.onmessage = ({ data }) => {
    const { id, result, error, method, params } = JSON.parse(data);
    if (!id) return events.push({ method, params });
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    return error ? reject(new Error(error.message)) : resolve(result);
  };
  const send = (method, params = {}) =>
    new Promise((resolve, reject) => {
      waiting.set(++last, { resolve, reject });
      socket.send(JSON.stringify({ id: last, method, params }));
    });
  return { send, events };
}

const findings = {};
try {
  const { send, events } = await connect();
  const wrong = () =>
    events
      .filter(
        ({ method, params }) =>
          method === "Runtime.exceptionThrown" ||
          (method === "Log.entryAdded" && params.entry.level === "error"),
      )
      .map(
        ({ params: { entry, exceptionDetails: of } }) => entry?.text ?? of.exception?.description ?? of.text,
      );
  const evaluate = async (expression) => {
    const answer = await send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
    if (answer.exceptionDetails) throw new Error(JSON.stringify(answer.exceptionDetails));
    return answer.result.value;
  };
  const size = (width, height, mobile = false) =>
    send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile });
  const media = (features) =>
    send("Emulation.setEmulatedMedia", {
      features: Object.entries(features).map(([name, value]) => ({ name, value })),
    });
  const go = async (query = "") => {
    await send("Page.navigate", { url: url + query });
    const ready = () => evaluate("document.documentElement.dataset.ready === 'true'").catch(() => false);
    await until("the policy", ready).catch((error) => {
      throw new Error(`${error.message}: ${JSON.stringify(wrong())}`);
    });
  };
  const status = () => evaluate("document.getElementById('status').textContent");
  const step = () => evaluate("Number(document.getElementById('step').textContent)");
  const result = async () => JSON.parse(await evaluate("document.getElementById('result').textContent"));
  const shot = async (name, beyond = true) => {
    const { data } = await send("Page.captureScreenshot", {
      format: "png",
      captureBeyondViewport: beyond,
      ...(beyond && {
        clip: {
          ...(await evaluate(
            "({ x: 0, y: 0, width: innerWidth, height: " + "document.documentElement.scrollHeight })",
          )),
          scale: 1,
        },
      }),
    });
    writeFileSync(join(folder, `${name}.png`), Buffer.from(data, "base64"));
  };
  const key = async (name, code = name) => {
    for (const type of ["keyDown", "keyUp"]) {
      await send("Input.dispatchKeyEvent", {
        type,
        key: name,
        code,
        ...(name === " " && type === "keyDown" && { text: " " }),
      });
    }
  };
  const choose = async (path) => {
    const { root } = await send("DOM.getDocument");
    const { nodeId } = await send("DOM.querySelector", { nodeId: root.nodeId, selector: "#file" });
    const said = await status();
    await send("DOM.setFileInputFiles", { nodeId, files: [path] });
    return until("an answer", async () => ((await status()) !== said ? status() : null));
  };
  for (const domain of ["Page", "Runtime", "DOM", "Log", "Network"]) await send(`${domain}.enable`);

  await size(1100, 900);
  await media({ "prefers-color-scheme": "light", "prefers-reduced-motion": "no-preference" });
  await go("?steps=500&seed=1");
  findings.balanced = await result();
  findings.pushed = [];
  for (const [seed, at] of [
    [2, 100],
    [3, 101],
    [4, 250],
    [5, 333],
  ]) {
    await go(`?steps=500&seed=${seed}&push=${at}`);
    findings.pushed.push(await result());
  }
  await go("?file=damaged.msgpack&steps=10");
  findings.damaged = {
    ...(await result()),
    name: await evaluate("document.querySelector('#about dd').textContent"),
  };
  await go("?file=other.msgpack&steps=10");
  findings.other = await result();

  await go("?seed=1"); // in real time
  findings.moves = [await step()];
  await pause(1.2);
  findings.moves.push(await step());
  await key("ArrowRight");
  await until("the hand", () => evaluate("true"));
  await pause(0.5);
  await shot("light");
  await key(" ", "Space");
  findings.paused = await evaluate("document.getElementById('pause').textContent");
  const stood = await step();
  await pause(0.4);
  findings.stands = (await step()) === stood;
  await key("r", "KeyR");
  findings.reset = await step();
  findings.chosen = [];
  for (const name of ["damaged", "other", "population"])
    findings.chosen.push(await choose(join(folder, `${name}.msgpack`)));
  findings.members = await evaluate("document.getElementById('member').options.length");
  await evaluate("(() => { const m = document.getElementById('member'); m.value = '1'; m.onchange(); })()");
  findings.member = await until("member 1", async () =>
    (await status()).includes("member 1 of") ? status() : null,
  );
  findings.dropped = await evaluate(`(async () => {
    const bytes = await (await fetch("damaged.msgpack")).arrayBuffer(), data = new DataTransfer();
    data.items.add(new File([bytes], "dropped.msgpack"));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
    await new Promise((resolve) => setTimeout(resolve, 500));
    return document.getElementById("status").textContent;
  })()`);
  await shot("refused");
  findings.theme = [await evaluate("document.documentElement.dataset.theme")];
  await evaluate("document.getElementById('theme').click()");
  findings.theme.push(await evaluate("document.documentElement.dataset.theme"));
  await evaluate("document.getElementById('theme').click(); localStorage.clear()");

  await media({ "prefers-color-scheme": "dark", "prefers-reduced-motion": "no-preference" });
  await go("?seed=1");
  await pause(2);
  await shot("dark");
  findings.theme.push(await evaluate("document.documentElement.dataset.theme"));

  await media({ "prefers-color-scheme": "light", "prefers-reduced-motion": "reduce" });
  await size(360, 740, true);
  await go("?seed=1");
  findings.still = {
    text: await evaluate("document.getElementById('pause').textContent"),
    said: await evaluate("document.getElementById('event').textContent"),
  };
  await evaluate("document.getElementById('pause').click()");
  await pause(1.5);
  await evaluate("document.getElementById('pause').click()");
  findings.wide = await evaluate("document.documentElement.scrollWidth");
  await shot("phone");

  const { nodes } = await send("Accessibility.getFullAXTree");
  const named = nodes.filter((node) =>
    ["button", "checkbox", "combobox", "image", "meter", "link"].includes(node.role?.value),
  );
  findings.unnamed = named.filter((node) => !node.name?.value).map((node) => node.role.value);
  findings.named = named.map((node) => `${node.role.value}: ${node.name?.value}`);
  await send("Page.navigate", { url: new URL("../export/index.html", url).href });
  const out = () => evaluate("document.getElementById('out')?.textContent").catch(() => null);
  findings.exported = await until("the exported page", async () => {
    const text = await out();
    return text && text !== "Loading." ? text : null;
  });
  findings["exported action"] = await evaluate("policy.act(policy.reset(), [0, 0, 0, 0])[1]");

  findings.requests = events
    .filter(({ method }) => method === "Network.requestWillBeSent")
    .map(({ params }) => params.request.url)
    .filter((to) => !to.startsWith("data:"));
  findings.errors = wrong();
  console.log(JSON.stringify(findings));
} finally {
  const gone = new Promise((resolve) => browser.once("exit", resolve));
  browser.kill();
  await gone;
  rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
}
process.exit(0);
