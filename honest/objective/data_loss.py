"""The data term: −Σ nll over labels and world tokens, each label paid for once (design §2).

The intended head explains the labels of trusted rows, the instrumental head the person's answers on untrusted rows,
the trunk's readout the world tokens. Axes: B rows, L positions, T target channels, K answers, V classes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from honest.data.batch import ACCEPT
from honest.objective.predictions import (
    WHOLE,
    Counts,
    Part,
    Predictions,
    Predictor,
    Rows,
    RowSets,
    Share,
    size,
    sum_over_rows,
)
from honest.params import Params
from honest.units import Quantity, Unit, example, mean, nat, term, token, total


def label_nll(logits_BxK: jax.Array, label_B: jax.Array) -> Quantity:
    """−log p(label) of each row in nat, shape (B,); 0 where the label is −1 (unlabelled or padding)."""
    log_p_BxK = jax.nn.log_softmax(logits_BxK)
    chosen_B = jnp.take_along_axis(log_p_BxK, jnp.maximum(label_B, 0)[:, None], axis=1)[:, 0]
    return Quantity(jnp.where(label_B >= 0, -chosen_B, 0.0), nat)


def comparison_nll(better_BxK: jax.Array, worse_BxK: jax.Array) -> Quantity:
    """−log σ(z_better − z_worse) of each pair in nat, shape (B,): Bradley and Terry (1952), z the log-odds of True."""
    return Quantity(jax.nn.softplus(log_odds(worse_BxK) - log_odds(better_BxK)), nat)


def log_odds(logits_BxK: jax.Array) -> jax.Array:
    """Of the answer with index 1, True, against all others, in nat, shape (B,)."""
    log_p_BxK = jax.nn.log_softmax(logits_BxK)
    others = jnp.arange(logits_BxK.shape[-1]) != ACCEPT
    rest_B = jax.scipy.special.logsumexp(jnp.where(others, log_p_BxK, -jnp.inf), axis=-1)
    return log_p_BxK[..., ACCEPT] - rest_B


def world_nll(logits_BxLxTxV: jax.Array, targets_BxLxT: jax.Array) -> Quantity:
    """−log p(target) of each world token in nat, shape (B, L, T); 0 where the target is −1 (no token there).

    As logsumexp − logit of the target: the log-probabilities of all V classes are never written out.
    """
    index_BxLxTx1 = jnp.maximum(targets_BxLxT, 0)[..., None]
    chosen_BxLxT = jnp.take_along_axis(logits_BxLxTxV, index_BxLxTx1, axis=-1)[..., 0]
    nll_BxLxT = jax.nn.logsumexp(logits_BxLxTxV, axis=-1) - chosen_BxLxT
    return Quantity(jnp.where(targets_BxLxT >= 0, nll_BxLxT, 0.0), nat)


def batch_rate(nll: Quantity, per: Unit, where: jax.Array | None, share: Share | None) -> Quantity:
    """Mean of `nll`, leading axis B, over the batch where `where` holds, in nat/per; of a part, its share of that mean.

    Parts' shares add up to the whole batch's mean: they are divided by the whole batch's number of labels.
    """
    if share is None:
        return mean(nll, per=per, where=where)
    real = share.real_B.reshape(-1, *(1 for _ in nll.shape[1:]))
    return total(nll, where=real if where is None else where & real) / Quantity(share.labels, per)


def data_nats(predictions: Predictions, sets: RowSets, counts: Counts, part: Part = WHOLE) -> dict[str, Quantity]:
    """Whole-set negative log-likelihoods by the group that pays, in nat, estimated from the rows of `sets`.

    N · mean: example · nat/example for labels, token · nat/token for world data. Where `sets` holds the whole
    populations this is the exact sum. part: what `sets` is of its batch; the parts' estimates add up to the batch's.
    """
    nats: dict[str, Quantity] = {}
    if sets.trusted is not None and predictions.trusted is not None:
        with term("data.intended_head"):
            nll_B = label_nll(predictions.trusted.intended_BxK, sets.trusted.label_B)
            rate = batch_rate(nll_B, example, sets.trusted.label_B >= 0, part.trusted)
            nats["intended_head"] = rate * Quantity(counts.trusted, example)
    if sets.untrusted is not None and predictions.untrusted is not None:
        with term("data.instrumental_head"):
            nll_B = label_nll(predictions.untrusted.instrumental_BxK, sets.untrusted.label_B)
            rate = batch_rate(nll_B, example, sets.untrusted.label_B >= 0, part.untrusted)
            nats["instrumental_head"] = rate * Quantity(counts.untrusted, example)
    if predictions.compared is not None:
        with term("data.comparisons"):
            better, worse = predictions.compared
            nll_B = comparison_nll(better.intended_BxK, worse.intended_BxK)
            nats["comparisons"] = batch_rate(nll_B, example, None, part.compared) * Quantity(counts.compared, example)
    if sets.world is not None and predictions.world is not None:
        with term("data.trunk"):
            targets_BxLxT = sets.world.world_targets_BxLxT
            rate = batch_rate(world_nll(predictions.world, targets_BxLxT), token, targets_BxLxT >= 0, part.world)
            nats["trunk"] = rate * Quantity(counts.world_tokens, token)
    return nats


def labels_in(sets: RowSets) -> dict[str, jax.Array | int]:
    """How many labels, world tokens and pairs the rows of `sets` have, by set: what `data_nats` takes means over."""
    found: dict[str, jax.Array | int] = {}
    if sets.trusted is not None:
        found["trusted"] = jnp.sum(sets.trusted.label_B >= 0)
    if sets.untrusted is not None:
        found["untrusted"] = jnp.sum(sets.untrusted.label_B >= 0)
    if sets.world is not None:
        found["world"] = jnp.sum(sets.world.world_targets_BxLxT >= 0)
    if sets.compared is not None:
        found["compared"] = size(sets.compared)
    return found


def whole_data_nats(predictor: Predictor, params: Params, sets: RowSets, chunk: int) -> dict[str, Quantity]:
    """Exact −Σ nll over the whole populations in `sets` by the group that pays, in nat, `chunk` rows at a time."""
    zero = Quantity(jnp.zeros((), jax.tree.leaves(params)[0].dtype), nat)

    def trusted(rows: Rows, real_B: jax.Array) -> Quantity:
        logits = predictor.head_logits(params, rows)
        return total(label_nll(logits.intended_BxK, jnp.where(real_B, rows.label_B, -1)))

    def untrusted(rows: Rows, real_B: jax.Array) -> Quantity:
        logits = predictor.head_logits(params, rows)
        return total(label_nll(logits.instrumental_BxK, jnp.where(real_B, rows.label_B, -1)))

    def world(rows: Rows, real_B: jax.Array) -> Quantity:
        targets_BxLxT = jnp.where(real_B[:, None, None], rows.world_targets_BxLxT, -1)
        return total(world_nll(predictor.world_logits(params, rows), targets_BxLxT))

    def comparisons(pairs: Rows, real_B: jax.Array) -> Quantity:
        better, worse = (predictor.head_logits(params, rows).intended_BxK for rows in pairs)
        return total(comparison_nll(better, worse), where=real_B)

    parts = {
        "intended_head": (sets.trusted, trusted),
        "instrumental_head": (sets.untrusted, untrusted),
        "comparisons": (sets.compared, comparisons),
        "trunk": (sets.world, world),
    }
    return {
        group: sum_over_rows(total_of, rows, chunk, zero)
        for group, (rows, total_of) in parts.items()
        if rows is not None
    }
