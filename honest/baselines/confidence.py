"""The confidence loss of weak-to-strong generalisation (Burns et al. 2023, equation 1 and appendix A.4): one head that
is taught by the person on *all* training rows, and is allowed to believe itself where it is confident.

    (1 − α) CE(f, person's labels) + α CE(f, f̂),   f̂ = [logit of True > t]

f̂ is the head's own answer, hardened and held constant; the threshold t is that at which f̂ says True on as many rows of
the batch as the person does. α grows linearly from 0 to `weight` over the first `warmup_share` of the steps.
"""

import jax
import jax.numpy as jnp

from honest.baselines.method import HeadRows, Method, Penalty, PenaltyContext, one_line
from honest.data.batch import ACCEPT, Splits, concatenate
from honest.model.two_head import HeadLogits
from honest.objective.data_loss import label_nll, log_odds
from honest.units import Quantity, example, mean


def rows(splits: Splits, _supervision: str) -> HeadRows:
    """The person is the weak supervisor, on trusted and untrusted rows alike."""
    everything = concatenate(splits.trusted, splits.untrusted)
    return HeadRows(intended=everything, instrumental=None, target=everything)


def hardened(logits_Bx2: jax.Array, label_B: jax.Array) -> jax.Array:
    """int32[B]: True on the rows of the largest log-odds, on as many of them as are labelled True."""
    rank_B = jnp.argsort(jnp.argsort(-log_odds(logits_Bx2)))
    return (rank_B < jnp.sum(label_B == ACCEPT)).astype(jnp.int32)


def penalty(context: PenaltyContext) -> Penalty:
    """α (CE(f, f̂) − CE(f, label)): the data term has CE(f, label) of the same set with weight 1.

    Of the set, not of the batch: every set walks its own permutation, so that in a step the two are of different rows.
    The loss is that of the paper in the mean, with more noise.
    """
    settings = context.settings.confidence
    warmup = max(1.0, settings.warmup_share * context.steps)

    def loss(logits: HeadLogits, label_B: jax.Array, step: jax.Array) -> Quantity:
        alpha = settings.weight * jnp.minimum(step / warmup, 1.0).astype(logits.intended_BxK.dtype)
        own_B = jax.lax.stop_gradient(hardened(logits.intended_BxK, label_B))
        gain_B = label_nll(logits.intended_BxK, own_B) - label_nll(logits.intended_BxK, label_B)
        return alpha * mean(gain_B, per=example)

    return loss


METHOD = Method("confidence", one_line("confidence loss"), rows, penalty)
