"""The default networks of `ActorCriticConfig` against others, in PPO as other libraries have it.

    settings      update rules, tasks and networks
    train         one PPO that is all of these rules, and a batch of seeds of it
    `__main__`    what is trained, and the section of `docs/results.md`

`python -m benchmarks.defaults` trains what is not in `build/defaults.jsonl`, a line a batch of seeds, and
adds it there; from that file it writes the section "The defaults" and its picture. With `--setting` and
`--network` it trains some of it, and writes nothing else. Everything takes 16 minutes of a processor.
"""
