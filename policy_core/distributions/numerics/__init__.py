"""Numerics of the distributions: pure functions, accurate to float32.

common                sums over an event, the log-probability of a masked action
categorical           masked categoricals over the trailing axis
categorical_sampling  sampling them with one random number, in integers
tanh_normal           log-determinant and entropy of a squashed normal
beta, beta_kl         the Beta distribution in log-odds
beta_sampling         sampling it
"""
