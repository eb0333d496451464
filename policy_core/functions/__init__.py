"""The free functions of a policy: initialization, acting, evaluation, sequences and training.

    step       one observation: act, score, evaluate
    sequence   the same along time
    training   what an optimizer may move, and statistics that are learned without one
    describe   the batch axes of a population, and a summary

They know the contract and no implementation.
"""
