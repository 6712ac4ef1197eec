"""`estimate`: log Z by a named method, or by the ladder of design §2, which its own diagnostics climb."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp

from honest.objective.log_partition.bidirectional import ais
from honest.objective.log_partition.gaussian import MOST_DIMENSIONS, MOST_RESIDUALS, exact_quadratic, gram, laplace
from honest.objective.log_partition.importance import importance
from honest.objective.log_partition.problem import LogWeight, Problem, Residuals, Tree, whiten_problem
from honest.objective.log_partition.result import ABOVE_ZERO_NATS, LogPartition, Rung, after
from honest.objective.log_partition.smc import smc
from honest.objective.log_partition.thermodynamic import thermodynamic

DEFAULT_BUDGET = 50_000  # gradient evaluations
LEAST_SHARE = 0.4  # of the draws that importance sampling has to keep as its effective size
IMPORTANCE_SHARE, SMC_SHARE = 0.04, 0.36  # of the budget, in `auto`
AUTO = "auto"
METHODS: dict[str, Callable[[Problem, jax.Array, int], LogPartition]] = {
    "exact_quadratic": exact_quadratic,
    "gram": gram,
    "importance": importance,
    "ais": ais,
    "smc": smc,
    "thermodynamic": thermodynamic,
    "laplace": laplace,
}


def estimate(
    log_weight: LogWeight,
    centre: Tree,
    stddev: Tree,
    key: jax.Array,
    *,
    method: str = AUTO,
    budget: int | None = None,
    residuals: Residuals | None = None,
) -> LogPartition:
    """log Z = log E_{θ ~ N(centre, stddev²)} [exp log_weight(θ)] in nat, with bounds from both sides (design §2).

    log_weight: parameters -> −λ N_c C̄ in nat, a scalar Quantity, at most 0. centre: a tree of parameters. stddev: the
    same tree, each leaf σ in its parameter's unit, of its shape or a scalar; 0 holds a parameter fixed. method: a key
    of `METHODS`, or auto. budget: gradient evaluations (50,000 unless told); `importance` spends it on values,
    `exact_quadratic` and `gram` have a cost of their own. residuals: parameters -> r with w ≈ −½|r|², a tree of arrays
    in √nat, which `gram` needs.

    Every method but auto may be jitted and vmapped over keys, with `method` and `budget` static; auto looks at what
    it gets and chooses on the host. Memory is linear in the dimension but for exact_quadratic (at most 1,024
    dimensions), laplace up to there, and gram (at most 4,096 residuals, each with a gradient). Each call compiles
    `log_weight` again: in a loop, jit a function of centre and key around it.

    Parameters may be of any floating type; u and all sums are float32 or wider. Where w = −inf, a weight of 0,
    importance stays exact and ais keeps its bounds while its value leans to the upper one; the others need a finite w.

    Raises ValueError for an unknown method, for trees that do not match, for a budget too small to run the method at
    all and for a log weight that is seen to be NaN or above 0 (inside a transformation the result is NaN instead);
    UnitError where `log_weight` does not return nat; TypeError for auto under a transformation and for parameters that
    are not floats.
    """
    if method != AUTO and method not in METHODS:
        raise ValueError(f"method {method!r} is not one of {', '.join([*METHODS, AUTO])}")
    spend = DEFAULT_BUDGET if budget is None else budget
    if spend < 1:
        raise ValueError(f"budget is {budget}; it counts gradient evaluations and has to be positive")
    problem = whiten_problem(log_weight, centre, stddev, residuals)  # mismatched trees, before anything is compiled

    def run(name: str, k: jax.Array, cost: int) -> LogPartition:
        def method_of(c: Tree, s: Tree, k: jax.Array) -> LogPartition:
            return METHODS[name](whiten_problem(log_weight, c, s, residuals), k, cost)

        found = jax.jit(method_of)(centre, stddev, k)
        _refuse_unsound(found)
        return found

    if method != AUTO:
        return run(method, key, spend)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((centre, stddev, key))):
        raise TypeError("method='auto' chooses on the host and cannot be traced; name a method inside jit or vmap")
    return climb(run, key, spend, _closed_forms(problem))


def _refuse_unsound(found: LogPartition) -> None:
    upper = found.rungs[-1].upper
    if not isinstance(upper, jax.core.Tracer) and bool(jnp.any(jnp.isnan(upper))):
        raise ValueError(
            f"log_weight was NaN, or more than {ABOVE_ZERO_NATS} nat above 0, where {found.method} looked (or −inf, "
            "which importance and ais alone can bear); it is −λ N_c C̄, at most 0: check its sign. If its maximum is "
            "M > 0, give log_weight − M and add M to log Z"
        )


def _closed_forms(problem: Problem) -> list[str]:
    """Those that are small enough to be tried."""
    names = ["exact_quadratic"] if problem.dimension <= MOST_DIMENSIONS else []
    if problem.residuals is None:
        return names
    count = jax.eval_shape(problem.residuals, jax.ShapeDtypeStruct((problem.dimension,), problem.dtype)).shape[0]
    return ["gram", *names] if count <= MOST_RESIDUALS else names


def climb(
    run: Callable[[str, jax.Array, int], LogPartition], key: jax.Array, budget: int, closed: list[str]
) -> LogPartition:
    """The ladder: the first rung whose own diagnostics accept it; sampled bounds from `ais`, which `smc` must meet."""
    keys = jax.random.split(key, 4)
    left: tuple[Rung, ...] = ()
    for name in closed:
        found = run(name, keys[0], budget)
        if bool(found.reliable):
            return after(left, found)
        left += (_left(found, "w is not of that form"),)
    draws = max(int(IMPORTANCE_SHARE * budget), 64)
    found = run("importance", keys[1], draws)
    share = float(found.ess) / draws
    if share >= LEAST_SHARE and bool(found.reliable):
        return after(left, found)
    left += (_left(found, f"effective size {share:.2g} of the draws, below {LEAST_SHARE}"),)
    try:
        other = run("smc", keys[2], int(SMC_SHARE * budget))
        found = run("ais", keys[3], budget - draws - int(SMC_SHARE * budget))
    except ValueError as error:
        raise ValueError(
            f"a budget of {budget} is too small for auto, of which a share goes to each: {error}"
        ) from None
    agree = bool((other.lower <= found.upper) & (found.lower <= other.upper))
    verdict = "its bounds meet those of ais" if agree else "its bounds do NOT meet those of ais: trust neither"
    found = replace(found, reliable=found.reliable & agree)
    return after((*left, _left(other, verdict)), found)


def _left(tried: LogPartition, why: str) -> Rung:
    rung = tried.rungs[-1]
    return replace(rung, why=f"{rung.why}: {why}")
