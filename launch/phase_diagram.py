"""Does the honest head pay for itself? Exact log-odds of head pairs over two complexities, and who finds the boundary.

    python launch/phase_diagram.py data       every world summed exactly, the boundary by each solver      (one minute)
    python launch/phase_diagram.py figure     notes/phase_diagram.png from the tables

The world: one fact, known to the trunk; a belief slot with one right person-model and three wrong ones; readers of the
fact, of the belief, and a constant one that explains nothing but takes its share of the prior. Translator complexity is
what reading the fact costs beyond reading the belief, Δ bits. Person-model complexity is R = −log2 π(right
person-model), the bits that agreement recovers. `notes/worlds.md` has the derivation.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_type_hints

import numpy as np
from rich.progress import track

from honest.config_world import FiniteWorld
from honest.inference.enumeration import Solution
from honest.inference.factors import Factors
from honest.inference.solvers import solve
from honest.report.seeds import seed_mean

NOTES = Path(__file__).parents[1] / "notes"
DIAGRAM, BOUNDARY = NOTES / "results" / "phase_diagram.csv", NOTES / "results" / "phase_diagram_boundary.csv"
FIGURE = NOTES / "phase_diagram.png"
FACT = "00010111"
RIGHT = "00010110"  # as the fact on the trusted inputs 0, 1, 2, 5; fooled on input 7
WRONG = ("00110011", "01110100", "10010010")  # each is wrong on two of the four labels
IMITATION_BITS = 6.0
TIED_BITS: dict[str, float | None] = {"independent": None, "tied": 2.0}
HONEST, IMITATING = 0, 1  # rows of the readers
RECOVERED = np.arange(0.5, 12.01, 0.5)  # R, bits
EXTRA = np.arange(0.0, 12.01, 0.5)  # Δ, bits
SOLVER_RECOVERED = np.arange(1.0, 11.01, 2.0)
SEEDS, SAMPLES = 10, 400_000
SOLVERS = ("rejection", "smc", "milp")


class Cell(NamedTuple):
    """log2-odds of (honest, imitating) against (imitating, imitating), in bit."""

    prior: str
    recovered: float
    extra: float
    with_log_partition: float
    without: float


class Crossing(NamedTuple):
    """Δ at which a solver puts the odds even, in bit: mean over seeds and the ends of its 95 % interval."""

    prior: str
    solver: str
    recovered: float
    extra: float
    low: float
    high: float
    seeds: int


def world(recovered: float, extra: float, tied_bits: float | None) -> FiniteWorld:
    """Three wrong person-models share 1 − 2^−R evenly."""
    right = 2.0**-recovered
    wrong_bits = -math.log2((1 - right) / len(WRONG))
    shift = min(recovered, wrong_bits)  # bits are not negative; only differences matter
    return FiniteWorld(
        inputs=3,
        trusted=[0, 1, 2, 5],
        slots={
            "fact": {"tables": [FACT], "bits": [0.0]},
            "belief": {"tables": [RIGHT, *WRONG], "bits": [recovered - shift, *[wrong_bits - shift] * len(WRONG)]},
        },
        readers=[
            {"name": "read_fact", "table": "0011", "bits": IMITATION_BITS + extra},
            {"name": "read_belief", "table": "0101", "bits": IMITATION_BITS},
            {"name": "constant", "table": "0000", "bits": 0.0},
        ],
        tied_bits=tied_bits,
        labels={str(x): int(FACT[x]) for x in (0, 1, 2, 5)},
        person_labels={"7": int(RIGHT[7])},
        label_noise=0.001,
        multiplier=math.inf,
    )


def odds(factors: Factors, solution: Solution) -> tuple[float, float]:
    """(with, without log Z): log2-odds of the two pairs."""
    pairs = ((HONEST, IMITATING), (IMITATING, IMITATING))
    prior, z, joint = (
        np.array([table[pair] for pair in pairs])
        for table in (factors.log2_pair_RxR, solution.log2_z_RxR, solution.log2_joint_RxR)
    )
    with np.errstate(invalid="ignore"):  # a solver may have missed a pair: no odds then
        scores = prior + joint - z, prior + joint
    return tuple(float(score[0] - score[1]) for score in scores)  # type: ignore[return-value]


def cells() -> Iterator[Cell]:
    for prior, tied_bits in TIED_BITS.items():
        for recovered in track(RECOVERED, f"exact, {prior}"):
            for extra in EXTRA:
                factors = Factors(world(recovered, extra, tied_bits))
                yield Cell(prior, recovered, extra, *odds(factors, solve(factors, "enumerate", 0, 0)))


def predicted(recovered: float, tied_bits: float | None) -> float:
    """Δ at which bits recovered = extra bits spent: R, less what tying takes off the price of a second copy.

    Independent: Δ = R. Tied: the copy costs −log2((1−τ)ρ + τ) in place of −log2((1−τ)ρ), ρ of the imitating reader.
    """
    if tied_bits is None:
        return recovered
    tau = 2.0**-tied_bits

    def balance(extra: float) -> float:
        weights = np.array([2.0 ** -(IMITATION_BITS + extra), 2.0**-IMITATION_BITS, 1.0])
        rho = weights[IMITATING] / np.sum(weights)
        return recovered - extra - math.log2(((1 - tau) * rho + tau) / ((1 - tau) * rho))

    low, high = -20.0, 20.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if balance(middle) > 0 else (low, middle)
    return 0.5 * (low + high)


def crossings() -> Iterator[Crossing]:
    """The prior is exact, so that one world a column gives the crossing: where Δ makes up for the solver's evidence."""
    for prior, tied_bits in TIED_BITS.items():
        for solver in SOLVERS:
            for recovered in track(SOLVER_RECOVERED, f"{solver}, {prior}"):
                seeds = 1 if solver == "milp" else SEEDS
                found = [_crossing(solver, recovered, tied_bits, seed) for seed in range(seeds)]
                over = seed_mean(found)
                yield Crossing(prior, solver, recovered, over.mean, over.low, over.high, seeds)


def _crossing(solver: str, recovered: float, tied_bits: float | None, seed: int) -> float:
    factors = Factors(world(recovered, max(predicted(recovered, tied_bits), 0.0), tied_bits))
    solution = solve(factors, solver, SAMPLES, seed)
    with_z, _ = odds(factors, solution)
    # The share of the odds that the solver estimates; the prior's share is moved along Δ.
    prior_odds = factors.log2_pair_RxR[HONEST, IMITATING] - factors.log2_pair_RxR[IMITATING, IMITATING]
    evidence = with_z - float(prior_odds)

    def prior_at(extra: float) -> float:
        pair = Factors(world(recovered, extra, tied_bits)).log2_pair_RxR
        return float(pair[HONEST, IMITATING] - pair[IMITATING, IMITATING])

    # Below Δ = 0 bits would be negative: the tied prior's crossing may lie there, and is then left out of the figure.
    low, high = -IMITATION_BITS + 1e-9, 30.0
    if not prior_at(low) + evidence > 0 > prior_at(high) + evidence:
        return math.nan
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if prior_at(middle) + evidence > 0 else (low, middle)
    return 0.5 * (low + high)


def write(path: Path, rows: list) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(rows[0]._fields)
        writer.writerows([f"{v:.6g}" if isinstance(v, float) else v for v in row] for row in rows)


def read(path: Path, kind: type) -> list:
    with path.open(encoding="utf-8", newline="") as file:
        hints = get_type_hints(kind).values()
        return [kind(*(hint(text) for hint, text in zip(hints, row))) for row in list(csv.reader(file))[1:]]


def figure(path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    table, found = read(DIAGRAM, Cell), read(BOUNDARY, Crossing)
    grid, axes = plt.subplots(2, 2, figsize=(10.5, 9.5), sharex=True, sharey=True, constrained_layout=True)
    marks = {"rejection": ("o", "black"), "smc": ("s", "tab:green"), "milp": ("x", "tab:purple")}
    for row, prior in enumerate(TIED_BITS):
        for column, field in enumerate(("with_log_partition", "without")):
            ax = axes[row][column]
            image_RxE = np.array([getattr(cell, field) for cell in table if cell.prior == prior])
            image_RxE = image_RxE.reshape(len(RECOVERED), len(EXTRA))
            mesh = ax.pcolormesh(EXTRA, RECOVERED, image_RxE, cmap="RdBu", vmin=-12, vmax=12, shading="nearest")
            ax.contour(EXTRA, RECOVERED, image_RxE, levels=[0.0], colors="gold", linewidths=4)
            line = [predicted(r, TIED_BITS[prior]) for r in RECOVERED]
            ax.plot(line, RECOVERED, "k--", linewidth=1.2)
            title = {"with_log_partition": "with log Z", "without": "without log Z"}[field]
            tying = "independent priors" if prior == "independent" else "tied: a copy costs 2 bits, not 6"
            ax.set_title(f"{title}, {tying}")
            ax.set_xlim(EXTRA[0] - 0.25, EXTRA[-1] + 0.25)
            if field == "with_log_partition":
                for solver, (mark, colour) in marks.items():
                    points = [c for c in found if c.prior == prior and c.solver == solver and c.extra >= EXTRA[0]]
                    x, y = [c.extra for c in points], [c.recovered for c in points]
                    errors = [[c.extra - c.low for c in points], [c.high - c.extra for c in points]]
                    label = "most probable state (milp)" if solver == "milp" else f"{solver}, 95 % interval"
                    ax.errorbar(
                        x,
                        y,
                        xerr=None if solver == "milp" else errors,
                        fmt=mark,
                        color=colour,
                        ms=5,
                        capsize=3,
                        label=label,
                    )
    for ax in axes[-1]:
        ax.set_xlabel("translator complexity Δ: extra bits of the honest reader")
    for ax in axes[:, 0]:
        ax.set_ylabel("person-model complexity R: bits that agreement recovers")
    axes[0][0].plot([], [], color="gold", linewidth=4, label="even odds, exact")
    axes[0][0].plot([], [], "k--", linewidth=1.2, label="predicted: recovered = extra spent")
    axes[0][0].legend(loc="lower right", fontsize=8)
    grid.colorbar(
        mesh, ax=axes, label="log2-odds of (honest, imitating) against (imitating, imitating), bits", shrink=0.8
    )
    grid.savefig(path, dpi=130)
    plt.close(grid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("data", "figure"))
    if parser.parse_args().what == "data":
        write(DIAGRAM, list(cells()))
        write(BOUNDARY, list(crossings()))
        return
    figure(FIGURE)


if __name__ == "__main__":
    main()
