"""Conformance tests for implementers of `ActorCritic`, as functions of a config.

inputs       random masks and perturbed params
assertions   each raises `ContractError`, with the numbers
checks       `check_policy`, and its checks one by one
"""

from policy_core.testing.checks import CHECKS as CHECKS
from policy_core.testing.checks import Case as Case
from policy_core.testing.checks import check_policy as check_policy
