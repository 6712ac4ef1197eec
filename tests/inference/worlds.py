"""Random finite worlds, and their posterior by plain loops over everything: the independent answer of the tests."""

from __future__ import annotations

import itertools
import math

import numpy as np

from honest.config_world import FiniteWorld

EXAMPLE = {
    "inputs": 3,
    "trusted": [0, 1, 2, 5],
    "slots": {
        "fact": {"tables": ["00010111", "01010101"], "bits": [3.0, 1.0]},
        "belief": {"tables": ["00010111", "00110011"], "bits": [2.0, 2.0]},
    },
    "readers": [
        {"name": "read_fact", "table": "0011", "bits": 5.0},
        {"name": "read_belief", "table": "0101", "bits": 1.0},
    ],
    "tied_bits": None,
    "labels": {"0": 0, "1": 0, "2": 0, "5": 1},
    "person_labels": {"3": 1},
    "label_noise": 0.001,
    "multiplier": math.inf,
}


def example(**changed) -> FiniteWorld:
    return FiniteWorld(**(EXAMPLE | changed))


def random_world(seed: int) -> FiniteWorld:
    """Two or three slots of two to four tables over eight inputs, three readers; every option now and then."""
    rng = np.random.default_rng(seed)
    words = lambda count, length: ["".join(map(str, rng.integers(2, size=length))) for _ in range(count)]  # noqa: E731
    slots = {}
    for s in range(rng.integers(2, 4)):
        tables = sorted(set(words(rng.integers(2, 5), 8)))
        slots[f"slot{s}"] = {"tables": tables, "bits": list(rng.uniform(0, 4, len(tables)))}
    trusted = sorted(int(x) for x in rng.permutation(8)[: rng.integers(0, 5)])
    untrusted = [x for x in range(8) if x not in trusted]
    return FiniteWorld(
        inputs=3,
        trusted=trusted,
        slots=slots,
        readers=[
            {"name": f"r{i}", "table": words(1, 2 ** len(slots))[0], "bits": float(rng.uniform(0, 5))} for i in range(3)
        ],
        tied_bits=[None, 0.0, 2.5][rng.integers(3)],
        labels={str(x): int(rng.integers(2)) for x in trusted if rng.random() < 0.7},
        person_labels={str(x): int(rng.integers(2)) for x in untrusted if rng.random() < 0.3},
        label_noise=float([0.05, 0.3][rng.integers(2)]),
        multiplier=float([math.inf, 0.0, 0.7, 2.0][rng.integers(4)]),
    )


def by_loops(world: FiniteWorld) -> dict[tuple[int, int], tuple[float, float, float, float, float]]:
    """(prior, Z, Σ π e^{−md} L, max π e^{−md}, max π e^{−md} L) of each pair of readers."""
    found = {}
    for pair, (prior, states) in states_by_loops(world).items():
        z = [trunk * agreement for trunk, agreement, _ in states]
        joint = [trunk * agreement * likelihood for trunk, agreement, likelihood in states]
        found[pair] = (prior, math.fsum(z), math.fsum(joint), max(z), max(joint))
    return found


def ledger_by_loops(world: FiniteWorld) -> list[float]:
    """(data, first prior, second prior, consistency, −log Z) in nat, in the mean over the posterior with log Z."""
    sums, states = by_loops(world), states_by_loops(world)
    total = math.fsum(prior * joint / z for prior, z, joint, _, _ in sums.values() if z > 0)
    rows = [0.0] * 5
    for pair, (prior, z, *_) in sums.items():
        for trunk, agreement, likelihood in states[pair][1]:
            weight = prior * trunk * agreement * likelihood / z / total if z > 0 else 0.0
            if weight > 0:
                factors = (likelihood, prior, trunk, agreement, 1 / z)
                rows = [row + weight * math.log(factor) for row, factor in zip(rows, factors)]
    return rows


def states_by_loops(world: FiniteWorld) -> dict[tuple[int, int], tuple[float, list[tuple[float, float, float]]]]:
    """(prior, (π, e^{−md}, L) of every state) of each pair of readers."""
    slots = list(world.slots.values())
    weights = [2.0**-reader.bits for reader in world.readers]
    rho = [w / sum(weights) for w in weights]
    tau = 0.0 if world.tied_bits is None else 2.0**-world.tied_bits
    noise, found = world.label_noise, {}
    for i, plus in enumerate(world.readers):
        for j, minus in enumerate(world.readers):
            states = []
            for chosen in itertools.product(*(range(len(slot.tables)) for slot in slots)):
                trunk = 1.0
                for slot, t in zip(slots, chosen):
                    trunk *= 2.0 ** -slot.bits[t] / sum(2.0**-b for b in slot.bits)

                def answer(reader, x, chosen=chosen):
                    word = "".join(slot.tables[t][x] for slot, t in zip(slots, chosen))
                    return int(reader.table[int(word, 2)])

                differ = sum(answer(plus, x) != answer(minus, x) for x in world.trusted)
                agreement = math.exp(-world.multiplier * differ) if differ else 1.0
                likelihood = 1.0
                for reader, labels in ((plus, world.labels), (minus, world.person_labels)):
                    for x, y in labels.items():
                        likelihood *= 1 - noise if answer(reader, int(x)) == y else noise
                states.append((trunk, agreement, likelihood))
            prior = rho[i] * ((1 - tau) * rho[j] + tau * (i == j))
            found[i, j] = (prior, states)
    return found
