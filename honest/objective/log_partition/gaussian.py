"""Closed forms: what log Z is if w is a quadratic in u, and how near that is (first and fourth rung).

    w = w₀ + gᵀu − ½ uᵀHu       log Z = w₀ + ½ gᵀ(I + H)⁻¹g − ½ log|I + H|              exact_quadratic, at u = 0
    w = −½ |b + Au|²            log Z = −½ bᵀ(I + AAᵀ)⁻¹b − ½ log|I + AAᵀ|              gram, A = ∂r/∂u at u = 0
    any w, at its mode u*       log Z ≈ w(u*) − ½|u*|² − ½ log|I + H(u*)|               laplace

The first two are exact for what they assume and say whether it holds: predicted and true w are compared at a few draws
from the prior and from the Gaussian that the form makes of exp(w) N(0, I), where its own mass lies. A w that departs
from the form in a region that neither reaches is not seen. Laplace is biased wherever w is not a quadratic (design §2:
3–5 % of log Z in strongly coupled cases), and offers no bound.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from matfree import decomp, funm, stochtrace

from honest.objective.log_partition.mode import find_mode
from honest.objective.log_partition.problem import Problem
from honest.objective.log_partition.result import LogPartition, log_partition

MOST_DIMENSIONS = 1024  # of a dense Hessian
MOST_RESIDUALS = 4096  # of a Gram matrix
CHECKS = 16  # draws of either Gaussian at which the assumed form is compared with w
LANCZOS_STEPS, PROBES = 32, 16
MODE_SHARE = 0.5  # of the budget


def exact_quadratic(problem: Problem, key: jax.Array, budget: int) -> LogPartition:
    """The closed form of a quadratic w; not reliable, and without bounds, where w is not one. Jittable.

    Costs D Hessian-vector products whatever the budget; memory D². ValueError: more than 1,024 dimensions.
    """
    del budget
    if problem.dimension > MOST_DIMENSIONS:
        raise ValueError(
            f"exact_quadratic holds a dense Hessian: {problem.dimension} dimensions are more than {MOST_DIMENSIONS}; "
            "give residuals for gram, or use ais"
        )
    zero_D = jnp.zeros(problem.dimension, problem.dtype)
    constant, gradient_D = problem.value_and_grad(zero_D)
    bowl_DxD = -jax.hessian(problem.weight)(zero_D)
    precision_DxD = jnp.eye(problem.dimension, dtype=problem.dtype) + bowl_DxD
    mean_D = jnp.linalg.solve(precision_DxD, gradient_D)
    value = constant + 0.5 * gradient_D @ mean_D - 0.5 * jnp.linalg.slogdet(precision_DxD)[1]
    form = lambda u_D: constant + gradient_D @ u_D - 0.5 * u_D @ (bowl_DxD @ u_D)  # noqa: E731
    prior_NxD = jax.random.normal(key, (CHECKS, problem.dimension), problem.dtype)
    # u = m + L⁻ᵀz has precision LLᵀ. NaN, and the check fails, where I + H is not positive.
    root_DxD = jnp.linalg.cholesky(precision_DxD)
    tilted_NxD = mean_D + jax.scipy.linalg.solve_triangular(root_DxD, prior_NxD.T, lower=True, trans="T").T
    return _checked("exact_quadratic", problem, prior_NxD, tilted_NxD, value, form, "w is a quadratic where checked")


def gram(problem: Problem, key: jax.Array, budget: int) -> LogPartition:
    """The closed form of linear residuals; a Gauss–Newton value at the centre, without bounds, where they are not.

    Jittable. Costs n gradients whatever the budget; memory n·D. ValueError: no residuals, or more than 4,096.
    """
    del budget
    residuals = problem.residuals
    if residuals is None:
        raise ValueError("gram needs residuals: a function of the parameters with w ≈ −½ |residuals|²")
    zero_D = jnp.zeros(problem.dimension, problem.dtype)
    b_n = residuals(zero_D)
    if b_n.shape[0] > MOST_RESIDUALS:
        raise ValueError(f"gram holds an n × n matrix: {b_n.shape[0]} residuals are more than {MOST_RESIDUALS}")
    a_nxD = jax.jacrev(residuals)(zero_D)
    gram_nxn = jnp.eye(b_n.shape[0], dtype=problem.dtype) + a_nxD @ a_nxD.T
    value = -0.5 * b_n @ jnp.linalg.solve(gram_nxn, b_n) - 0.5 * jnp.linalg.slogdet(gram_nxn)[1]
    form = lambda u_D: -0.5 * jnp.sum((b_n + a_nxD @ u_D) ** 2)  # noqa: E731
    prior_key, noise_key = jax.random.split(key)
    prior_NxD = jax.random.normal(prior_key, (CHECKS, problem.dimension), problem.dtype)
    noise_Nxn = jax.random.normal(noise_key, (CHECKS, b_n.shape[0]), problem.dtype)
    # Matheron's rule: a prior draw, corrected for how far its noisy residuals are from 0.
    misfit_Nxn = prior_NxD @ a_nxD.T + b_n + noise_Nxn
    tilted_NxD = prior_NxD - jnp.linalg.solve(gram_nxn, misfit_Nxn.T).T @ a_nxD
    return _checked("gram", problem, prior_NxD, tilted_NxD, value, form, "w is −½|r|², r linear, where checked")


def _checked(
    method: str,
    problem: Problem,
    prior_NxD: jax.Array,
    tilted_NxD: jax.Array,
    value: jax.Array,
    form: Callable[[jax.Array], jax.Array],
    why: str,
) -> LogPartition:
    """Bounds a rounding error wide where `form` is w at every draw; else none."""
    draws = jnp.concatenate([jnp.zeros((1, problem.dimension), problem.dtype), prior_NxD, tilted_NxD])
    true_n, assumed_n = jax.vmap(problem.weight)(draws), jax.vmap(form)(draws)
    # Of each draw, so that the far larger w of the prior's draws does not excuse an error where the mass lies.
    rounding_n = 100 * jnp.finfo(problem.dtype).eps * (1.0 + jnp.abs(true_n) + jnp.abs(true_n[0]))
    holds, rounding = jnp.all(jnp.abs(true_n - assumed_n) <= rounding_n), jnp.max(rounding_n)
    return log_partition(
        method,
        value,
        jnp.where(holds, value - rounding, -jnp.inf),
        jnp.where(holds, value + rounding, 0.0),
        standard_error=jnp.where(holds, 0.0, jnp.nan),
        ess=jnp.nan,
        # Tilted draws are NaN where the form has no Gaussian; that is no fault of w.
        highest=jnp.maximum(jnp.max(true_n[: 1 + CHECKS]), jnp.nanmax(true_n)),
        why=f"{why}; no bounds where it is not",
    )


def laplace(problem: Problem, key: jax.Array, budget: int) -> LogPartition:
    """A Gaussian at the mode. Biased, without bounds, never reliable. Jittable; memory 32 positions.

    The log determinant is dense up to 1,024 dimensions; beyond, by stochastic Lanczos quadrature (matfree), with the
    probes' standard error. NaN or infinite where I + H is not positive at the point found.
    """
    mode_D = find_mode(problem, max(int(MODE_SHARE * budget), 1))
    gradient = jax.grad(problem.energy)

    def precision(v_D: jax.Array) -> jax.Array:
        return jax.jvp(gradient, (mode_D,), (v_D,))[1]

    if problem.dimension <= MOST_DIMENSIONS:
        dense = jax.vmap(precision)(jnp.eye(problem.dimension, dtype=problem.dtype))
        log_determinant, error = 2 * jnp.sum(jnp.log(jnp.diagonal(jnp.linalg.cholesky(dense)))), jnp.zeros(())
        how = "dense Hessian"
    else:
        # Without reorthogonalisation: full would lose nothing in value and cost D·k² (design §2).
        integrand = funm.monte_carlo_funm_sym_logdet(decomp.tridiag_sym(LANCZOS_STEPS, reortho="none"))
        probes = stochtrace.sampler_signs(mode_D, num=PROBES)
        log_determinant, error = stochtrace.estimator_monte_carlo_mean_and_sem(integrand, probes)(precision, key)
        how = f"{PROBES} probes of {LANCZOS_STEPS} Lanczos steps"
    return log_partition(
        "laplace",
        -problem.energy(mode_D) - 0.5 * log_determinant,
        -jnp.inf,
        0.0,
        standard_error=0.5 * error,
        ess=jnp.nan,
        highest=problem.weight(mode_D),
        why=f"a Gaussian at the mode, {how}: biased, no bounds",
    )
