"""A batch in parts: how its rows are dealt out, and the sum of what each part adds to the loss and to its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

from honest.objective.data_loss import labels_in
from honest.objective.predictions import WHOLE, Part, RowSets, Share, size
from honest.params import Params, Tree

Answer = TypeVar("Answer")


def deal(rows: Tree, parts: int) -> tuple[Tree, jax.Array]:
    """Rows (B, …) as parts (P, ⌈B/P⌉, …), and whether each is one of them, (P, ⌈B/P⌉).

    Row r goes to part r mod P, so that rows split over devices stay where they are. What is left to fill is filled with
    the last row.
    """
    count = size(rows)
    each = -(-count // parts)
    index = jnp.arange(each * parts)

    def split(leaf: jax.Array) -> jax.Array:
        return leaf.reshape(each, parts, *leaf.shape[1:]).swapaxes(0, 1)

    if each * parts != count:
        rows = jax.tree.map(lambda leaf: leaf[jnp.minimum(index, count - 1)], rows)
    return jax.tree.map(split, rows), split(index < count)


def collect(dealt: Tree, count: int) -> Tree:
    """The inverse of `deal`: the first `count` rows of the parts in their order."""
    return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1).reshape(-1, *leaf.shape[2:])[:count], dealt)


def added_up(
    of_rows: Callable[[RowSets, Part], tuple[Answer, Params]], variables: Params, batch: RowSets, parts: int
) -> tuple[Answer, Params]:
    """Σ over parts of `of_rows`: scalars and their gradient in `variables`, one part's activations at a time.

    `of_rows` is to be a sum over rows divided by the numbers of labels that its `Part` says, which are the whole
    batch's: a mean of the parts' means would be another number where parts have unequally many labels. Every set is
    dealt out by itself; sets of fewer rows than parts leave parts without any. A batch whose sets all have fewer rows
    than `parts` has as many parts as rows.
    """
    present = {name: rows for name, rows in batch._asdict().items() if rows is not None}
    parts = min(parts, max((size(rows) for rows in present.values()), default=1))
    if parts == 1:
        return of_rows(batch, WHOLE)
    dealt = {name: deal(rows, parts) for name, rows in present.items()}
    labels = labels_in(batch)

    def add(total: Params, part: dict[str, tuple[Tree, jax.Array]]) -> tuple[Params, Answer]:
        rows = {name: own for name, (own, _) in part.items()}
        shares = {name: Share(part[name][1], labels[name], size(present[name])) for name in labels}
        answer, gradient = of_rows(batch._replace(**rows), WHOLE._replace(**shares))
        return jax.tree.map(jnp.add, total, gradient), answer

    gradient, answers = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, variables), dealt)
    return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), answers), gradient
