// Masks, memories, draws and hostile files: of what tests/test_javascript.py makes in POLICY_CORE_TABLE.
import assert from "node:assert/strict";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { load, PolicyError } from "../policy-core.js";

const folder = process.env.POLICY_CORE_TABLE;
const skip = folder ? false : "run by tests/test_javascript.py, which makes the files";
const of = (name) => readFileSync(join(folder, `${name}.msgpack`));
const throws = (f, message) => assert.throws(f, { name: "PolicyError", message });
const X = [0.3, -0.2, 0.5];

/** Numbers in [0, 1), the same ones in every run (Marsaglia's xorshift). */
function generator(seed = 1) {
  let x = seed;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) / 2 ** 32;
  };
}

test("what is masked is never drawn", { skip }, async () => {
  const policy = await load(of("discrete")),
    random = generator(); // Discrete(3, start=1)
  const drawn = new Set();
  for (let i = 0; i < 100; i++)
    drawn.add(policy.act(null, X, { random, actionMask: [false, true, false] })[1]);
  assert.deepEqual([...drawn], [2]);
  const every = [false, false, false]; // a row that allows nothing allows everything
  assert.equal(policy.act(null, X, { actionMask: every })[1], policy.act(null, X)[1]);
  throws(
    () => policy.act(null, X, { actionMask: [true, true] }),
    /^actionMask: got 2 entries, expected 3 booleans$/,
  );
  for (const actionMask of [[1, 1, 1], { 0: true }, "abc", 7, [true, true, null]]) {
    throws(() => policy.act(null, X, { actionMask }), /^actionMask: got .*, expected 3 booleans$/);
  }
});

test("a Box has no mask", { skip }, async () => {
  const policy = await load(of("bins"));
  throws(() => policy.act(null, X, { actionMask: [[true]] }), /^actionMask: got a mask for a Box/);
});

test("draws have the probabilities that are shown", { skip }, async () => {
  const policy = await load(of("discrete")),
    random = generator(7),
    count = 20_000,
    counts = [0, 0, 0];
  const [, { kind, start, probabilities }] = policy.distribution(null, X);
  assert.equal(kind, "categorical");
  for (let i = 0; i < count; i++) counts[policy.act(null, X, { random })[1] - start] += 1;
  const chi = counts.reduce(
    (sum, n, i) => sum + (n - count * probabilities[i]) ** 2 / (count * probabilities[i]),
    0,
  );
  assert.ok(chi < 18.4, `chi-square ${chi}: of 2 degrees it is above 18.4 once in 10,000`);
});

test("draws of densities, for Python to judge", { skip }, async () => {
  const draws = {};
  for (const name of ["beta", "wide beta", "squashed", "normal"]) {
    const policy = await load(of(name)),
      random = generator(3);
    const [, shown] = policy.distribution(null, X);
    draws[name] = {
      ...shown,
      draws: Array.from({ length: 4000 }, () => Array.from(policy.act(null, X, { random })[1])),
    };
  }
  writeFileSync(join(folder, "draws.json"), JSON.stringify(draws));
});

test("combinations that a joint mask forbids are never chosen", { skip }, async () => {
  const { file, rows, observations } = JSON.parse(readFileSync(join(folder, "joint.json"), "utf8"));
  const policy = await load(readFileSync(file)),
    random = generator(5);
  rows.forEach(({ allowed, mode }, i) => {
    const actionMask = { allowed };
    assert.deepEqual([...policy.act(null, observations[i], { actionMask })[1]], mode);
    const [a, b, c] = policy.act(null, observations[i], { actionMask, random })[1];
    assert.ok(allowed[a][b - 1][c] || !allowed.flat(2).includes(true)); // the second starts at 1
  });
  throws(
    () => policy.act(null, X, { actionMask: { allowed: [true] } }),
    /^actionMask\.allowed: got .*, expected booleans \(2, 3, 2\)$/,
  );
  throws(() => policy.act(null, X, { actionMask: [[true, true]] }), /^actionMask: expected a list of 3 rows/);
});

test("what a state is and what it is not", { skip }, async () => {
  const policy = await load(of("every-memory"));
  const first = policy.reset();
  first.actor[0].fill(7); // nobody's but the caller's
  assert.notDeepEqual(policy.reset(), first);
  for (const wrong of [null, undefined, {}, { actor: 0 }, { actor: [], critic: [] }, [], 3]) {
    throws(
      () => policy.act(wrong, X),
      /^(state: expected the state returned by `reset`|the file contradicts)/,
    );
    assert.deepEqual(Object.keys(policy.act(wrong, X, { isFirst: true })[0]), ["actor", "critic"]);
  }
});

test("functions are given by name", { skip }, async () => {
  await assert.rejects(load(of("autoregressive")), {
    name: "PolicyError",
    message: /^Autoregressive\.masks\['aim'\]: 'others' is not known here; pass it in `maskFunctions`$/,
  });
  const maskFunctions = { others: (_, seen) => [0, 1, 2, 3].map((i) => i !== seen.tool) };
  const policy = await load(of("autoregressive"), { maskFunctions }),
    random = generator();
  for (let i = 0; i < 100; i++) {
    const [, action] = policy.act(null, X, { random });
    assert.notEqual(action.aim, action.tool);
  }
  await assert.rejects(load(of("own-activation")), {
    name: "PolicyError",
    message: /^MLP\.activation: 'cubed in JavaScript' is not known here; pass it in `activations`$/,
  });
  const own = await load(of("own-activation"), { activations: { "cubed in JavaScript": (x) => x ** 3 } });
  own.act(own.reset(), X);
});

test("an actor without its critic", { skip }, async () => {
  const policy = await load(of("actor-only"));
  policy.act(policy.reset(), { x: X });
  throws(() => policy.value(policy.reset(), { x: X }), /^value: the policy has no critic/);
});

test("a critic without its actor", { skip }, async () => {
  const policy = await load(of("critic-only"));
  const [, value] = policy.value(policy.reset(), X);
  assert.ok(Math.abs(value - JSON.parse(readFileSync(join(folder, "critic-only.json"), "utf8"))) < 1e-5);
  throws(() => policy.act(policy.reset(), X), /^act: the policy has no actor; it was made by `critic_only`$/);
});

test("files with a self-test pass it, and no other policy does", { skip }, async () => {
  const { files } = JSON.parse(readFileSync(join(folder, "self-tests.json"), "utf8"));
  const maskFunctions = {
    others: (mask, seen) => [0, 1, 2, 3].map((i) => i !== seen.tool && (mask?.[i] ?? true)),
  };
  for (const { file, broken, member } of files) {
    await load(readFileSync(file), { member, maskFunctions });
    await assert.rejects(
      load(readFileSync(broken), { member, maskFunctions }),
      { name: "PolicyError", message: /^self-test: '[a-z_]+(\/.*)?' is off by/ },
      broken,
    );
    await load(readFileSync(broken), { member, maskFunctions, selfTest: false });
  }
});

test("hostile files are refused soon, in words", { skip }, async () => {
  await load(of("hostile-good")); // and what an engine does at its first use is no part of it
  const names = readdirSync(join(folder, "hostile")),
    slow = {};
  assert.ok(names.length > 100);
  for (const name of names) {
    const bytes = readFileSync(join(folder, "hostile", name)),
      before = process.cpuUsage();
    await load(bytes).then(
      () => assert.fail(`${name} was loaded`),
      (error) => {
        assert.ok(error instanceof PolicyError, `${name}: ${error.stack}`);
        assert.ok(error.message.length > 10 && error.message.length < 500, `${name}: ${error.message}`);
        if (process.env.POLICY_CORE_FULL) console.log(name.padEnd(50), error.message);
      },
    );
    const { user, system } = process.cpuUsage(before),
      seconds = (user + system) / 1e6; // whatever else runs
    if (seconds > 0.5) slow[name] = seconds;
  }
  assert.deepEqual(slow, {});
});
