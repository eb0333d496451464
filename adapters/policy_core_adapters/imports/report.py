"""What an import gives: the policy, and what became of every leaf of the source."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

import policy_core as pc


class Imported(NamedTuple):
    """A policy that was trained elsewhere.

    Args:
        policy: the pair.
        report: by leaf of the source, the path in the params that it went to, or why it is not needed.
        metadata: where the policy is from, to be saved with it: `pc.save(path, policy, metadata=metadata)`.
    """

    policy: Any
    report: dict[str, str]
    metadata: dict[str, str]


class Source:
    """The leaves of a source, each of which is to be taken, or left for a reason, exactly once.

    Args:
        leaves: arrays by name.
    """

    def __init__(self, leaves: Mapping[str, Any]) -> None:
        self.left = {name: np.asarray(leaf) for name, leaf in leaves.items()}
        self.report: dict[str, str] = {}
        self.params: dict[str, np.ndarray[Any, Any]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.left

    def take(self, name: str, why: str) -> np.ndarray[Any, Any]:
        """A leaf, with what becomes of it."""
        if name not in self.left:
            raise pc.errors.FileError(f"the leaf {name!r} is missing; there are {sorted(self.left)[:20]}")
        self.report[name] = why
        return self.left.pop(name)

    def put(self, path: str, value: Any, *names: str) -> None:
        """An array for a path of the params, made of the leaves of these names."""
        self.params[path] = np.asarray(value)
        for name in names:
            self.report[name] = path

    def linear(self, path: str, name: str) -> None:
        """A linear layer of torch: `weight [outputs, inputs]`, `bias`."""
        self.put(f"{path}/kernel", self.take(f"{name}.weight", "").T, f"{name}.weight")
        self.put(f"{path}/bias", self.take(f"{name}.bias", ""), f"{name}.bias")

    def layers(self, prefix: str) -> list[str]:
        """The linear layers of a `Sequential` of torch, in order: `prefix.0`, `prefix.2`, ..."""
        found = {
            int(rest)
            for name in self.left
            if name.startswith(f"{prefix}.") and name.endswith(".weight")
            if (rest := name[len(prefix) + 1 : -len(".weight")]).isdigit()
        }
        return [f"{prefix}.{i}" for i in sorted(found)]

    def mlp(self, path: str, prefix: str, head: str = "") -> tuple[int, ...]:
        """The layers of a `Sequential` into an `MLP`, the last one into `head` if given; the widths."""
        widths = []
        names = self.layers(prefix)
        if head and names:
            self.linear(head, names.pop())
        for i, name in enumerate(names):
            self.linear(f"{path}/hidden_{i}", name)
            widths.append(len(self.params[f"{path}/hidden_{i}/bias"]))
        return tuple(widths)

    def lstm(self, path: str, name: str, layer: int = 0) -> None:
        """A layer of an LSTM of torch, whose two biases are added; the order of the gates is the same."""
        for part, kind in (("input", "ih"), ("recurrent", "hh")):
            weight = f"{name}.weight_{kind}_l{layer}"
            self.put(f"{path}/{part}/kernel", self.take(weight, "").T, weight)
        biases = [f"{name}.bias_{kind}_l{layer}" for kind in ("ih", "hh")]
        self.put(f"{path}/input/bias", sum(self.take(bias, "") for bias in biases), *biases)

    def gru(self, path: str, name: str, layer: int = 0) -> None:
        """A layer of a GRU of torch: the biases of r and z are added, that of n behind r stays apart."""
        for part, kind in (("input", "ih"), ("recurrent", "hh")):
            weight = f"{name}.weight_{kind}_l{layer}"
            self.put(f"{path}/{part}/kernel", self.take(weight, "").T, weight)
        names = [f"{name}.bias_{kind}_l{layer}" for kind in ("ih", "hh")]
        of_input, of_state = (self.take(bias, "") for bias in names)
        gates = 2 * len(of_state) // 3
        both = np.concatenate([of_input[:gates] + of_state[:gates], of_input[gates:]])
        self.put(f"{path}/input/bias", both, *names)
        self.put(f"{path}/recurrent/bias", of_state[gates:])

    def memory(self, path: str, name: str) -> Any:
        """An LSTM or a GRU of torch, of any number of layers; the config of the memory."""
        cells: list[Any] = []
        while f"{name}.weight_hh_l{len(cells)}" in self:
            rows, size = self.left[f"{name}.weight_hh_l{len(cells)}"].shape
            if rows not in (3 * size, 4 * size):
                raise pc.errors.FileError(
                    f"{name}: it has {rows / size:g} gates, expected those of a GRU or LSTM"
                )
            cells.append(pc.GRU(size) if rows == 3 * size else pc.LSTM(size))
        for i, cell in enumerate(cells):
            layer = path if len(cells) == 1 else f"{path}/layer_{i}"
            (self.gru if isinstance(cell, pc.GRU) else self.lstm)(layer, name, i)
        return cells[0] if len(cells) == 1 else pc.Stack(tuple(cells))

    def statistics(self, path: str, mean: Any, variance: Any, count: float) -> None:
        """Running statistics of an observation, for `Normalize`."""
        for part, pair in pc.Normalize.statistics(mean, variance, count).items():
            self.put(f"{path}/{part}", pair)

    def finish(self, config: Any, metadata: dict[str, str]) -> Imported:
        """The policy, once every leaf has been taken.

        Raises:
            FileError: for a leaf that was not.
        """
        if self.left:
            raise pc.errors.FileError(
                f"the leaf {min(self.left)!r} has no place in the policy, nor have {len(self.left) - 1} "
                "others; nothing is left out silently"
            )
        policy = pc.surgery.from_leaves(config, self.params)
        return Imported(policy, dict(sorted(self.report.items())), metadata)
