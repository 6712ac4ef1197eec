"""How far `estimate` is from log Z where log Z is known, and how often its bounds hold.

    python benchmarks/log_partition.py [--problems quadratic heads tanh hidden] [--methods ais …] [--budgets 50000 …]
                                       [--sizes 10 100 …] [--scale 1.0] [--csv FILE]
    python benchmarks/log_partition.py --figure PNG --csv FILE

quadratic  w = −½ Σ a_i (u_i − 1)², a_i = 100/i, half of them zero                    log Z in closed form
heads      two tables of Bernoulli logits, w = −20 Σ JS; a size is twice the inputs    two-dimensional quadrature
tanh       w = −Σ a_i tanh²(x_i − 1), x a rotation of u                                one-dimensional quadrature
hidden     a narrow mode that holds Z and that no path from the prior finds            closed form

One row for each problem, size, method and budget. rms, its 95 % interval (10,000 bootstrap resamples of the seeds),
bias and mean stated standard error in nat; below, above: medians of log Z − lower and of upper − log Z; how many seeds
each bound held in, with the exact (Clopper–Pearson) 95 % interval of its probability; the share called reliable.
evaluations: calls of w, counted in one run of the method and budget on the first problem and size. --scale multiplies
the numbers of seeds. Rows are appended to --csv, which may exist.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.objective.known_integrals import Problem, bernoulli_heads, hidden_mode, quadratic, rotated_tanh

PROBLEMS = {
    "quadratic": quadratic,
    "heads": lambda size: bernoulli_heads(size // 2, multiplier=20.0),
    "tanh": rotated_tanh,
    "hidden": hidden_mode,
}
METHODS = ("ais", "smc", "thermodynamic", "importance", "laplace", "exact_quadratic", "gram")
DETERMINISTIC = ("exact_quadratic", "gram")
SEEDS = {10: 400, 100: 200, 1000: 40, 10_000: 10}  # of ais
OTHER_SEEDS = {10: 100, 100: 40, 1000: 10, 10_000: 3}  # of the others, which are for comparison
TARGETS = {10: 0.1, 100: 0.5, 1000: 1.0, 10_000: 2.0}  # rms in nat on the quadratic within 50,000 gradients
COLUMNS = (
    *("problem", "dimension", "method", "budget", "evaluations", "seeds", "exact"),
    *("rms", "rms_low", "rms_high", "bias", "standard_error", "below", "above"),
    *("lower_held", "lower_low", "lower_high", "upper_held", "upper_low", "upper_high", "reliable", "seconds"),
)
FLOATS = ("dimension", "rms", "rms_low", "rms_high", "below", "above")  # of COLUMNS, which are drawn


def over_seeds(problem: Problem, method: str, budget: int, seeds: int, progress: Progress, name: str) -> np.ndarray:
    """(5, seeds): log Z, lower, upper, standard error, reliable. One program, a call for each seed."""

    def numbers(key: jax.Array) -> jax.Array:
        found = problem.estimate(key, method, budget)
        rung = found.rungs[-1]
        return jnp.stack([rung.log_z, rung.lower, rung.upper, found.standard_error, found.reliable.astype(float)])

    run = jax.jit(numbers)
    task, rows = progress.add_task(name, total=seeds), []
    for key in jax.random.split(jax.random.key(0), seeds):
        rows.append(np.asarray(run(key), np.float64))
        progress.advance(task)
    progress.remove_task(task)
    return np.asarray(rows).T


def count_evaluations(problem: Problem, method: str, budget: int) -> int:
    """Calls of w in one run, batches counted one by one, by a callback from inside it."""
    calls = [0]

    def called(_: object) -> None:
        calls[0] += 1

    def weight(u: jax.Array) -> jax.Array:
        jax.debug.callback(called, u[0])
        return problem.weight_of_u(u)

    dimension = sum(leaf.size for leaf in jax.tree.leaves(problem.centre))
    counted = Problem(dimension, weight, problem.exact, problem.residuals_of_u)
    jax.block_until_ready(counted.estimate(jax.random.key(0), method, budget))
    jax.effects_barrier()
    return calls[0]


def held(count: int, seeds: int) -> tuple[int, float, float]:
    interval = stats.binomtest(count, seeds).proportion_ci(0.95, method="exact")
    return count, interval.low, interval.high


def summarise(exact: float, found: np.ndarray) -> dict[str, float]:
    log_z, lower, upper, standard_error, reliable = found
    error, seeds = log_z - exact, log_z.size
    resampled = error[np.random.default_rng(0).integers(seeds, size=(10_000, seeds))]
    low, high = np.quantile(np.sqrt(np.mean(resampled**2, axis=1)), [0.025, 0.975])
    # One rounding error of float32 is granted to what claims to be exact.
    grain = np.finfo(np.float32).eps * abs(exact)
    lower_held, upper_held = (held(int(np.sum(ok)), seeds) for ok in (lower <= exact + grain, upper >= exact - grain))
    return {
        "seeds": seeds,
        "exact": exact,
        "rms": np.sqrt(np.mean(error**2)),
        "rms_low": low,
        "rms_high": high,
        "bias": np.mean(error),
        "standard_error": np.mean(standard_error),
        "below": np.median(exact - lower),
        "above": np.median(upper - exact),
        **dict(zip(("lower_held", "lower_low", "lower_high"), lower_held)),
        **dict(zip(("upper_held", "upper_low", "upper_high"), upper_held)),
        "reliable": np.mean(reliable),
    }


def possible(method: str, problem: Problem, size: int, budget: int) -> bool:
    if method == "gram":
        return problem.residuals_of_u is not None and size <= 1000 and budget == 50_000
    if method == "exact_quadratic":
        return size <= 1000 and budget == 50_000
    return True


def measure(arguments: argparse.Namespace) -> None:
    columns = [TextColumn("{task.description}"), *Progress.get_default_columns(), TimeElapsedColumn()]
    counted: dict[tuple, int] = {}
    print(",".join(COLUMNS), flush=True)
    with Progress(*columns, transient=True) as progress:
        for name in arguments.problems:
            for size in arguments.sizes:
                problem = PROBLEMS[name](size)
                for method in arguments.methods:
                    for budget in arguments.budgets:
                        if not possible(method, problem, size, budget):
                            continue
                        if (method, budget) not in counted:
                            counted[method, budget] = count_evaluations(problem, method, budget)
                        table = SEEDS if method == "ais" else OTHER_SEEDS
                        seeds = 1 if method in DETERMINISTIC else max(2, round(arguments.scale * table[size]))
                        start = time.perf_counter()
                        found = over_seeds(problem, method, budget, seeds, progress, f"{name} {size} {method} {budget}")
                        row = {
                            "problem": name,
                            "dimension": size,
                            "method": method,
                            "budget": budget,
                            "evaluations": counted[method, budget],
                            **summarise(problem.exact, found),
                            "seconds": time.perf_counter() - start,
                        }
                        write(row, arguments.csv)


def write(row: dict[str, object], path: Path | None) -> None:
    line = [f"{row[c]:.4g}" if isinstance(row[c], float) else row[c] for c in COLUMNS]
    print(",".join(map(str, line)), flush=True)
    if path is None:
        return
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([COLUMNS, line] if new else [line])


def draw(path: Path, figure_path: Path) -> None:
    """Left of each row: rms error; right: how far the bounds are from the truth, at the larger budget."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    budget = max(int(row["budget"]) for row in rows)
    titles = {"quadratic": "quadratic", "heads": "tabular Bernoulli heads", "tanh": "rotated tanh²"}
    figure, axes = plt.subplots(2, 3, figsize=(11, 6.2), sharex=True, sharey="row", layout="constrained")
    for column, (problem, title) in enumerate(titles.items()):
        error_axis, bound_axis = axes[:, column]
        for colour, method in enumerate(("ais", "smc", "thermodynamic", "importance", "laplace")):
            chosen = [r for r in rows if (r["problem"], r["method"], int(r["budget"])) == (problem, method, budget)]
            chosen.sort(key=lambda r: int(r["dimension"]))
            of = {key: np.array([float(r[key]) for r in chosen]) for key in FLOATS}
            x, rms = of["dimension"] * 1.06 ** (colour - 2), of["rms"]
            spread = np.abs(np.stack([rms - of["rms_low"], of["rms_high"] - rms]))
            style = {"color": f"C{colour}", "label": method}
            error_axis.errorbar(x, rms, spread, marker="o", ms=4, lw=1, capsize=2, **style)
            if method != "laplace":
                bound_axis.plot(x, of["above"], marker="^", ms=5, lw=1, **style)
                bound_axis.plot(x, -of["below"], marker="v", ms=5, lw=1, color=f"C{colour}")
        if problem == "quadratic":
            error_axis.plot(list(TARGETS), list(TARGETS.values()), "k_", ms=14, label="target")
        # Laplace's 10⁻⁶ on the quadratic, which it assumes, would take half of the axis.
        error_axis.set(title=title, xscale="log", yscale="log", ylim=(5e-3, 2e3))
        bound_axis.axhline(0, color="k", lw=0.8)
        bound_axis.set(xlabel="dimension", yscale="symlog")
    axes[0, 0].set_ylabel("rms error of log Z, nat (95 % interval)")
    axes[1, 0].set_ylabel("median bound − log Z, nat\n(▲ upper, ▼ lower)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    figure.suptitle(f"log Z within {budget:,} gradient evaluations")
    figure.savefig(figure_path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--budgets", nargs="+", type=int, default=[50_000, 10_000])
    parser.add_argument("--sizes", nargs="+", type=int, choices=list(SEEDS), default=list(SEEDS))
    parser.add_argument("--scale", type=float, default=1.0, help="times the number of seeds")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--figure", type=Path, help="draw --csv into this file and measure nothing")
    arguments = parser.parse_args()
    if arguments.figure is None:
        measure(arguments)
    elif arguments.csv is None:
        parser.error("--figure needs --csv FILE, which holds what is drawn")
    else:
        draw(arguments.csv, arguments.figure)


if __name__ == "__main__":
    main()
