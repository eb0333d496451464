"""Numerics of the distributions: pure functions, right to float32, without a class.

common                the sum over an event, the log-probability of what is masked
categorical           masked categoricals over the trailing axis
categorical_sampling  their draws, by one uniform number
tanh_normal           log-determinant and entropy of a squashed normal
beta, beta_kl         the Beta distribution by log-odds
beta_sampling         its draws
"""
