"""The phase diagram from trained two-head models, over the exact one of the same parametric world.

    python launch/trained_diagram.py exact      stage one and the posterior by quadrature, every cell (1 minute)
    python launch/trained_diagram.py train      every cell and seed by the project's train step (3 minutes)
    python launch/trained_diagram.py figure     notes/trained_diagram.png from both tables

The world (`honest.inference.joint`): heads of two weights, logit = w_fact · fact + w_belief · belief; n trusted beliefs
and two on which the person is fooled, four questions about each. Translator complexity is what one unit of w_fact
costs beyond one of w_belief, ½(1/σ_fact² − 1/σ_belief²) nat. Person-model complexity is n: beliefs that agreement has
to get right. Models are trained with λ fixed, from starts drawn from the first prior; a model is honest if its intended
head is more likely than not to say the truth on the fooled questions. `notes/worlds.md` has the reading.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.special import logsumexp as _logsumexp
from rich.progress import Progress
from scipy import stats

from honest.config import GROUP_UNITS
from honest.inference.continuous_world import ContinuousWorld
from honest.inference.joint import Inputs, Joint, head_logits
from honest.model.two_head import HeadLogits
from honest.objective.parameter_prior.gaussian import Gaussian, TensorScale, isotropic
from honest.objective.predictions import Counts, RowSets
from honest.params import Params, batched
from honest.train import multiplier as multipliers
from honest.train import phases
from honest.train.multiplier import MultiplierRule, decay
from honest.train.spec import HEADS, PhaseSettings, PriorSpec, StageSpec
from honest.train.state import Held, Priors, PriorState, TrainState
from honest.train.step import Inputs as StepInputs
from honest.train.step import train_step
from honest.units import Quantity, displacement

NOTES = Path(__file__).parents[1] / "notes"
EXACT, TRAINED = NOTES / "results" / "trained_diagram_exact.csv", NOTES / "results" / "trained_diagram.csv"
FIGURE = NOTES / "trained_diagram.png"
FACT, FOOLED, MULTIPLIER = 3.0, 2, 10.0
REPEATS = 4  # questions about each belief
STDDEV_BELIEF, STDDEV_TRUNK, ANCHOR = 1.0, 2.0, (0.0, 0.5)
EXTRA = np.arange(0.0, 12.1, 1.5)  # translator complexity: nat for one unit of w_fact beyond one of w_belief
BELIEFS = np.array([1, 2, 4, 6, 8, 10])  # n
METHODS = {
    "chains": ("chains", True),
    "chains, no log Z": ("chains", False),
    "points": ("points", True),
}
SEEDS, STEPS, SETTLING, RATE, CHAINS = 10, 300, 60, 0.03, 8
W_FACT, W_BELIEF = np.linspace(-1.6, 2.4, 29), np.linspace(-3.5, 4.5, 29)  # of both heads, in θ.head
CHUNK = 2048


class ExactCell(NamedTuple):
    """Honest over imitating, in nat: of the posterior's mass, of stage one's best points; and what decides the latter.

    recovered: −log Z of the best honest heads beyond the best imitating ones'. spent: their first prior's extra cost.
    """

    beliefs: int
    extra: float
    odds_with: float
    odds_without: float
    best_with: float
    best_without: float
    recovered: float
    spent: float
    top_with: float  # stage one at its best point, less the constants of the prior
    top_without: float


class TrainedCell(NamedTuple):
    """honest: share of seeds. regret: mean of exact stage one at its best point less at the trained heads, in nat."""

    method: str
    beliefs: int
    extra: float
    honest: float
    truth: float  # mean probability that the intended head says the truth on a fooled question
    regret: float
    seeds: int


def stddev_fact(extra: np.ndarray) -> np.ndarray:
    return 1.0 / np.sqrt(1.0 / STDDEV_BELIEF**2 + 2.0 * np.asarray(extra))


def world() -> ContinuousWorld:
    """One trusted kind of belief and one fooled; every cell counts their copies by itself."""
    weights = {
        "anchor": {"fact": ANCHOR[0], "belief": ANCHOR[1]},
        "stddev": {"fact": "1.0 θ.head", "belief": f"{STDDEV_BELIEF} θ.head"},
    }
    trusted = {"fact": FACT, "sign": 1, "trusted": True, "label": 1}
    fooled = {"fact": FACT, "sign": 1, "trusted": False, "person_label": 0}
    return ContinuousWorld.model_validate(
        {
            "kind": "continuous",
            "heads": {"intended": weights, "instrumental": weights},
            "trunk": {"stddev": f"{STDDEV_TRUNK} θ.trunk"},
            "beliefs": [
                {"copies": 1, "inputs": [trusted] * REPEATS},
                {"copies": FOOLED, "inputs": [fooled] * REPEATS},
            ],
            "multiplier": f"{MULTIPLIER} nat/disagreement",
        }
    )


def kinds(joint: Joint, w_4: jax.Array) -> jax.Array:
    """(log Z and log Z_D of one trusted belief, log Z_D of one fooled, P(truth) on a fooled question) at heads w."""
    agreement_KxJ, data_KxJ, logits = joint.node_costs(w_4)
    log_node_Kx1 = joint.log_node_K[:, None]
    log_z_J = _logsumexp(log_node_Kx1 - agreement_KxJ, axis=0)
    log_weight_KxJ = log_node_Kx1 - agreement_KxJ - data_KxJ
    log_z_data_J = _logsumexp(log_weight_KxJ, axis=0)
    yes_K = jax.nn.sigmoid(logits.intended_BxK[:, REPEATS, 1])  # the first fooled question; all are alike
    truth = jnp.sum(jnp.exp(log_weight_KxJ[:, 1] - log_z_data_J[1]) * yes_K)
    return jnp.stack([log_z_J[0], log_z_data_J[0], log_z_data_J[1], truth])


def first_prior(w_4: Any, extra: Any) -> Any:
    """½ d²/σ1² in nat, for numpy and jax; w's last axis has the four weights."""
    precision = 1.0 / STDDEV_BELIEF**2 + 2.0 * extra
    facts = (w_4[..., 0] - ANCHOR[0]) ** 2 + (w_4[..., 2] - ANCHOR[0]) ** 2
    beliefs = (w_4[..., 1] - ANCHOR[1]) ** 2 + (w_4[..., 3] - ANCHOR[1]) ** 2
    return 0.5 * (precision * facts + beliefs / STDDEV_BELIEF**2)


def evaluated(joint: Joint) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of heads on the grid, (P, 4), and `kinds` there, (P, 4)."""
    w_Px4 = np.stack(np.meshgrid(W_FACT, W_BELIEF, W_FACT, W_BELIEF, indexing="ij"), axis=-1).reshape(-1, 4)
    run = jax.jit(lambda w: jax.lax.map(lambda x: kinds(joint, x), w, batch_size=CHUNK))
    parts = np.array_split(w_Px4, 20)
    with Progress() as progress:
        task = progress.add_task("pairs of heads", total=len(parts))
        found = []
        for part in parts:
            found.append(jax.device_get(run(jnp.asarray(part))))
            progress.advance(task)
    return w_Px4, np.concatenate(found)


def exact_cells() -> Iterator[ExactCell]:
    joint = Joint(world())
    w_Px4, found_Px4 = evaluated(joint)
    log_z_P, log_trusted_P, log_fooled_P, truth_P = found_Px4.T
    honest_P = truth_P > 0.5
    for n in BELIEFS:
        for extra in EXTRA:
            cost_P = first_prior(w_Px4, extra)
            without_P = n * log_trusted_P + FOOLED * log_fooled_P - cost_P
            with_P = without_P - n * log_z_P
            best = [int(np.argmax(np.where(side, with_P, -np.inf))) for side in (honest_P, ~honest_P)]
            yield ExactCell(
                beliefs=int(n),
                extra=float(extra),
                odds_with=_odds(with_P, honest_P),
                odds_without=_odds(without_P, honest_P),
                best_with=float(with_P[best[0]] - with_P[best[1]]),
                best_without=_best(without_P, honest_P),
                recovered=float(n * (log_z_P[best[1]] - log_z_P[best[0]])),
                spent=float(cost_P[best[0]] - cost_P[best[1]]),
                top_with=float(np.max(with_P)),
                top_without=float(np.max(without_P)),
            )


def _odds(log_P: np.ndarray, honest_P: np.ndarray) -> float:
    return float(np.logaddexp.reduce(log_P[honest_P]) - np.logaddexp.reduce(log_P[~honest_P]))


def _best(log_P: np.ndarray, honest_P: np.ndarray) -> float:
    return float(np.max(log_P[honest_P]) - np.max(log_P[~honest_P]))


class Predictor:
    """The world's heads for the train step; there is no world data."""

    def head_logits(self, params: Params, rows: Inputs) -> HeadLogits:
        return head_logits(params, rows)

    def world_logits(self, params: Params, rows: Inputs) -> jax.Array:
        raise AssertionError("this world has no world data")


def member_rows(n: jax.Array, most: int) -> RowSets:
    """n trusted questions and the fooled ones. Rows beyond n have fact and sign 0: both heads say ½ there whatever the
    parameters, which adds a constant to the data and nothing to any gradient, so that all cells share one program."""
    count = (most + FOOLED) * REPEATS
    index = jnp.arange(count) // REPEATS
    fooled = index >= most
    real = fooled | (index < n)
    rows = Inputs(
        fact_B=jnp.where(real, FACT, 0.0),
        sign_B=real.astype(float),
        belief_B=index,
        label_B=jnp.where(fooled, 0, 1),
        trusted_B=~fooled,
        world_targets_BxLxT=jnp.full((count, 1, 1), -1),
    )
    trusted, untrusted = (
        jax.tree.map(lambda x: x[: most * REPEATS], rows),
        jax.tree.map(lambda x: x[most * REPEATS :], rows),
    )
    return RowSets(trusted, untrusted, None, trusted)


def stage_spec(kind: str, log_partition: bool, most: int) -> StageSpec:
    rule = MultiplierRule("multiplicative", 0.01, MULTIPLIER, 1e-3, 1e3, 0.02, 0.0, decay(0.9), np.iinfo(np.int32).max)
    settings = PhaseSettings(kind, 0.05, 1, CHAINS, 2, 0.3, 0.8, True, 10**6, "none", 10, 1, CHAINS)  # type: ignore[arg-type]
    prior = PriorSpec("heads_then_trunk", log_partition, "jensen_shannon", rule, settings, batched())
    schedule = optax.join_schedules(
        [optax.constant_schedule(0.0), optax.cosine_decay_schedule(RATE, STEPS)], [SETTLING]
    )
    counts = Counts(most * REPEATS, FOOLED * REPEATS, 0, most * REPEATS)
    return StageSpec("diagram", Predictor(), HEADS, counts, counts.labels, optax.adam(schedule), prior, None)


def member_state(spec: StageSpec, extra: jax.Array, key: jax.Array, most: int) -> TrainState:
    """Heads drawn from their prior; both phases at the same start: near the centre, or draws from the second prior."""
    prior = spec.prior
    assert prior is not None
    head_key, phase_key, run_key = jax.random.split(key, 3)
    fact = 1.0 / jnp.sqrt(1.0 / STDDEV_BELIEF**2 + 2.0 * extra)
    stddev_2 = jnp.stack([fact, jnp.full_like(fact, STDDEV_BELIEF)])
    anchor_2 = jnp.array(ANCHOR)
    scale = Gaussian({"w": TensorScale(Quantity(stddev_2, displacement("head")))})
    trunk = {"belief": jnp.zeros(most + FOOLED)}
    anchor: Params = {"trunk": trunk, **{head: {"w": anchor_2} for head in HEADS}}
    starts = anchor_2 + stddev_2 * jax.random.normal(head_key, (2, 2))
    params: Params = {head: {"w": starts[i]} for i, head in enumerate(HEADS)}
    second = {"trunk": isotropic(trunk, [Quantity(STDDEV_TRUNK, GROUP_UNITS["trunk"])])}
    measure = {group: Quantity(1.0, unit) for group, unit in GROUP_UNITS.items()}
    held = Held(anchor, anchor, Priors(dict.fromkeys(HEADS, scale), second, measure))
    chains = prior.phases.kind == "chains"
    shape = (CHAINS if chains else 1, most + FOOLED)
    u = jax.random.normal(phase_key, shape) if chains else 0.1 * jax.random.normal(phase_key, shape)
    phase = phases.init_phase({"trunk": {"belief": u}}, prior, optax.adam(0.05, b2=0.95))
    return TrainState(
        jnp.zeros((), jnp.int32),
        run_key,
        params,
        spec.optimizer.init(params),
        held,
        PriorState(phase, phase, multipliers.init(prior.multiplier, jnp.result_type(float)), None),
    )


def trained(method: str) -> Iterator[TrainedCell]:
    """Every cell and seed in one program."""
    kind, log_partition = METHODS[method]
    most = int(BELIEFS[-1])
    spec = stage_spec(kind, log_partition, most)
    cells = [(int(n), float(extra)) for n in BELIEFS for extra in EXTRA]
    n_M, extra_M = (jnp.repeat(jnp.array(column), SEEDS) for column in zip(*cells))
    keys_M = jax.random.split(jax.random.key(0), len(n_M))
    state = jax.jit(jax.vmap(lambda e, k: member_state(spec, e, k, most)))(extra_M, keys_M)

    def step(state: TrainState, n: jax.Array) -> TrainState:
        sets = member_rows(n, most)
        return train_step(spec, optax.adam(0.05, b2=0.95), state, StepInputs(sets, sets, None))[0]

    @jax.jit
    def advance(state: TrainState) -> TrainState:
        return jax.lax.scan(lambda s, _: (jax.vmap(step)(s, n_M), None), state, None, length=20)[0]

    with Progress() as progress:
        task = progress.add_task(f"{method}: {len(n_M)} models", total=SETTLING + STEPS)
        for _ in range((SETTLING + STEPS) // 20):
            state = jax.block_until_ready(advance(state))
            progress.advance(task, 20)
    yield from judged(method, cells, state)


def judged(method: str, cells: list[tuple[int, float]], state: TrainState) -> Iterator[TrainedCell]:
    """The trained heads by quadrature: what their intended head says, and how far stage one is from its best."""
    joint, log_partition = Joint(world()), METHODS[method][1]
    w_Mx4 = jnp.concatenate([state.params[head]["w"] for head in HEADS], axis=-1)
    found_Mx4 = np.asarray(jax.jit(jax.vmap(lambda w: kinds(joint, w)))(w_Mx4))
    exact = {(cell.beliefs, cell.extra): cell for cell in read(EXACT, ExactCell)}
    for index, (n, extra) in enumerate(cells):
        members = slice(index * SEEDS, (index + 1) * SEEDS)
        log_z, log_trusted, log_fooled, truth = found_Mx4[members].T
        reached = n * log_trusted + FOOLED * log_fooled - first_prior(np.asarray(w_Mx4)[members], extra)
        reached = reached - n * log_z if log_partition else reached
        top = exact[n, extra].top_with if log_partition else exact[n, extra].top_without
        yield TrainedCell(
            method, n, extra, float(np.mean(truth > 0.5)), float(np.mean(truth)), float(np.mean(top - reached)), SEEDS
        )


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

    exact, found = read(EXACT, ExactCell), read(TRAINED, TrainedCell)
    shape = (len(BELIEFS), len(EXTRA))
    table = {field: np.array([getattr(cell, field) for cell in exact]).reshape(shape) for field in ExactCell._fields}
    grid, axes = plt.subplots(2, 3, figsize=(14.5, 8.4), constrained_layout=True)

    def contours(ax: Any, log_partition: bool) -> None:
        suffix = "with" if log_partition else "without"
        ax.contour(EXTRA, BELIEFS, table[f"best_{suffix}"], levels=[0.0], colors="gold", linewidths=3.5)
        ax.contour(EXTRA, BELIEFS, table[f"odds_{suffix}"], levels=[0.0], colors="black", linewidths=1.2)

    for ax, log_partition in zip(axes[:, 0], (True, False)):
        odds = table["odds_with" if log_partition else "odds_without"] / math.log(2)
        image = ax.pcolormesh(EXTRA, BELIEFS, odds, cmap="RdBu", vmin=-8, vmax=8, shading="nearest")
        contours(ax, log_partition)
        ax.set_title(f"exact posterior, {'with' if log_partition else 'without'} log Z")
    grid.colorbar(image, ax=axes[:, 0], location="left", shrink=0.6, label="log2-odds honest / imitating, bits")
    for ax, method in zip((axes[0][1], axes[1][1], axes[0][2]), METHODS):
        share = np.array([cell.honest for cell in found if cell.method == method]).reshape(shape)
        image = ax.pcolormesh(EXTRA, BELIEFS, share, cmap="RdBu", vmin=0, vmax=1, shading="nearest")
        contours(ax, METHODS[method][1])
        ax.set_title(f"trained: {method}")
    grid.colorbar(image, ax=axes[0][2], label=f"share of {SEEDS} seeds whose intended head is honest")
    for ax in (*axes[-1, :2], axes[0][2]):
        ax.set_xlabel("translator complexity: extra nats of w_fact = 1")
    against_exact(axes[1][2], exact, found)
    for ax in axes[:, 0]:
        ax.set_ylabel("person-model complexity n: trusted beliefs")
    axes[0][0].plot([], [], color="gold", linewidth=3.5, label="stage one's best heads even, exact")
    axes[0][0].plot([], [], color="black", linewidth=1.2, label="posterior mass even, exact")
    axes[0][0].legend(loc="lower right", fontsize=8)
    grid.savefig(path, dpi=120)
    plt.close(grid)


def against_exact(ax: Any, exact: list[ExactCell], found: list[TrainedCell]) -> None:
    """Share of honest models over the exact log-odds of their cell, in bins of one bit; Wilson intervals."""
    cells = {(cell.beliefs, cell.extra): cell for cell in exact}
    for method, (_, log_partition) in METHODS.items():
        rows = [cell for cell in found if cell.method == method]
        at = [cells[cell.beliefs, cell.extra] for cell in rows]
        odds = np.array([cell.odds_with if log_partition else cell.odds_without for cell in at]) / math.log(2)
        honest = np.array([cell.honest * cell.seeds for cell in rows])
        bins = np.round(odds)
        for_bin = [(b, np.sum(honest[bins == b]), np.sum(bins == b) * SEEDS) for b in np.unique(bins)]
        intervals = [stats.binomtest(round(h), int(n)).proportion_ci(method="wilson") for _, h, n in for_bin]
        share = np.array([h / n for _, h, n in for_bin])
        errors = [share - [i.low for i in intervals], [i.high for i in intervals] - share]
        ax.errorbar(
            [b for b, _, _ in for_bin], share, yerr=np.maximum(errors, 0.0), marker="o", capsize=3, label=method
        )
    line = np.linspace(-9, 8, 200)
    ax.plot(line, 1 / (1 + 2.0**-line), "k--", linewidth=1, label="posterior mass")
    ax.set_xlabel("exact log2-odds of honest heads in the cell, bits")
    ax.set_ylabel("share of trained models that are honest, 95 %")
    ax.legend(fontsize=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("exact", "train", "figure"))
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS), help="of train; others are kept"
    )
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", options.what == "exact")
    if options.what == "exact":
        write(EXACT, list(exact_cells()))
    elif options.what == "train":
        for method in options.methods:  # written method by method: nothing is lost to what comes later
            kept = read(TRAINED, TrainedCell) if TRAINED.exists() else []
            write(TRAINED, [cell for cell in kept if cell.method != method] + list(trained(method)))
    else:
        figure(FIGURE)


if __name__ == "__main__":
    main()
