"""Policy files as graphs of array operations, and those in other runtimes; NumPy is all that it takes.

    from policy_core_adapters import exports

    report = exports.export("walker.msgpack", "walker.onnx", "onnx", is_first=True)

graph, ops, shapes    what a graph is, and what its operations mean
lowering              from a policy file to the graph of its `act`
targets, command      what a graph can be written for; `policy-core export`
onnx, metadata        ONNX, and what is kept of the file beside the graph
c_source              C99
stablehlo             StableHLO, which is `act` by `jax.export` and not the graph
replay                a target against the self-test of the file
quantize, loss        kernels in 8 bits, and what they cost
sampling              random observations
"""

from policy_core_adapters.exports.lowering import ExportError as ExportError
from policy_core_adapters.exports.lowering import lower as lower
from policy_core_adapters.exports.targets import Report as Report
from policy_core_adapters.exports.targets import export as export
