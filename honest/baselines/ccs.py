"""Contrast-consistent search (Burns, Ye, Klein and Steinhardt 2022, equations 1–3): an unsupervised direction.

    mean [p⁺ − (1 − p⁻)]² + mean min(p⁺, p⁻)²,     p± = σ(wᵀ x± + b)

x⁺ and x⁻ are the features after the answers True and False, each standardised on its own, so that which answer was
appended cannot be read off. Fitted to trusted and untrusted rows without labels, from `restarts` random starts, of
which the one with the least loss is kept; the answer is p = ½(p⁺ + 1 − p⁻). Its sign is fixed on trusted rows, never on
rows where the person is fooled.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from honest.baselines.probe import Features, Fitted, Probe, ProbeRows, Scale
from honest.config import ProbesConfig

EDGE = 1e-12  # probabilities are kept so far from 0 and 1


def loss(parameters: np.ndarray, true_BxD: np.ndarray, false_BxD: np.ndarray) -> tuple[float, np.ndarray]:
    """The loss above and its gradient in (w, b)."""
    weight_D, bias = parameters[:-1], parameters[-1]
    p_B, q_B = expit(true_BxD @ weight_D + bias), expit(false_BxD @ weight_D + bias)
    inconsistent_B, least_B = p_B + q_B - 1, np.minimum(p_B, q_B)
    by_p_B = 2 * inconsistent_B + 2 * least_B * (p_B <= q_B)
    by_q_B = 2 * inconsistent_B + 2 * least_B * (p_B > q_B)
    by_z_B, by_y_B = by_p_B * p_B * (1 - p_B) / len(p_B), by_q_B * q_B * (1 - q_B) / len(q_B)
    gradient_D = true_BxD.T @ by_z_B + false_BxD.T @ by_y_B
    return float(np.mean(inconsistent_B**2 + least_B**2)), np.append(gradient_D, by_z_B.sum() + by_y_B.sum())


def fit(rows: ProbeRows, settings: ProbesConfig, rng: np.random.Generator) -> Fitted:
    parts = (rows.trusted, rows.untrusted)
    true_BxD = np.concatenate([part.true_BxD for part in parts if part.true_BxD is not None])
    false_BxD = np.concatenate([part.false_BxD for part in parts if part.false_BxD is not None])
    true_scale, false_scale = Scale.of(true_BxD), Scale.of(false_BxD)
    pairs = true_scale(true_BxD), false_scale(false_BxD)
    starts = rng.normal(size=(settings.restarts, true_BxD.shape[1] + 1)) / np.sqrt(true_BxD.shape[1])
    found = [minimize(loss, start, args=pairs, jac=True, method="L-BFGS-B") for start in starts]
    best = min(found, key=lambda result: result.fun).x

    def unsigned(features: Features) -> np.ndarray:
        assert features.true_BxD is not None and features.false_BxD is not None, "the config refuses such a probe"
        p_B = expit(true_scale(features.true_BxD) @ best[:-1] + best[-1])
        q_B = expit(false_scale(features.false_BxD) @ best[:-1] + best[-1])
        return logit(np.clip((p_B + 1 - q_B) / 2, EDGE, 1 - EDGE))

    right = np.mean((unsigned(rows.trusted) > 0) == (rows.label_N == 1))
    sign = 1.0 if right >= 0.5 else -1.0
    return lambda features: sign * unsigned(features)


PROBE = Probe("ccs", "probe: CCS", pairs=True, fit=fit)
