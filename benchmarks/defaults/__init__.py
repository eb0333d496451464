"""The default networks of `ActorCriticConfig` against others, in PPO as other libraries have it.

    settings      update rules, tasks and networks, and one option of a rule changed at a time
    train         one PPO that is all of these rules, and a batch of seeds of it
    plan          what is trained, the most important first
    schedule      batches as processes of their own, one a core, until the time is over
    runs          what came of it: means, standard errors, times
    page, prose   the section of `docs/results.md`

`python -m benchmarks.defaults` trains what is not in `build/defaults.jsonl`, a line a batch of seeds, and
adds it there. Everything on CPUs takes an hour and a quarter of one core: `--cores 6 --budget 600` does some
of it, the most important first, and the next call goes on from there. `--gpu 2` adds the batches for a GPU,
with two processes that compile and take turns on it: Breakout, the memory, and the options of the rules.
`--plan` prints what is missing. `--page` writes the section "The defaults" and its picture from the file.
"""
