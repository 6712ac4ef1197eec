"""DivDis (Lee, Yao and Finn, "Diversify and Disambiguate", ICLR 2023, equations 1–3): two heads that agree with the
labels of the source and are statistically independent on the unlabelled target.

    Σ_heads CE(trusted labels) + w_MI · I(y₁; y₂) + w_balance · Σ_heads KL(p̄(y) ‖ label shares of the source)

I is the mutual information of the two heads' predictions over a batch of target rows, p̄(y₁, y₂) = mean_B p₁ p₂ᵀ.
Nothing tells the two heads apart: the paper disambiguates by labels of target rows, which nobody has here, so that they
are reported as an unordered pair.
"""

import jax
import jax.numpy as jnp
import numpy as np

from honest.baselines.method import HeadRows, Method, Penalty, PenaltyContext, unordered
from honest.data.batch import Splits
from honest.model.two_head import HeadLogits
from honest.units import Quantity, example, nat


def rows(splits: Splits, _supervision: str) -> HeadRows:
    """Target: the untrusted rows; their labels are not used."""
    return HeadRows(intended=splits.trusted, instrumental=splits.trusted, target=splits.untrusted, compared=True)


def mutual_information(log_p_BxK: jax.Array, log_q_BxK: jax.Array) -> jax.Array:
    """I(y₁; y₂) in nat of the batch's mean joint distribution."""
    joint_KxK = jnp.einsum("bi,bj->ij", jnp.exp(log_p_BxK), jnp.exp(log_q_BxK)) / log_p_BxK.shape[0]
    independent_KxK = jnp.sum(joint_KxK, axis=1, keepdims=True) * jnp.sum(joint_KxK, axis=0, keepdims=True)
    return jnp.sum(jax.scipy.special.rel_entr(joint_KxK, independent_KxK))


def imbalance(log_p_BxK: jax.Array, shares_K: jax.Array) -> jax.Array:
    """KL(mean prediction ‖ shares) in nat."""
    return jnp.sum(jax.scipy.special.rel_entr(jnp.mean(jnp.exp(log_p_BxK), axis=0), shares_K))


def penalty(context: PenaltyContext) -> Penalty:
    settings = context.settings.divdis
    counts_K = np.bincount(np.asarray(context.rows.intended.label_B))
    shares = tuple((counts_K / counts_K.sum()).tolist())

    def loss(logits: HeadLogits, _label_B: jax.Array, _step: jax.Array) -> Quantity:
        log_p_BxK, log_q_BxK = (jax.nn.log_softmax(x) for x in logits)
        shares_K = jnp.asarray(shares, log_p_BxK.dtype)
        independence = settings.mutual_information * mutual_information(log_p_BxK, log_q_BxK)
        balance = settings.balance * (imbalance(log_p_BxK, shares_K) + imbalance(log_q_BxK, shares_K))
        return Quantity(independence + balance, nat / example)

    return loss


METHOD = Method("divdis", unordered("DivDis"), rows, penalty)
