// Acts as the policies of a table do that tests/test_javascript.py makes, in the folder POLICY_CORE_TABLE.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { load } from "../policy-core.js";

const folder = process.env.POLICY_CORE_TABLE;
const cases = folder ? JSON.parse(readFileSync(join(folder, "cases.json"), "utf8")) : [];
if (!folder) test("parity", { skip: "run by tests/test_javascript.py, which makes the files" }, () => {});

/** `cases.others` of the tests: aim at anything but the number of the tool. */
function others(mask, seen) {
  return [0, 1, 2, 3].map((i) => i !== seen.tool && (mask === null || mask[i]));
}

/** All numbers, in order; the keys of an object sorted, as JAX has them. */
function leaves(x) {
  if (x === null || x === undefined) return [];
  if (typeof x === "number" || typeof x === "boolean") return [Number(x)];
  if (Array.isArray(x) || ArrayBuffer.isView(x)) return Array.from(x).flatMap(leaves);
  return Object.keys(x)
    .sort()
    .flatMap((key) => leaves(x[key]));
}

const near = (a, b, off = 1e-5) => a === b || Math.abs(a - b) <= off * Math.max(1, Math.abs(b));

function allNear(got, wanted, what, off) {
  const a = leaves(got),
    b = leaves(wanted);
  assert.equal(a.length, b.length, `${what}: ${a.length} numbers, not ${b.length}`);
  a.forEach((x, i) => assert.ok(near(x, b[i], off), `${what}: number ${i} is ${x}, expected ${b[i]}`));
}

for (const one of cases) {
  test(one.name, async () => {
    const policy = await load(readFileSync(one.file), { maskFunctions: { others } });
    assert.equal(policy.fingerprint, one.fingerprint);
    for (const { actions, values, states } of one.references) {
      let state = policy.reset(),
        next,
        value,
        action,
        differ = 0;
      for (let i = 0; i < one.observations.length; i++) {
        const observation = one.observations[i],
          isFirst = one.is_first[i],
          actionMask = one.masks[i];
        const kept = JSON.stringify(state);
        [next, value] = policy.value(state, observation, { isFirst });
        allNear(value, values[i], `value ${i}`, one.off);
        allNear(next, states[i], `state ${i} of value`);
        const [, shown] = policy.distribution(state, observation, { isFirst, actionMask });
        [next, action] = policy.act(state, observation, { isFirst, actionMask });
        assert.equal(JSON.stringify(state), kept, "a state is not written to");
        allNear(next, states[i], `state ${i}`);
        const got = leaves(action),
          wanted = leaves(actions[i]);
        assert.equal(got.length, wanted.length);
        // A choice between equals may be the other.
        if (!got.every((x, j) => near(x, wanted[j], one.off))) {
          assert.ok(one.ties, `action ${i}: ${got}, expected ${wanted}`);
          differ += 1;
          if (shown.kind === "categorical") {
            const [p, q] = [got, wanted].map(([a]) => shown.probabilities[a - shown.start]);
            assert.ok(Math.abs(p - q) < 1e-6, `action ${i}: ${got}, expected ${wanted}, of ${p} and ${q}`);
          }
        }
        state = next;
      }
      assert.ok(differ <= one.observations.length / 200, `${differ} actions differ: more than ties`);
    }
    let used = 0,
      state = policy.reset(),
      action;
    const random = () => one.uniforms[used++ % one.uniforms.length];
    one.draws.forEach((wanted, i) => {
      [state, action] = policy.act(state, one.observations[i], { random, actionMask: one.masks[i] });
      allNear(action, wanted, `draw ${i}`, one.off);
    });
  });
}
