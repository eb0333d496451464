"""Every row and task of `benchmarks/floor.py` as it is lowered for CUDA and TPU: no GPU is needed to see that."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import floor, programs
from benchmarks.programs import Operations, grown, kernels, operations

pytestmark = pytest.mark.usefixtures("unchecked", "lenient")  # as users run


def of(function: Any, *arguments: Any, platform: str = "cuda") -> Operations:
    return operations(jax.jit(function).trace(*arguments), platform)


@functools.cache
def counters() -> set[tuple[str, str]]:
    """What `jax.random.bits` has of 64 bits: the counter of Threefry, of which it makes 32-bit words."""
    keys = jax.random.split(jax.random.key(0), 2)
    found = of(jax.vmap(lambda key: jax.random.bits(key, (3,))), keys).wide
    assert {element for _, element in found} == {"ui64"}
    return found


@pytest.mark.parametrize("task", floor.TASKS)
@pytest.mark.parametrize("row", floor.ROWS)
def test_a_program_stays_on_the_device_in_32_bits_and_has_not_grown(row: str, task: str) -> None:
    both, arguments = programs.shapes(floor.ROWS[row], task)
    traced = both["ours"].trace(*arguments)
    for platform in programs.PLATFORMS:
        found = operations(traced, platform)
        assert found.host == []
        assert found.wide <= counters()
        recorded = programs.recorded(row, task, platform)
        if recorded is None:
            pytest.skip(f"programs.json is of another jax than {jax.__version__}; {programs.AGAIN}")
        assert grown(recorded, found.kinds) == [], programs.AGAIN


# --- What finds it, finds it -----------------------------------------------------------------


def callback(x: Any) -> Any:
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


def printed(x: Any) -> Any:
    jax.debug.print("{}", x)
    return x


@pytest.mark.parametrize("function", [callback, printed])
def test_a_callback_and_a_print_are_found(function: Any) -> None:
    assert [target[:18] for target in of(function, jnp.ones(3), platform="cpu").host] == [
        "xla_ffi_python_cpu"
    ]
    assert of(jnp.sin, jnp.ones(3), platform="cpu").host == []
    for platform in programs.PLATFORMS:  # not without a device of that platform
        with pytest.raises(ValueError, match="is different from the lowering platform"):
            of(function, jnp.ones(3), platform=platform)


def test_64_bits_are_found() -> None:
    with jax.enable_x64(True):
        found = of(lambda x: jnp.sum(x) + jnp.arange(3).astype(jnp.float32), jnp.ones(3, jnp.float64)).wide
    assert {element for _, element in found} == {"f64", "i64"}
    assert of(lambda x: jnp.sum(x) + jnp.arange(3), jnp.ones(3)).wide == set()


def test_a_function_counts_as_often_as_it_is_called() -> None:
    inner = jax.jit(lambda x: jnp.tanh(jnp.tanh(x)))
    assert of(lambda x: inner(inner(inner(x))), jnp.ones(3)).kinds == {"tanh": 6}


def test_growth_is_of_all_operations_or_of_one_kernel() -> None:
    before = {"add": 3, "dot_general": 2, "reduce": 1}
    assert grown(before, before) == grown(before, {"multiply": 2, "dot_general": 2}) == []
    assert grown(before, {"add": 4, "dot_general": 2, "reduce": 1}) == [
        "operations: 6 before, 7 now (add +1)"
    ]
    assert grown(before, {"dot_general": 2, "reduce": 2}) == ["reduce: 1 before, 2 now"]
    assert grown(before, {"while": 1}) == ["while: 0 before, 1 now"]
    assert len(grown(before, {"add": 4, "dot_general": 3, "reduce": 1})) == 2


MODULE = """HloModule jit_f, is_scheduled=true

%fused_computation (param_0: f32[8]) -> f32[8] {
  %param_0 = f32[8]{0} parameter(0)
  ROOT %tanh.1 = f32[8]{0} tanh(%param_0)
}

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%parallel (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %fusion.2 = f32[8]{0} fusion(%p), kind=kLoop, calls=%fused_computation
}

%body (s: (s32[], f32[8])) -> (s32[], f32[8]) {
  %s = (s32[], /*index=1*/f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %v = f32[8]{0} get-tuple-element(%s), index=1
  %w = f32[8]{0} call(%v), to_apply=%parallel
  ROOT %t = (s32[], /*index=1*/f32[8]{0}) tuple(%i, %w)
}

%condition (s: (s32[], f32[8])) -> pred[] {
  %s = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %n = s32[] constant(5)
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (a: f32[8,8], b: f32[8]) -> f32[] {
  %a = f32[8,8]{1,0} parameter(0)
  %b = f32[8]{0} parameter(1)
  %dot.1 = f32[8]{0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %fusion.1 = f32[8]{0} fusion(%dot.1), kind=kLoop, calls=%fused_computation
  %zero = s32[] constant(0)
  %start = (s32[], f32[8]{0}) tuple(%zero, %fusion.1)
  %while.1 = (s32[], /*index=1*/f32[8]{0}) while(%start), condition=%condition, body=%body
  %last = f32[8]{0} get-tuple-element(%while.1), index=1
  %init = f32[] constant(0)
  ROOT %reduce.1 = f32[] reduce(%last, %init), dimensions={0}, to_apply=%add
}
"""


def test_the_kernels_of_a_compiled_module_are_counted_where_they_are_called() -> None:
    assert kernels(MODULE) == {"dot": 1, "fusion": 2, "other": 1, "reduce": 1, "while": 1}
    with pytest.raises(KeyError, match="elsewhere"):  # nothing that is called is passed over
        kernels(MODULE.replace("to_apply=%parallel", "to_apply=%elsewhere"))
    with pytest.raises(ValueError, match="without an ENTRY computation"):
        kernels("HloModule empty")


def test_what_xla_writes_today_is_read() -> None:
    def f(a: Any, x: Any) -> Any:
        return jnp.sort(jax.lax.fori_loop(0, 3, lambda _, x: jnp.tanh(a @ x), x))

    text = jax.jit(f).lower(jnp.ones((8, 8)), jnp.ones(8)).compile().as_text()
    found = kernels(text)
    assert found["while"] == found["sort"] == 1
    assert found.get("dot", 0) + found.get("fusion", 0) + found.get("custom-call", 0) >= 1
    assert sum(found.values()) < len(re.findall(r"^\s+(?:ROOT )?%", text, re.MULTILINE))
