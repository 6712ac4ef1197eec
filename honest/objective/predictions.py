"""What the objective asks of a model, and which rows it asks about.

Term functions never see a config or a network: they see logits. A `Predictor` turns parameters and rows into logits;
`RowSets` are the declared finite populations (or a batch of each); `Counts` are the populations' sizes, which turn a
batch's means into whole-set sums. Axes: B rows, L positions, T target channels, K answers, V classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from honest.model.two_head import HeadLogits
from honest.params import Params
from honest.units import Quantity

ANSWERED = ("trusted", "untrusted", "consistency")  # sets of rows that the heads answer one by one
Rows = Any  # a NamedTuple of arrays with leading axis B that has `label_B` and `world_targets_BxLxT`


class Predictor(Protocol):
    """Logits of a model; `honest.train.predictor` wraps the transformer, tests wrap small networks."""

    def head_logits(self, params: Params, rows: Rows) -> HeadLogits: ...

    def world_logits(self, params: Params, rows: Rows) -> jax.Array: ...  # logits_BxLxTxV


class RowSets(NamedTuple):
    """The rows behind each likelihood term; None where a stage has no such term.

    trusted: labels explained by the intended head. untrusted: the person's answers, explained by the instrumental
    head. world: tokens explained by the trunk's readout. consistency: rows on which the heads are to agree. compared:
    pairs (fields `better` and `worse`, rows each), of which the intended head explains which one is better.
    """

    trusted: Rows | None
    untrusted: Rows | None
    world: Rows | None
    consistency: Rows | None
    compared: Any | None = None


@dataclass(frozen=True)
class Counts:
    """Sizes of the declared populations: labelled examples, world tokens, N_c, and comparisons."""

    trusted: int
    untrusted: int
    world_tokens: int
    consistency: int
    compared: int = 0

    @property
    def labels(self) -> int:
        return self.trusted + self.untrusted + self.compared


class Predictions(NamedTuple):
    """Logits for each row set; None where the set is None."""

    trusted: HeadLogits | None
    untrusted: HeadLogits | None
    world: jax.Array | None
    consistency: HeadLogits | None
    compared: tuple[HeadLogits, HeadLogits] | None = None  # of the better and of the worse row


class Share(NamedTuple):
    """What a part of a batch is of the whole batch, for one set of rows.

    real_B: whether a row of the part is one of the batch's; others fill the part up. labels: the whole batch's number
    of labels, world tokens, or pairs. rows: the whole batch's number of rows.
    """

    real_B: jax.Array
    labels: jax.Array | int
    rows: int


class Part(NamedTuple):
    """The shares of a part's sets. None: the set is not there, or its rows are all of the batch's."""

    trusted: Share | None
    untrusted: Share | None
    world: Share | None
    compared: Share | None


WHOLE = Part(None, None, None, None)


def size(rows: Rows) -> int:
    return jax.tree.leaves(rows)[0].shape[0]


def predict(predictor: Predictor, params: Params, sets: RowSets) -> Predictions:
    """Logits of every set that is there; the sets answered by the heads share one trunk pass."""
    asked = {name: rows for name, rows in sets._asdict().items() if rows is not None and name in ANSWERED}
    if sets.compared is not None:
        asked |= sets.compared._asdict()
    answers: dict[str, HeadLogits | None] = dict.fromkeys(ANSWERED)
    if asked:
        joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *asked.values())
        logits = predictor.head_logits(params, joined)
        start = 0
        for name, rows in asked.items():
            stop = start + size(rows)
            answers[name] = HeadLogits(logits.intended_BxK[start:stop], logits.instrumental_BxK[start:stop])
            start = stop
    better, worse = answers.pop("better", None), answers.pop("worse", None)
    world = None if sets.world is None else predictor.world_logits(params, sets.world)
    compared = None if better is None or worse is None else (better, worse)
    return Predictions(world=world, compared=compared, **answers)


def sum_over_rows(total_of: Callable[[Rows, jax.Array], Quantity], rows: Rows, chunk: int, zero: Quantity) -> Quantity:
    """Σ over a whole population, `chunk` rows at a time.

    `total_of(rows, real_B)` sums over the rows where the mask `real_B` holds. The last chunk is padded by row 0,
    masked. Each chunk is rematerialised, so that the gradient of the sum holds one chunk's activations at a time.
    """
    count = size(rows)
    if count <= chunk:
        return zero + total_of(rows, jnp.ones(count, bool))
    chunks = -(-count // chunk)
    index = jnp.arange(chunks * chunk)
    real = (index < count).reshape(chunks, chunk)
    index = jnp.where(index < count, index, 0).reshape(chunks, chunk)
    stacked = jax.tree.map(lambda leaf: leaf[index], rows)

    def add_chunk(carry: Quantity, part: tuple[Rows, jax.Array]) -> tuple[Quantity, None]:
        return carry + total_of(*part), None

    return jax.lax.scan(jax.checkpoint(add_chunk), zero, (stacked, real))[0]
