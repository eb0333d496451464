"""Populations: policies whose leaves have a leading axis, as pure functions on pairs.

A population is again a pair `(params, config)`, with one config for all members, and everything that
maps, trains or saves it takes it as one. There is no class for it and no state: these functions make
populations, take members out of them and put members in, choose who is copied, and place them on devices.
"""

from policy_core.population.devices import assert_same_config, gather, replicated, sharding
from policy_core.population.leaves import get_leaves, set_leaves
from policy_core.population.members import check, init, member, replace, size, stack, unstack
from policy_core.population.selection import exploit, take
from policy_core.population.sets import groups, ungroup

__all__ = [
    "assert_same_config", "check", "exploit", "gather", "get_leaves", "groups", "init", "member",
    "replace", "replicated", "set_leaves", "sharding", "size", "stack", "take", "ungroup", "unstack",
]  # fmt: skip
