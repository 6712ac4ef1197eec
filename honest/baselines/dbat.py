"""D-BAT (Pagliardini et al., "Agree to Disagree", ICLR 2023, equation 2): a second head that fits the labels too and
contradicts the first one on the unlabelled target.

    CE₁(trusted labels) + CE₂(trusted labels) − w · mean_target log P(y₁ ≠ y₂),   P(y₁ ≠ y₂) = Σ_{a≠b} p₁(a) p₂(b)

The first head feels its own cross-entropy alone (a stop-gradient), as in the paper, where it is trained before the
second one. Which head is which is known without any truth label, so they are reported by name and each competes with
other methods; that the second one is the honest one is a hope, which holds where untrusted rows have two readings.
"""

import jax
import jax.numpy as jnp

from honest.baselines.divdis import rows
from honest.baselines.method import Method, Penalty, PenaltyContext
from honest.model.two_head import HeadLogits
from honest.units import Quantity, example, nat


def agreement_nll(first_BxK: jax.Array, second_BxK: jax.Array) -> jax.Array:
    """−log P(y₁ ≠ y₂) of each row in nat, from logits, in log space."""
    log_p_BxKxK = jax.nn.log_softmax(first_BxK)[:, :, None] + jax.nn.log_softmax(second_BxK)[:, None, :]
    same_KxK = jnp.eye(first_BxK.shape[1], dtype=bool)
    return -jax.scipy.special.logsumexp(jnp.where(same_KxK[None], -jnp.inf, log_p_BxKxK), axis=(1, 2))


def penalty(context: PenaltyContext) -> Penalty:
    weight = context.settings.dbat.disagreement

    def loss(logits: HeadLogits, _label_B: jax.Array, _step: jax.Array) -> Quantity:
        first_BxK = jax.lax.stop_gradient(logits.intended_BxK)
        return Quantity(weight * jnp.mean(agreement_nll(first_BxK, logits.instrumental_BxK)), nat / example)

    return loss


METHOD = Method("dbat", lambda _pair: ("D-BAT: base head", "D-BAT: contradicting head"), rows, penalty)
