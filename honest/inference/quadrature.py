"""The exact posterior of a continuous world: a grid over the heads, one-dimensional integrals over each belief.

    posterior of the heads   ∝ N(w) Z_D(w)/Z(w)          without log Z: ∝ N(w) Z_D(w)
    Z = ∏_j Z_j^copies,   Z_j(w) = ∫ N(θ) e^{−λ JS} dθ,   Z_D alike with the labels' probabilities

Expectations of the ledger's rows are those of the draws (w, θ) that a perfect sampler would make. The grid is laid
twice: coarsely over ±6 σ1, then, twice as fine, around where a posterior is.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp as _logsumexp
from scipy import ndimage

from honest.inference.joint import Joint
from honest.inference.ledger import Account, Ledger
from honest.objective.log_partition.moves import whitened_energy

COARSE = (1, 129, 65, 25, 17)  # nodes in each of 0 to 4 dimensions; the fine grid halves their distance
REACH = 6.0  # of both grids, in σ1
NEGLIGIBLE = 16.0  # nat below the top: no fine nodes around there
CHUNK = 2048


class Exact(NamedTuple):
    """account: the posterior's. Its answers: probability that the intended head says yes at each kind's inputs; its
    error: |log evidence − the same from the coarse grid|, in nat, far larger than the true error as a rule, since the
    trapezoid rule converges exponentially. bits_recovered: E[−log2 Z].
    """

    account: Account
    bits_recovered: float


class Moments(NamedTuple):
    """At one w: log Z and log Z_D in nat; given w and the data, means of ½|u_trunk|², −λ N_c C̄, −data, answers."""

    log_z: jax.Array
    log_z_data: jax.Array
    second_prior: jax.Array
    consistency: jax.Array
    data: jax.Array
    answers_B: jax.Array


def moments(joint: Joint, w_4: jax.Array) -> Moments:
    agreement_KxJ, data_KxJ, logits = joint.node_costs(w_4)
    log_node_Kx1 = joint.log_node_K[:, None]
    log_z_J = _logsumexp(log_node_Kx1 - agreement_KxJ, axis=0)
    log_weight_KxJ = log_node_Kx1 - agreement_KxJ - data_KxJ
    log_z_data_J = _logsumexp(log_weight_KxJ, axis=0)
    p_KxJ = jnp.exp(log_weight_KxJ - log_z_data_J)
    each = lambda value_KxJ: joint.copies_J @ jnp.sum(p_KxJ * value_KxJ, axis=0)  # noqa: E731
    yes_KxB = jax.nn.sigmoid(logits.intended_BxK[..., 1])
    return Moments(
        log_z=joint.copies_J @ log_z_J,
        log_z_data=joint.copies_J @ log_z_data_J,
        second_prior=-each(0.5 * joint.nodes_K[:, None] ** 2),
        consistency=-each(agreement_KxJ),
        data=-each(data_KxJ),
        answers_B=jnp.sum(p_KxJ[:, joint.kinds.belief_B] * yes_KxB, axis=0),
    )


def exact(joint: Joint) -> tuple[Exact, Exact]:
    """(with log Z, without), in the precision of the process: float64 for the digits to mean anything."""
    run = jax.jit(lambda u_PxA: jax.lax.map(lambda u: moments(joint, joint.weights(u)), u_PxA, batch_size=CHUNK))

    def at(u_PxA: np.ndarray) -> Moments:
        return jax.device_get(run(jnp.asarray(u_PxA)))

    free = len(joint.free)
    coarse_PxA, step = grid(COARSE[free], free)
    coarse = at(coarse_PxA)
    densities = [_log_density(coarse_PxA, coarse, with_z) for with_z in (True, False)]
    there_P = np.any([density > np.max(density) - NEGLIGIBLE for density in densities], axis=0)
    fine_PxA, _ = grid(2 * COARSE[free] - 1, free)
    fine_PxA = fine_PxA[around(there_P, free)]
    fine = at(fine_PxA)
    nodes = len(joint.nodes_K) * (len(coarse_PxA) + len(fine_PxA))
    with_z, without = (
        _summary(fine_PxA, fine, (step / 2) ** free, with_z, _log_sum(density, step**free), nodes)
        for with_z, density in zip((True, False), densities)
    )
    return with_z, without


def grid(nodes: int, dimensions: int) -> tuple[np.ndarray, float]:
    """Every point, (nodes^A, A), and the distance of nodes; one empty point where all weights are planted."""
    if not dimensions:
        return np.zeros((1, 0)), 1.0
    axis = np.linspace(-REACH, REACH, nodes)
    points = np.stack(np.meshgrid(*[axis] * dimensions, indexing="ij"), axis=-1)
    return points.reshape(-1, dimensions), float(axis[1] - axis[0])


def around(there_P: np.ndarray, dimensions: int) -> np.ndarray:
    """Which fine nodes lie within a coarse step of a coarse node that is there."""
    if not dimensions:
        return there_P
    nodes = COARSE[dimensions]
    wide = ndimage.maximum_filter(there_P.reshape((nodes,) * dimensions), size=3)
    nearest = np.arange(2 * nodes - 1) // 2
    return wide[np.ix_(*[nearest] * dimensions)].ravel()


def _log_density(u_PxA: np.ndarray, found: Moments, with_z: bool) -> np.ndarray:
    """log N(u) + log Z_D (− log Z) of each point."""
    prior_P = -0.5 * np.sum(u_PxA**2, axis=1) - 0.5 * u_PxA.shape[1] * np.log(2 * np.pi)
    return prior_P + found.log_z_data - (found.log_z if with_z else 0.0)


def _log_sum(log_density_P: np.ndarray, cell: float) -> float:
    return float(np.logaddexp.reduce(log_density_P) + np.log(cell))


def _summary(
    u_PxA: np.ndarray, found: Moments, cell: float, with_z: bool, coarse_log_evidence: float, evaluations: int
) -> Exact:
    log_density_P = _log_density(u_PxA, found, with_z)
    log_evidence = _log_sum(log_density_P, cell)
    p_P = np.exp(log_density_P + np.log(cell) - log_evidence)
    log_z = float(p_P @ found.log_z)
    ledger = Ledger(
        data=float(p_P @ found.data),
        first_prior=-0.5 * float(p_P @ np.sum(u_PxA**2, axis=1)),
        second_prior=float(p_P @ found.second_prior),
        consistency=float(p_P @ found.consistency),
        log_partition=-log_z if with_z else 0.0,
    )
    error = abs(log_evidence - coarse_log_evidence)
    return Exact(Account(ledger, log_evidence, error, p_P @ found.answers_B, evaluations), -log_z / math.log(2))


def stage_one(joint: Joint, u_A: jax.Array, *, log_partition: bool) -> jax.Array:
    """What the heads climb: log Z_D − log Z − ½|u_heads|² in nat (notes/objective.md §5), exactly."""
    found = moments(joint, joint.weights(u_A))
    return found.log_z_data - (found.log_z if log_partition else 0.0) - whitened_energy(u_A)
