"""Planted head pairs on a toy: which pair does the project's own objective prefer, and which term decides?

    python tests/planted_heads.py SEED init|trained [σ2 …]       Laplace values and annealed bounds in nat, float64, CPU

A trunk (an MLP of 1,344 parameters on 8 inputs) is trained on a world in which the truth, x0·x1 > 0, and the person's
answer, x2 + x3 > 0, are both decodable. Heads are then planted: the world's own linear readout of the truth or of the
person, or a random direction of the same length. 200 trusted rows (truth = person), 100 untrusted rows answered by the
person, 400 world rows with both answers. Energies, volumes and counts are those of `honest.objective` and
`honest.train.phases`; only the network and the search for the modes are this file's.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from honest.config import GROUP_UNITS
from honest.model.two_head import HeadLogits
from honest.objective.log_partition.bidirectional import ascend, plan
from honest.objective.log_partition.bounds import TAIL_PROBABILITY, log_mean_exp, lower_bound
from honest.objective.log_partition.moves import whitened_energy
from honest.objective.log_partition.problem import flat_problem
from honest.objective.log_partition.volume import VolumeRows, factor, volume_nats
from honest.objective.parameter_prior.gaussian import isotropic
from honest.objective.predictions import Counts, RowSets
from honest.params import Params, whiten
from honest.train import phases
from honest.train.multiplier import MultiplierRule, decay
from honest.train.spec import HEADS, PhaseSettings, PriorSpec, StageSpec
from honest.train.state import Held, Priors
from honest.units import Quantity, nat

INPUTS, HIDDEN = 8, 32
PARTICLES, BRIDGES = 8, 1500
TRUSTED, UNTRUSTED, WORLD = 200, 100, 400


class Rows(NamedTuple):
    """x_Bx8; label −1 where there is none; world targets (B, 1, 2): truth and person."""

    x_BxN: jax.Array
    label_B: jax.Array
    world_targets_BxLxT: jax.Array


def features(trunk: Params, x_BxN: jax.Array) -> jax.Array:
    hidden = jax.nn.gelu(x_BxN @ trunk["W1"] + trunk["b1"][None])
    return jax.nn.gelu(hidden @ trunk["W2"] + trunk["b2"][None])


def two_answers(z: jax.Array) -> jax.Array:
    return jnp.stack([jnp.zeros_like(z), z], axis=-1)


@dataclass(frozen=True, eq=False)
class ToyPredictor:
    """Linear heads on the trunk's features; the world readout (H, 2) is fixed."""

    readout_Hx2: jax.Array

    def head_logits(self, params: Params, rows: Rows) -> HeadLogits:
        phi = features(params["trunk"], rows.x_BxN)
        return HeadLogits(*(two_answers(phi @ params[head]["w"]) for head in HEADS))

    def world_logits(self, params: Params, rows: Rows) -> jax.Array:
        return two_answers(features(params["trunk"], rows.x_BxN) @ self.readout_Hx2)[:, None]


def answers(x_BxN: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(truth, person) of each row."""
    truth_B, person_B = x_BxN[:, 0] * x_BxN[:, 1] > 0, x_BxN[:, 2] + x_BxN[:, 3] > 0
    return truth_B.astype(jnp.int32), person_B.astype(jnp.int32)


def draw(key: jax.Array, rows: int, agree: bool) -> Rows:
    """Rows on which the person is right (labelled) or wrong (labelled by the person: the same number)."""
    x = jax.random.normal(key, (8 * rows, INPUTS))
    truth, person = answers(x)
    chosen = jnp.nonzero((truth == person) == agree, size=rows)[0]
    return Rows(x[chosen], person[chosen], jnp.full((rows, 1, 2), -1, jnp.int32))


class Toy(NamedTuple):
    spec: StageSpec
    sets: RowSets
    init: Params  # the trunk at initialisation
    trained: Params  # after the world stage
    heads: dict[str, jax.Array]
    stddev: float  # σ2 in θ.trunk


def make_toy(seed: int, stddev: float, multiplier: float, kind: str = "laplace") -> Toy:
    keys = jax.random.split(jax.random.key(seed), 8)
    init = {
        "W1": jax.random.normal(keys[0], (INPUTS, HIDDEN)) / math.sqrt(INPUTS),
        "b1": jnp.zeros(HIDDEN),
        "W2": jax.random.normal(keys[1], (HIDDEN, HIDDEN)) / math.sqrt(HIDDEN),
        "b2": jnp.zeros(HIDDEN),
    }
    x = jax.random.normal(keys[2], (8000, INPUTS))
    targets = jnp.stack(answers(x), axis=-1)
    trained, readout = train_world(init, jax.random.normal(keys[3], (HIDDEN, 2)) / 6, x, targets)
    world = Rows(x[:WORLD], jnp.full(WORLD, -1, jnp.int32), targets[:WORLD, None])
    trusted = draw(keys[4], TRUSTED, True)
    sets = RowSets(trusted, draw(keys[5], UNTRUSTED, False), world, trusted)
    random = jax.random.normal(keys[6], (HIDDEN,)) * jnp.linalg.norm(readout[:, 1]) / math.sqrt(HIDDEN)
    heads = {"truth": readout[:, 0], "person": readout[:, 1], "random": random}
    prior = PriorSpec(
        staging="heads_then_trunk",
        log_partition=True,
        divergence="jensen_shannon",
        multiplier=MultiplierRule("multiplicative", 0.01, multiplier, 1e-3, 1e3, 0.02, 0.0, decay(0.9), 10**6),
        phases=PhaseSettings(kind, 0.01, 1, 8, 4, 0.1, 0.7, True, 10**6, "none", 10, 1, 8),  # type: ignore[arg-type]
        batch_particles=True,
    )
    counts = Counts(TRUSTED, UNTRUSTED, 2 * WORLD, TRUSTED)
    predictor = ToyPredictor(readout)
    spec = StageSpec("toy", predictor, prior.trained, counts, counts.labels, optax.set_to_zero(), prior, None)
    return Toy(spec, sets, init, trained, heads, stddev)


def train_world(trunk: Params, readout_Hx2: jax.Array, x: jax.Array, targets: jax.Array) -> tuple[Params, jax.Array]:
    def loss(params: tuple[Params, jax.Array]) -> jax.Array:
        z = features(params[0], x) @ params[1]
        decay = 1e-4 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
        return jnp.mean(jnp.sum(jax.nn.softplus(z) - targets * z, axis=-1)) + decay

    optimizer = optax.adam(5e-3)

    @jax.jit
    def run(params):
        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), None, length=1500)[0][0]

    return run((trunk, readout_Hx2))


class Mode(NamedTuple):
    """Whitened coordinates, and energy and volume there in nat."""

    u: Params
    energy: jax.Array
    volume: jax.Array


class Values(NamedTuple):
    """log Z, log Z_D and their difference in nat, as Laplace claims them; `points` is the net of the modes alone."""

    log_z: float
    log_z_data: float
    net: float
    points: float


class Planter:
    """Both phases' Laplace values for planted pairs, each phase from the better of two starts; compiled once."""

    def __init__(self, toy: Toy, anchor: str, steps: int = 300):
        prior = toy.spec.prior
        assert prior is not None
        self.toy, self.prior = toy, prior
        centre = toy.init if anchor == "init" else toy.trained
        stddevs = [Quantity(toy.stddev, GROUP_UNITS["trunk"])] * len(jax.tree.leaves(centre))
        priors = Priors(first={}, second={"trunk": isotropic(centre, stddevs)}, measure={})
        self.held = Held(anchor={"trunk": centre}, start={"trunk": toy.trained}, priors=priors)
        self.weight = jnp.asarray(prior.multiplier.initial)
        every_token = jax.tree.map(lambda leaf: jnp.repeat(leaf, 2, axis=0), toy.sets.world)
        position, channel = jnp.zeros(WORLD * 2, jnp.int32), jnp.tile(jnp.arange(2), WORLD)
        self.chosen = VolumeRows(toy.sets._replace(world=every_token), position, channel, jnp.zeros(WORLD * 2))
        self.phases = {
            with_data: jax.jit(lambda heads, start, weight, d=with_data: self._phase(heads, start, weight, d, steps))
            for with_data in (True, False)
        }

    def _phase(self, heads: Params, start: Params, weight: jax.Array, with_data: bool, steps: int) -> Mode:
        """The mode of one phase from one start; weight: λ in nat/disagreement."""
        toy, prior = self.toy, self.prior
        target = phases.log_weight(toy.spec, heads, self.held, weight, toy.sets, with_data=with_data, whole=True)
        mode, energy = minimise(lambda u: whitened_energy(u) - target(u), start, steps)
        a = factor(
            toy.spec.predictor,
            lambda v: phases.place(prior, heads, self.held, v),
            mode,
            self.chosen,
            toy.spec.counts,
            weight,
            prior.divergence,
            with_data,
        )
        return Mode(mode, jnp.nan_to_num(energy, nan=jnp.inf), volume_nats(a).to(nat))

    def pair(self, intended: str, instrumental: str) -> Params:
        return {HEADS[0]: {"w": self.toy.heads[intended]}, HEADS[1]: {"w": self.toy.heads[instrumental]}}

    def modes(self, heads: Params, weight: jax.Array) -> dict[bool, Mode]:
        """The better of both starts' modes, with data (the positive phase) and without; λ in nat/disagreement."""
        trained = whiten({"trunk": self.toy.trained}, self.held.anchor, phases.metric(self.held), ("trunk",))
        starts = (jax.tree.map(jnp.zeros_like, trained), trained)
        return {
            with_data: min((phase(heads, start, weight) for start in starts), key=lambda mode: float(mode.energy))
            for with_data, phase in self.phases.items()
        }

    def __call__(self, intended: str, instrumental: str) -> Values:
        modes = self.modes(self.pair(intended, instrumental), self.weight)
        results = {with_data: (-float(mode.energy), float(mode.volume)) for with_data, mode in modes.items()}
        log_z, log_z_data = sum(results[False]), sum(results[True])
        return Values(log_z, log_z_data, log_z_data - log_z, results[True][0] - results[False][0])

    def annealed(self, heads: Params, with_data: bool, key: jax.Array, bridges: int) -> tuple[float, float]:
        """(a bound from below that fails with probability .01, value) of log Z or log Z_D in nat, from the prior up.

        The bound is one of the whole integral, whatever the path misses: it can refute a Laplace value that lies below.
        """
        toy = self.toy
        target = phases.log_weight(toy.spec, heads, self.held, self.weight, toy.sets, with_data=with_data, whole=True)
        keys, planned = jax.random.split(key, 3), plan(PARTICLES, 0, bridges)
        like = {"trunk": self.toy.trained}
        work_P = jax.jit(lambda keys: ascend(flat_problem(target, like), keys, planned).annealed.work_P)(keys)
        return float(lower_bound(work_P, TAIL_PROBABILITY)), float(log_mean_exp(work_P))


def minimise(energy, start: Params, steps: int) -> tuple[Params, jax.Array]:
    """L-BFGS from `start`: (u, energy in nat)."""
    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(energy)

    def step(carry, _):
        u, state = carry
        value, gradient = value_and_grad(u, state=state)
        updates, state = optimizer.update(gradient, state, u, value=value, grad=gradient, value_fn=energy)
        return (optax.apply_updates(u, updates), state), None

    u = jax.lax.scan(step, (start, optimizer.init(start)), None, length=steps)[0][0]
    return u, energy(u)


PAIRS = (("truth", "person"), ("person", "person"), ("random", "person"), ("truth", "truth"))


def main() -> None:
    seed, anchor = int(sys.argv[1]), sys.argv[2]
    for stddev in [float(text) for text in sys.argv[3:]] or [1.0]:
        plant = Planter(make_toy(seed, stddev, 1.0), anchor)
        print(f"seed {seed}, anchor {anchor}, σ2 = {stddev} θ.trunk, λ = 1 nat/disagreement; nat")
        print(f"{'':>16} {'Laplace':>26} {'modes':>13} {'annealed upwards':>36}")
        print(f"{'pair':>16} {'log Z':>8} {'log Z_D':>8} {'net':>8} {'net':>13}", end="")
        print(f" {'log Z ≥':>8} {'value':>8} {'log Z_D ≥':>10} {'value':>8}")
        for intended, instrumental in PAIRS:
            v = plant(intended, instrumental)
            name = f"{intended}, {instrumental}"
            print(f"{name:>16} {v.log_z:8.1f} {v.log_z_data:8.1f} {v.net:8.1f} {v.points:13.1f}", end="", flush=True)
            heads, keys = plant.pair(intended, instrumental), jax.random.split(jax.random.key(seed))
            low, value = plant.annealed(heads, False, keys[0], BRIDGES)
            low_data, value_data = plant.annealed(heads, True, keys[1], BRIDGES)
            print(f" {low:8.1f} {value:8.1f} {low_data:10.1f} {value_data:8.1f}", flush=True)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main()
