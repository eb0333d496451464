"""Policies in other people's trainers, a module for each. Nothing of a trainer is imported before it is used.

    purejaxrl   `ActorCritic` and `ActorCriticRNN` in the place of its networks
    rejax       `agent`: the actor and the critic of its PPO
    brax        `network_factory` of its PPO
    lerax       `ActorCriticPolicy`, an `AbstractActorCriticPolicy`

What they share is in `common`: leading axes, the kind of action, two optimizers for one policy.
"""
