"""How far the two heads are apart: on the rows of an evaluation, and in their parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import spearmanr

from honest.config import GROUP_UNITS
from honest.data.batch import Evaluation
from honest.model.two_head import HeadLogits
from honest.objective.consistency import jensen_shannon
from honest.params import Params, head_cosine, head_distance

ACCEPT = 1  # index of the answer True


def row_sets(evaluation: Evaluation) -> dict[str, np.ndarray]:
    """Masks of the rows that are reported apart, bool[B]."""
    trusted_B, fooled_B = np.asarray(evaluation.trusted_B), np.asarray(evaluation.fooled_B)
    return {"trusted": trusted_B, "fooled": fooled_B, "all": np.ones_like(trusted_B)}


def row_divergences(logits: HeadLogits) -> np.ndarray:
    """Jensen–Shannon divergence of each row in nat, float64[B]."""
    return np.asarray(
        jensen_shannon(jnp.asarray(logits.intended_BxK), jnp.asarray(logits.instrumental_BxK)), np.float64
    )


def divergence_scalars(logits: HeadLogits, evaluation: Evaluation) -> dict[str, float]:
    """Mean Jensen–Shannon divergence (nat), share of rows answered differently, and rank correlation of the log-odds
    of True, by row set; sets without rows are left out, and a correlation where a head's logits are constant."""
    nats_B = row_divergences(logits)
    a_BxK, b_BxK = np.asarray(logits.intended_BxK), np.asarray(logits.instrumental_BxK)
    differ_B = a_BxK.argmax(1) != b_BxK.argmax(1)
    odds = [x[:, ACCEPT] - np.delete(x, ACCEPT, axis=1).max(1) for x in (a_BxK, b_BxK)]
    scalars = {}
    for name, rows_B in row_sets(evaluation).items():
        if not rows_B.any():
            continue
        scalars[f"divergence/jensen_shannon_{name}"] = float(nats_B[rows_B].mean())
        scalars[f"divergence/disagreement_{name}"] = float(differ_B[rows_B].mean())
        if all(np.ptp(x[rows_B]) > 0 for x in odds):
            correlation = spearmanr(odds[0][rows_B], odds[1][rows_B]).statistic
            scalars[f"divergence/rank_correlation_{name}"] = float(correlation)
    return scalars


def divergence_histograms(logits: HeadLogits, evaluation: Evaluation) -> dict[str, np.ndarray]:
    """Per-row Jensen–Shannon divergence (nat) by row set."""
    nats_B = row_divergences(logits)
    return {f"divergence/rows_{name}": nats_B[rows_B] for name, rows_B in row_sets(evaluation).items() if rows_B.any()}


def parameter_scalars(params: Params) -> dict[str, float]:
    """Distance between the heads in θ.head, and the cosine of their parameter vectors."""
    distance = head_distance(params).to(GROUP_UNITS["intended_head"])
    values: dict[str, Any] = {
        "divergence/head_distance_theta": distance,
        "divergence/head_cosine": head_cosine(params),
    }
    return {tag: float(value) for tag, value in jax.device_get(values).items()}
