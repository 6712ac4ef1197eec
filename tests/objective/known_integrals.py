"""Problems whose log Z is known without sampling, for tests and for benchmarks/log_partition.py."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from honest.objective.consistency import jensen_shannon
from honest.objective.log_partition import LogPartition, estimate
from honest.units import Quantity, nat

CENTRE, STDDEV = 2.0, 0.5  # of every parameter, so that forgetting to whiten would show


class Problem:
    """log_weight of parameters {"a": …, "b": …} = CENTRE + STDDEV·u, a tree of two leaves, and the exact log Z."""

    def __init__(self, dimension, weight_of_u, exact, residuals_of_u=None):
        self.centre = {"a": jnp.full(dimension // 2, CENTRE), "b": jnp.full((dimension - dimension // 2, 1), CENTRE)}
        self.stddev = {"a": jnp.full(dimension // 2, STDDEV), "b": jnp.asarray(STDDEV)}
        self.exact, self.weight_of_u, self.residuals_of_u = exact, weight_of_u, residuals_of_u

    @staticmethod
    def u_of(params):
        return (jnp.concatenate([params["a"], params["b"][:, 0]]) - CENTRE) / STDDEV

    def log_weight(self, params):
        return Quantity(self.weight_of_u(self.u_of(params)), nat)

    def estimate(self, key, method, budget=None) -> LogPartition:
        residuals = (
            None if self.residuals_of_u is None else lambda params: {"r": self.residuals_of_u(self.u_of(params))}
        )
        return estimate(
            self.log_weight, self.centre, self.stddev, key, method=method, budget=budget, residuals=residuals
        )

    def over_seeds(self, method, budget, seeds):
        """log Z, lower, upper, standard error and `reliable` of each seed, one program for all."""
        run = jax.jit(lambda keys: jax.lax.map(lambda key: self.estimate(key, method, budget), keys))
        found = run(jax.random.split(jax.random.key(0), seeds))
        nats = (np.asarray(q.to(nat)) for q in (found.log_z, found.lower, found.upper))
        return (*nats, np.asarray(found.standard_error), np.asarray(found.reliable))


def _eigenvalues(dimension):
    i = np.arange(1, dimension + 1)
    return np.where(i <= dimension // 2, 100 / i, 0.0)


def quadratic(dimension):
    """Eigenvalues 100/i, half of them zero, one prior standard deviation off in every coordinate (design §2)."""
    a = _eigenvalues(dimension)
    exact = float(np.sum(-0.5 * np.log1p(a) - 0.5 * a / (1 + a)))
    root = jnp.asarray(np.sqrt(a), jnp.float32)
    return Problem(
        dimension,
        lambda u: -0.5 * jnp.sum((root * (u - 1.0)) ** 2),
        exact,
        residuals_of_u=lambda u: (root * (u - 1.0))[: dimension // 2],
    )


def bernoulli_heads(inputs, multiplier):
    """Two tabular heads, a logit each an input: w = −λ Σ JS. log Z is a sum of two-dimensional integrals."""
    offset = np.linspace(-2.0, 2.0, inputs)  # how far the heads' centres lie apart
    nodes, weights = special.roots_hermitenorm(120)
    weights = weights / weights.sum()

    def js(a, b):
        p, q = special.expit(a), special.expit(b)
        entropy = lambda p: special.entr(p) + special.entr(1 - p)  # noqa: E731
        return entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2

    def integral(x):
        grid = np.exp(-multiplier * js(nodes[:, None, None] + x, 1.5 * nodes[None, :, None]))
        return np.log(np.einsum("i,j,ijx->x", weights, weights, grid))

    exact = float(sum(np.sum(integral(part)) for part in np.array_split(offset, inputs // 500 + 1)))
    shift = jnp.asarray(offset, jnp.float32)

    def weight(u):
        a, b = u[:inputs] + shift, 1.5 * u[inputs:]
        zero = jnp.zeros(inputs)
        return -multiplier * jnp.sum(jensen_shannon(jnp.stack([a, zero], axis=1), jnp.stack([b, zero], axis=1)))

    return Problem(2 * inputs, weight, exact)


def rotated_tanh(dimension):
    """w = −Σ a_i tanh²(x_i − 1) with x = Ru, a_i as in `quadratic`: bounded, no quadratic, and coupled in u.

    R is two reflections, so x ~ N(0, I) as u is and log Z is a sum of one-dimensional integrals.
    """
    a = _eigenvalues(dimension)[: dimension // 2]
    grid = np.linspace(-12.0, 12.0, 12_001)  # the trapezoid rule converges geometrically here
    density = np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi) * (grid[1] - grid[0])
    exact = float(sum(np.log(density @ np.exp(-a_i * np.tanh(grid - 1.0) ** 2)) for a_i in a))
    strength = jnp.asarray(np.concatenate([a, np.zeros(dimension - a.size)]), jnp.float32)
    normals = np.random.default_rng(0).standard_normal((2, dimension))
    normals = jnp.asarray(normals / np.linalg.norm(normals, axis=1, keepdims=True), jnp.float32)

    def weight(u):
        for normal in normals:
            u = u - 2.0 * normal * (normal @ u)
        return -jnp.sum(strength * jnp.tanh(u - 1.0) ** 2)

    return Problem(dimension, weight, exact)


def hidden_mode(dimension, floor=60.0, sharpness=1000.0, distance=3.0):
    """e^w = e^−floor + a narrow bump that holds nearly all of Z, and to which no gradient points from afar."""
    place = distance / np.sqrt(dimension)
    bump = -0.5 * dimension * np.log1p(sharpness) - 0.5 * sharpness / (1 + sharpness) * distance**2
    exact = float(np.logaddexp(-floor, bump))
    return Problem(dimension, lambda u: jnp.logaddexp(-floor, -0.5 * sharpness * jnp.sum((u - place) ** 2)), exact)
