"""Noise of stage one's gradient against what it costs, for every way to follow a phase.

    python benchmarks/gradient_noise.py [--csv FILE] [--figure FILE] [--skip-toy] [--replicas 12]

*Quadratic*: w = −½ (u + θ − a)ᵀH(u + θ − a), H's eigenvalues 100/i for i ≤ D/2 and 0 beyond, a ~ N(0, I), exact draws:
the truth −H(u* − a) is known. *Toy*: the planted truth and person heads of tests/planted_heads.py, real chains of 32
around the initialisation, against their long-run mean. `error` is the rms error of the mean force ∂_θ w over C chains,
relative to the truth's length; intervals are the middle 95 % of 2,000 bootstrap resamples of the replicas. On the toy
the replicas are groups of C of the same 32 chains, and the error of the reference itself, from the spread of the
chains' own means, is printed. `points` and `laplace` have no sampling noise: their error is bias.

`gradients` counts ∂w of one particle: two for a move of one leapfrog step and one for the force, times C; newton_stein
adds C scores, and for each half two for every product with P or J. `time` is the measured ratio to one chain's move and
force in the same run: medians of alternating calls, in CPU seconds. Nothing is written unless asked for.
"""

from __future__ import annotations

import argparse
import csv
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from honest.config import GROUP_UNITS
from honest.objective.log_partition.control_variate import GUIDES, Weight, Weights, newton_stein
from honest.objective.log_partition.moves import hamiltonian_move, whitened_energy
from honest.objective.log_partition.volume import factor, volume_nats
from honest.params import Params, whiten
from honest.train import phases
from honest.train.spec import HEADS
from honest.units import displacement, nat
from tests.planted_heads import Planter, make_toy, minimise

STEPS, CHAINS, DIMENSIONS = (1, 3, 10, 30), (2, 8, 32), (100, 1000, 10_000)
TOY_CASES = (("negative", 1.0), ("negative", 0.1), ("positive", 0.1))  # (phase, σ2 in θ.trunk), λ = 1 nat/disagreement
TOY_MOVES, TOY_BURN_IN, TOY_LEAPFROG = 320, 120, 8
ALL_CHAINS, GROUPS = 32, 32
TIMED = 7  # calls


class Row(NamedTuple):
    problem: str
    dimension: int
    chains: int
    option: str
    error: float
    low: float
    high: float
    gradients: float
    time: float


def rms_row(name: str, dimension: int, chains: int, option: str, errors_R: np.ndarray, cost: tuple) -> Row:
    """The rms of replicas' relative errors and its bootstrap interval."""
    drawn = np.random.default_rng(0).integers(len(errors_R), size=(2000, len(errors_R)))
    low, high = np.quantile(np.sqrt(np.mean(errors_R[drawn] ** 2, axis=1)), [0.025, 0.975])
    return Row(name, dimension, chains, option, float(np.sqrt(np.mean(errors_R**2))), float(low), float(high), *cost)


def gradients(chains: int, steps: int | None) -> float:
    plain = 3.0 * chains
    return plain if steps is None else plain + chains + 2 * 2 * ((GUIDES + 1) * steps + GUIDES + 1)


def seconds(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Median CPU seconds of each, in turn; the first round compiles and is thrown away."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(TIMED + 1):
        for name, call in calls.items():
            start = time.process_time()
            jax.block_until_ready(call())
            if round_:
                found[name].append(time.process_time() - start)
    return {name: float(np.median(values)) for name, values in found.items()}


class Force:
    """The mean force of C chains, flat, plain and corrected; and the moves that it is paid for beside."""

    def __init__(self, weight: Weight, params: Params):
        units = {group: displacement("head") if group == "head" else GROUP_UNITS[group] for group in params}
        weights = Weights(weight, weight, weight)

        def each(u: Any) -> jax.Array:
            return jax.vmap(lambda u: ravel_pytree(jax.grad(weight)(params, u))[0])(u)

        def plain(u: Any) -> jax.Array:
            return jnp.mean(each(u), axis=0)

        def corrected(key: jax.Array, u: Any, steps: int) -> tuple[jax.Array, jax.Array]:
            found = newton_stein(key, weights, params, u, units, steps)
            return plain(u) + ravel_pytree(found.force)[0], found.mean_residual

        def move(key: jax.Array, u: Any, step_size: jax.Array, leapfrog: int) -> tuple[Any, jax.Array]:
            keys = jax.random.split(key, jax.tree.leaves(u)[0].shape[0])
            target = lambda u: weight(params, u)  # noqa: E731
            moved = jax.vmap(lambda k, u: hamiltonian_move(k, u, target, step_size, leapfrog, True))(keys, u)
            return moved.position, jnp.mean(moved.acceptance)

        self.each, self.plain = jax.jit(each), jax.jit(plain)
        self.corrected = jax.jit(corrected, static_argnums=2)
        self.move = jax.jit(move, static_argnums=3)

    def times(self, u: Any) -> dict[int | None, float]:
        """Time of a move, the force and the correction of K steps (None: none), for C chains at u."""
        key, small = jax.random.key(0), jnp.asarray(0.01)
        step = lambda: (self.move(key, u, small, 1), self.plain(u))  # noqa: E731
        calls: dict[str, Callable[[], Any]] = {"None": step}
        calls |= {str(k): (lambda k=k: (self.move(key, u, small, 1), self.corrected(key, u, k))) for k in STEPS}
        found = seconds(calls)
        return {None: found["None"], **{k: found[str(k)] for k in STEPS}}


# --- the quadratic ----------------------------------------------------------------------------------------------------


def led_by_scores(h_D: np.ndarray, lead_D: np.ndarray, score_D: np.ndarray, steps: int) -> np.ndarray:
    """q(P) s with the polynomial of plain conjugate gradients on P x = `lead`."""
    precision, x, r, s = 1.0 + h_D, np.zeros_like(h_D), lead_D, score_D
    p, q = r, s
    for _ in range(steps):
        length = (r @ r) / (p @ (precision * p))
        x, s, new = x + length * q, s - length * precision * q, r - length * precision * p
        turn = (new @ new) / (r @ r)
        r, p, q = new, new + turn * p, s + turn * q
    return x


def quadratic(dimension: int, replicas: int) -> Iterator[Row]:
    index = np.arange(1, dimension + 1)
    h_D = np.where(index <= dimension // 2, 100.0 / index, 0.0)
    rng = np.random.default_rng(0)
    a_D = rng.normal(size=dimension)
    mode_D = h_D * a_D / (1.0 + h_D)
    truth_D = -h_D * (mode_D - a_D)
    length = np.linalg.norm(truth_D)
    params = {"head": jnp.zeros(dimension)}
    weight = lambda params, u: -0.5 * jnp.sum(jnp.asarray(h_D) * (params["head"] + u - a_D) ** 2)  # noqa: E731
    force, name = Force(weight, params), "quadratic"
    draw = lambda chains: mode_D + rng.normal(size=(chains, dimension)) / np.sqrt(1.0 + h_D)  # noqa: E731
    error = lambda force_D: float(np.linalg.norm(np.asarray(force_D) - truth_D) / length)  # noqa: E731
    times = {chains: force.times(jnp.asarray(draw(chains))) for chains in CHAINS}
    unit = times[CHAINS[0]][None] / CHAINS[0]
    for chains in CHAINS:
        draws = [draw(chains) for _ in range(replicas)]
        plain = (gradients(chains, None), times[chains][None] / unit)
        shift = np.array([error(u.mean(0)) for u in draws])
        yield rms_row(name, dimension, chains, "shift form", shift, plain)
        yield rms_row(name, dimension, chains, "force form", np.array([error(force.plain(u)) for u in draws]), plain)
        for steps in STEPS:
            found = [force.corrected(jax.random.key(i), jnp.asarray(u), steps)[0] for i, u in enumerate(draws)]
            cost = (gradients(chains, steps), times[chains][steps] / unit)
            errors = np.array([error(f) for f in found])
            yield rms_row(name, dimension, chains, f"newton_stein {steps}", errors, cost)
    # Ten steps led by a score, for one draw: the draw's own (biased where w is not quadratic), or an independent one.
    for option, own in (("one draw, led by its own score", True), ("one draw, led by another's score", False)):
        errors = []
        for _ in range(4 * replicas):
            u, other = draw(1)[0], draw(1)[0]
            score, lead = -(1.0 + h_D) * (u - mode_D), -(1.0 + h_D) * ((u if own else other) - mode_D)
            errors.append(error(-h_D * (u - a_D) - h_D * led_by_scores(h_D, lead, score, 10)))
        yield rms_row(name, dimension, 1, option, np.array(errors), (np.nan, np.nan))
    for option in ("points", "laplace"):  # the volume does not depend on θ
        bias = error(-h_D * (mode_D - a_D))
        yield Row(name, dimension, 1, option, bias, bias, bias, np.nan, np.nan)


# --- the toy ----------------------------------------------------------------------------------------------------------


class Sampled(NamedTuple):
    """Snapshots of 32 chains (leaves (S, 32, …)); the long-run mean force and its standard error (rms length)."""

    snapshots: list[Any]
    reference: np.ndarray
    reference_error: float
    acceptance: float


def sample(force: Force, start: Any, key: jax.Array) -> Sampled:
    """Burn-in with an adapting step size, then moves at a fixed one; every 10th is kept, every one counts."""
    u, log_step = start, np.log(0.02)
    kept, means, rates = [], [], []
    for index in range(TOY_BURN_IN + TOY_MOVES):
        u, rate = force.move(jax.random.fold_in(key, index), u, jnp.exp(jnp.asarray(log_step)), TOY_LEAPFROG)
        if index < TOY_BURN_IN:
            log_step = min(log_step + 2.0 * (index + 1) ** -0.6 * (float(rate) - 0.8), 0.0)
            continue
        rates.append(float(rate))
        means.append(np.asarray(force.each(u)))
        if index % 10 == 0:
            kept.append(u)
        show(f"  {index + 1}/{TOY_BURN_IN + TOY_MOVES} moves, step {np.exp(log_step):.3f}, acceptance {rates[-1]:.2f}")
    mean_CxP = np.mean(means, axis=0)
    reference = mean_CxP.mean(0)
    spread = np.sqrt(np.sum(mean_CxP.var(0, ddof=1)) / ALL_CHAINS)
    return Sampled(kept, reference, float(spread), float(np.mean(rates)))


def toy(phase: str, stddev: float) -> Iterator[Row]:
    made = make_toy(0, stddev, 1.0, "chains")
    planter = Planter(made, "init")
    heads: Params = {HEADS[0]: {"w": made.heads["truth"]}, HEADS[1]: {"w": made.heads["person"]}}
    with_data = phase == "positive"

    def weight(params: Params, u: Any) -> jax.Array:
        return phases.log_weight(
            made.spec, params, planter.held, planter.weight, made.sets, with_data=with_data, whole=False
        )(u)

    force = Force(weight, heads)
    trained = whiten({"trunk": made.trained}, planter.held.anchor, phases.metric(planter.held), ("trunk",))
    start = jax.tree.map(lambda x: jnp.stack([jnp.zeros_like(x), x] * (ALL_CHAINS // 2)), trained)
    sampled = sample(force, start, jax.random.key(0))
    length = np.linalg.norm(sampled.reference)
    name, dimension = f"toy {phase}, σ2 {stddev:g}", ravel_pytree(trained)[0].size
    print(
        f"{name}: |truth| {length:.3g} nat/θ.head, reference ± {sampled.reference_error / length:.2f} of it, "
        f"acceptance {sampled.acceptance:.2f}"
    )
    error = lambda force: float(np.linalg.norm(np.asarray(force) - sampled.reference) / length)  # noqa: E731
    unit: float | None = None
    for chains in CHAINS:
        groups = [
            jax.tree.map(lambda x, i=i, chains=chains: x[i : i + chains], u)
            for u in sampled.snapshots
            for i in range(0, ALL_CHAINS, chains)
        ]
        groups = groups[:: max(len(groups) // GROUPS, 1)][:GROUPS]
        times = force.times(groups[0])
        unit = times[None] / chains if unit is None else unit
        plain = np.array([error(force.plain(u)) for u in groups])
        yield rms_row(name, dimension, chains, "force form", plain, (gradients(chains, None), times[None] / unit))
        for steps in STEPS:
            found = [force.corrected(jax.random.key(i), u, steps) for i, u in enumerate(groups)]
            errors, cost = np.array([error(f) for f, _ in found]), (gradients(chains, steps), times[steps] / unit)
            yield rms_row(name, dimension, chains, f"newton_stein {steps}", errors, cost)
        print(f"{name}: {chains} chains, mean residual {np.mean([float(r) for _, r in found]):.3f}")
    yield from biases(name, dimension, made, planter, weight, heads, trained, with_data, error)


def biases(name, dimension, made, planter, weight, heads, trained, with_data, error) -> Iterator[Row]:
    """Points: ∂_h w at the better of two modes; laplace: and its volume's gradient there."""
    energy = lambda u: whitened_energy(u) - weight(heads, u)  # noqa: E731
    find = jax.jit(lambda start: minimise(energy, start, 300))
    mode = min((find(start) for start in (jax.tree.map(jnp.zeros_like, trained), trained)), key=lambda f: float(f[1]))[
        0
    ]

    def volume(heads: Params) -> jax.Array:
        place = lambda v: phases.place(planter.prior, heads, planter.held, v)  # noqa: E731
        rest = (made.spec.counts, planter.weight, planter.prior.divergence, with_data)
        return volume_nats(factor(made.spec.predictor, place, mode, planter.chosen, *rest)).to(nat)

    points = ravel_pytree(jax.jit(jax.grad(weight))(heads, mode))[0]
    for option, force in (("points", points), ("laplace", points + ravel_pytree(jax.jit(jax.grad(volume))(heads))[0])):
        bias = error(force)
        yield Row(name, dimension, 1, option, bias, bias, bias, np.nan, np.nan)


# --- what is shown ----------------------------------------------------------------------------------------------------


def show(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)


def figure(path: Path, rows: list[Row]) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    problems = list(dict.fromkeys((row.problem, row.dimension) for row in rows))
    options = list(dict.fromkeys(row.option for row in rows if row.gradients == row.gradients))
    colours = dict(zip(options, plt.get_cmap("viridis")(np.linspace(0, 0.92, len(options)))))
    shown, axes = plt.subplots(2, 3, figsize=(13, 8), squeeze=False)
    for axis, problem in zip(axes.flat, problems):
        here = [row for row in rows if (row.problem, row.dimension) == problem]
        for option in options:
            line = [row for row in here if row.option == option]
            if line:
                error = np.array([row.error for row in line])
                bars = np.abs(np.array([[row.low, row.high] for row in line]).T - error)
                cost = [row.gradients for row in line]
                axis.errorbar(cost, error, yerr=bars, fmt="o-", ms=5, capsize=2, color=colours[option], label=option)
        for row in here:
            if row.option in ("points", "laplace") and row.error > 1e-9:
                axis.axhline(row.error, color="0.4", ls={"points": ":", "laplace": "--"}[row.option], lw=1)
                axis.annotate(f"{row.option} (bias)", (0.99, row.error), xycoords=("axes fraction", "data"), ha="right",
                              va="bottom", fontsize=8, color="0.3")  # fmt: skip
        axis.set(xscale="log", yscale="log", title=f"{problem[0]}, D = {problem[1]:,}")
        axis.set_ylim(bottom=max(1e-4, axis.get_ylim()[0]))
        axis.grid(color="0.92")
    for axis in axes[:, 0]:
        axis.set_ylabel("relative rms error of stage one's force")
    for axis in axes[-1]:
        axis.set_xlabel("gradients per step and phase (2, 8, 32 chains)")
    shown.legend(*axes.flat[0].get_legend_handles_labels(), loc="lower center", ncols=6, frameon=False)
    shown.tight_layout(rect=(0, 0.04, 1, 1))
    shown.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, help="write the table here")
    parser.add_argument("--figure", type=Path, help="draw the figure here")
    parser.add_argument("--replicas", type=int, default=12, help="of the quadratic, for each number of chains")
    parser.add_argument("--skip-toy", action="store_true")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    device, start = jax.devices()[0], time.process_time()
    print(
        f"python {platform.python_version()}, jax {jax.__version__}, {device.platform} ({device.device_kind}); float64"
    )
    parts = [lambda d=d: quadratic(d, arguments.replicas) for d in DIMENSIONS]
    parts += [] if arguments.skip_toy else [lambda case=case: toy(*case) for case in TOY_CASES]
    line = "{:<21} {:>6} {:>6}  {:<32} {:>9}  {:<18} {:>9} {:>6}"
    print(line.format("problem", "D", "chains", "option", "error", "95 %", "gradients", "time"))
    rows = []
    for part in parts:
        for row in part():
            rows.append(row)
            interval = f"{row.low:.3g} … {row.high:.3g}"
            numbers = (f"{row.error:.3g}", interval, f"{row.gradients:.0f}", f"{row.time:.1f}")
            print(line.format(row.problem, row.dimension, row.chains, row.option, *numbers), flush=True)
    print(f"{time.process_time() - start:.0f} CPU seconds")
    if arguments.csv:
        with arguments.csv.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(Row._fields)
            writer.writerows([f"{value:.4g}" if isinstance(value, float) else value for value in row] for row in rows)
    if arguments.figure:
        figure(arguments.figure, rows)


if __name__ == "__main__":
    main()
