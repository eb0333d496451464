"""Tasks of several kinds, against the PPO of other libraries at their published hyper-parameters.

    settings      tasks, contestants, and what each is run with
    environments  RepeatPrevious, and the form of environments that others expect
    jitted        training that is one jitted function, compiled once for all seeds
    ours, flax_peers, sb3_peers, lerax_peer
                  how each contestant trains a seed; each imports its package, and nothing else does
    worker        one contestant on one task in a process of its own, a line of JSON a seed
    page          the section of `docs/results.md` and its picture
    `__main__`    what is missing in `build/tasks.jsonl` is trained and added, then the page is written

`python -m benchmarks.tasks --cores 2 --purejaxrl FOLDER` trains on so many cores at once, one process on
each. Of PureJaxRL, which is no package, FOLDER is a checkout; `--lerax` names the Python that has Lerax. A
contestant that is not installed is named, on the terminal and on the page.
"""
