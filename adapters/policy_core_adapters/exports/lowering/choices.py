"""Actions of one part of a space as graphs: categories and bits; `boxes` has those of boxes."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from policy_core_adapters.exports.graph import Value
from policy_core_adapters.exports.lowering.boxes import BOX_HEADS
from policy_core_adapters.exports.lowering.context import Context, ExportError, only, under, unsupported
from policy_core_adapters.exports.lowering.gsde import gsde_head
from policy_core_adapters.exports.lowering.observations import dtype_of, real
from policy_core_adapters.exports.lowering.parts import Chosen, Head
from policy_core_adapters.numpy_runner.heads import index_form
from policy_core_adapters.numpy_runner.networks import shaped
from policy_core_adapters.numpy_runner.spaces import flat_size_of, kind_of, parts_of

LEAST = -2e30  # of what is masked: below every logit, which are within +-1e30


class Rows(NamedTuple):
    """Rows of logits of a MultiDiscrete, padded to the longest, or the one row of a Discrete."""

    sizes: list[int]
    single: bool

    @property
    def width(self) -> int:
        """Of the longest row."""
        return max(self.sizes)

    @property
    def valid(self) -> Any:
        """Which entries are no padding."""
        return np.arange(self.width) < np.array(self.sizes)[:, None]

    @property
    def even(self) -> bool:
        """Whether there is no padding."""
        return len(set(self.sizes)) == 1


def choose(head: Head) -> Chosen:
    """The action of a space, given the features and the params of its head."""
    c, space, kind = head.context, head.space, kind_of(head.space)
    by_part = head.heads.named(space)
    if kind in ("Dict", "Tuple"):
        if head.heads.own is not None:
            unsupported("heads", head.heads.own["type"])
        parts = {
            key: choose(
                head._replace(
                    space=part,
                    heads=by_part[key],
                    params=head.params[str(key)],
                    path=under(head.path, str(key)),
                )
            )
            for key, part in parts_of(space).items()
        }
        return together(c, parts)
    if kind == "Box":
        return _box(head)
    if head.config["type"] != "policy_core/LogitsHead":
        unsupported("discrete_head", head.config["type"])
    only(head.fields, "LogitsHead")
    if kind == "Discrete":
        return _rows(head, Rows([space["fields"]["n"]], single=True), space)
    if kind == "MultiBinary":
        return _bits(head)
    if not space["fields"]["nvec"]:
        raise ExportError("action_space: a MultiDiscrete without entries is carried by no export")
    return _rows(head, Rows(list(space["fields"]["nvec"]), single=False), space)


def together(c: Context, parts: dict[Any, Chosen]) -> Chosen:
    """Parts as one action."""

    def log_prob() -> Value:
        terms = [c.shape(part.log_prob(), 1) for part in parts.values()]
        return c("sum", c.join(terms), axes=(-1,), keep=False)

    return Chosen(
        {key: part.policy for key, part in parts.items()},
        {key: part.env for key, part in parts.items()},
        log_prob,
        {key: part.distribution for key, part in parts.items()},
    )


def _box(head: Head) -> Chosen:
    form, value = index_form(head.space, head.heads, np.float32)
    if form is not head.space:
        chosen = _rows(head, Rows(list(form["fields"]["nvec"]), single=False), form, maskable=False)
        return chosen._replace(env=values_of(head.context, head.space, form, value, chosen.policy))
    heads = {**BOX_HEADS, "policy_core/GSDEHead": gsde_head}
    if head.config["type"] not in heads:
        unsupported("box_head", head.config["type"])
    return heads[head.config["type"]](head)


def values_of(c: Context, space: Any, form: Any, value: Callable[[Any], Any], index: Value) -> Value:
    """The environment action of indices: from a table of all values, one row after the other."""
    sizes, shape, dtype = form["fields"]["nvec"], tuple(form["fields"]["shape"]), dtype_of(space)
    width = max(sizes)
    columns = [value(np.full(shape, i)) for i in range(width)]
    wide = np.stack(
        [np.ravel(column) for column in columns], -1
    )  # [entries, width]; past the end of a row: unused
    if "float" not in dtype:
        if np.abs(wide.astype(np.float64)).max() >= 2**31:
            raise ExportError("action_space: integers of a Box beyond int32 are carried by no export")
        wide = wide.astype(np.int32)
    before = np.arange(len(sizes)).reshape(shape) * width
    action = c(
        "take", c.constant(wide.ravel()), c("add", index, c.constant(before)) if before.any() else index
    )
    return action if action.dtype == dtype else c("cast", action, dtype=dtype)


# CATEGORIES


def logits_of(head: Head, rows: Rows) -> Value:
    """Clean logits `[n]`, or `[rows, width]`; where there is padding, it is far below."""
    c, count = head.context, len(rows.sizes)
    kernel = shaped(head.params["kernel"], head.features.shape[-1], sum(rows.sizes))
    bias = shaped(head.params["bias"], sum(rows.sizes))
    if not rows.even:
        wide = np.zeros((len(kernel), count * rows.width), np.float32)
        low = np.full(count * rows.width, LEAST, np.float32)
        wide[:, rows.valid.ravel()], low[rows.valid.ravel()] = kernel, bias
        kernel, bias = wide, low
    logits = c("linear", head.features, c.weights(kernel), c.constant(np.float32(bias)))
    if head.temperature is not None:
        logits = c("div", logits, head.temperature)
    return logits if rows.single else c.shape(logits, count, rows.width)


def _allowed(head: Head, rows: Rows, path: str) -> Value:
    """Which entries are allowed, one bool each in the shape of the logits; in empty rows all are."""
    c = head.context
    if rows.single:
        mask = c.mask(path, (rows.width,)) if head.mask is None else head.mask
    else:
        inputs = [c.mask(under(path, str(i)), (n,)) for i, n in enumerate(rows.sizes)]
        mask = c.join(inputs)
        if not rows.even:
            starts = np.cumsum(rows.sizes) - rows.sizes
            places = starts[:, None] + np.minimum(np.arange(rows.width), np.array(rows.sizes)[:, None] - 1)
            mask = c("gather", mask, c.constant(places.ravel()))
        mask = c.shape(mask, len(rows.sizes), rows.width)
    mask = c("or", mask, c("not", c("any", mask, axes=(-1,), keep=True)))
    return mask if rows.even else c("and", mask, c.constant(rows.valid))


def _rows(head: Head, rows: Rows, space: Any, *, maskable: bool = True) -> Chosen:
    c = head.context
    layout = c.mask_layout(head.path) if maskable else "none"
    if layout == "joint" and not rows.single:
        return _joint(head, rows, space)
    logits = raw = logits_of(head, rows)
    if layout != "none" or head.mask is not None:
        allowed = _allowed(head, rows, head.path)
        logits = c("where", allowed, c.clip(logits, -1e30, 1e30), LEAST)
    index = pick(c, logits, head.path)
    starts, shape = space["fields"]["start"], tuple(space["fields"].get("shape", ()))
    action = index
    if np.any(np.array(starts)):
        action = c("add", index, starts if rows.single else c.constant(np.array(starts)))
    action = c.shape(action, *shape)

    def log_prob() -> Value:
        terms = at(c, c("log_softmax", logits), index)
        return terms if rows.single else c("sum", terms, axes=(-1,), keep=False)

    flat = raw if rows.single else real(c, c.flat(raw), rows.sizes)
    return Chosen(action, action, log_prob, {"logits": flat})


def pick(c: Context, logits: Value, path: str) -> Value:
    """The index of the largest along the last axis, or of a draw by one uniform number each."""
    if not c.noise:
        return c("argmax", logits)
    uniform = c.draw(path, "uniform", logits.shape[:-1])
    width = logits.shape[-1]
    sums = c("cumsum", c("softmax", logits))
    whole = c.cut(sums, width - 1, width)
    target = c("mul", c.shape(uniform, *logits.shape[:-1], 1), whole)
    past = c("and", c("less_equal", sums, target), c("less", sums, whole))
    count = c("sum", c("cast", past, dtype="float32"), axes=(-1,), keep=False)
    return c("cast", count, dtype="int32")


def at(c: Context, rows: Value, index: Value) -> Value:
    """The entry of each row at its index."""
    hit = c("equal", c.shape(index, *index.shape, 1), c.constant(np.arange(rows.shape[-1])))
    return c("sum", c("where", hit, rows, 0.0), axes=(-1,), keep=False)


def _joint(head: Head, rows: Rows, space: Any) -> Chosen:
    """A MultiDiscrete under one mask of all combinations."""
    c, sizes, count = head.context, rows.sizes, math.prod(rows.sizes)
    if count > 2**20:
        raise ExportError(f"masks: a joint mask of {count} combinations, at most {2**20} are allowed")
    flat, table, end = real(c, c.flat(logits_of(head, rows)), sizes), None, 0
    for i, n in enumerate(sizes):
        row = c.clip(c.cut(flat, end, end + n), -1e30, 1e30)
        row = c.shape(row, *(n if i == j else 1 for j in range(len(sizes))))
        table, end = row if table is None else c("add", table, row), end + n
    assert table is not None
    allowed = c.flat(c.mask(head.path, tuple(sizes)))
    allowed = c("or", allowed, c("not", c("any", allowed, axes=(-1,), keep=True)))
    logits = c("where", allowed, c.flat(table), LEAST * len(sizes))
    index = pick(c, logits, head.path)
    each = c.shape(index, 1)
    left, columns = count, []
    for n in sizes:
        left //= n
        digit = c("floordiv", each, left) if left > 1 else each
        columns.append(c("mod", digit, n))
    action = c.join(columns)
    if any(space["fields"]["start"]):
        action = c("add", action, c.constant(np.array(space["fields"]["start"])))
    action = c.shape(action, *space["fields"]["shape"])
    return Chosen(action, action, lambda: at(c, c("log_softmax", logits), index), {"logits": flat})


# BITS


def _bits(head: Head) -> Chosen:
    c, shape = head.context, tuple(head.space["fields"]["shape"])
    size = flat_size_of(head.space)
    logits = raw = c.shape(c.linear(head.params, head.features, size), *shape)
    if head.temperature is not None:
        logits = raw = c("div", logits, head.temperature)
    mask = head.mask
    if mask is None and c.mask_layout(head.path) != "none":
        mask = c.mask(head.path, shape)
    if mask is not None:
        logits = c.clip(c("where", mask, logits, 0.0), -1e30, 1e30)
    if c.noise:
        uniform = c.draw(head.path, "uniform", shape)
        ones = c("less", uniform, c("sigmoid", logits))
    else:
        ones = c("less", 0.0, logits)
    ones = ones if mask is None else c("and", ones, mask)
    action = c("cast", ones, dtype="int32")

    def log_prob() -> Value:
        z = c("where", ones, c("neg", logits), logits)
        tail = c("log1p", c("exp", c("neg", c("abs", z))))
        terms = c("neg", c("add", c("maximum", z, 0.0), tail))
        terms = terms if mask is None else c("where", mask, terms, 0.0)
        return c("sum", c.flat(terms), axes=(-1,), keep=False)

    return Chosen(action, action, log_prob, {"logits": raw})
