"""The transformer as the objective sees it: on token rows, or on rows of features of a frozen trunk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from honest.data.batch import Batch
from honest.model.two_head import HeadLogits, Model
from honest.params import Params, Tree


@dataclass(frozen=True)
class TokenPredictor:
    """Reads `Batch` rows with the whole model."""

    model: Model

    def head_logits(self, params: Params, rows: Batch) -> HeadLogits:
        return self.model.head_logits(params, jnp.asarray(rows.tokens_BxL), jnp.asarray(rows.last_B))

    def world_logits(self, params: Params, rows: Batch) -> jax.Array:
        return self.model.world_logits(params["trunk"], jnp.asarray(rows.tokens_BxL))


class FeatureRows(NamedTuple):
    """Rows whose trunk features are computed once, because the trunk is frozen."""

    features_BxD: jax.Array
    label_B: jax.Array


@dataclass(frozen=True)
class FeaturePredictor:
    """Reads `FeatureRows` with the heads alone. There is no world term on a frozen trunk."""

    model: Model

    def head_logits(self, params: Params, rows: FeatureRows) -> HeadLogits:
        return HeadLogits(
            self.model.head(params["intended_head"], rows.features_BxD),
            self.model.head(params["instrumental_head"], rows.features_BxD),
        )

    def world_logits(self, params: Params, rows: FeatureRows) -> jax.Array:
        raise TypeError("a frozen trunk's features have no world tokens; leave RowSets.world None")


@partial(jax.jit, static_argnums=0)
def _features(model: Model, trunk: Tree, tokens_BxL: jax.Array, last_B: jax.Array) -> jax.Array:
    """Compiled once for a model, however many sets of rows ask."""
    return model.features(trunk, tokens_BxL, last_B)


def feature_rows(model: Model, trunk: Tree, rows: Batch, chunk: int) -> FeatureRows:
    """The rows' features, `chunk` rows at a time."""
    parts = [
        _features(model, trunk, rows.tokens_BxL[start : start + chunk], rows.last_B[start : start + chunk])
        for start in range(0, rows.tokens_BxL.shape[0], chunk)
    ]
    return FeatureRows(jnp.concatenate(parts), jnp.asarray(rows.label_B))
