"""Policy files as graphs of array operations, and those as ONNX or C; NumPy is all that it takes.

graph, ops, shapes    what a graph is, and what its operations mean
lowering              from a policy file to the graph of its `act`
"""
