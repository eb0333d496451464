"""Everything that this project claims, on a GPU: exactness, speed beside peers, training, files.

    python -m benchmarks.gpu                 # a quarter of an hour; raw rows into build/gpu.json
    python -m benchmarks.gpu --render        # the tables of docs/gpu.md, from the raw rows

    measure     who takes how long, in turn; how much two results differ
    exact       against the CPU, by the precision of products; files; draws
    speed       beside the same by hand, flax and equinox; populations; files
    training    `examples/ppo.py`
    page        the tables of `docs/gpu.md`

It needs the extra `bench` and a JAX that sees the GPU; without one it runs on the processor in small, for a
trial (`--seconds 0.01`). A section that fails is an error in the page and not a missing table. Contestants
take turns, and a ratio is of medians; below 1 ours is faster. Results are waited for after a series of
calls, so that a row measures the device wherever it takes longer than Python needs to start a program.
"""
