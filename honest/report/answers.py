"""What the heads of a stage answer to a set of rows."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from honest.data.batch import Batch
from honest.data.loader import to_device
from honest.model.two_head import HeadLogits
from honest.params import Params
from honest.train import phases
from honest.train.predictor import FeaturePredictor, TokenPredictor, feature_rows
from honest.train.spec import StageSpec
from honest.train.stage import Run
from honest.train.state import TrainState


def chain_params(spec: StageSpec, state: TrainState, chain: int) -> Params:
    """All groups at θ2 of one chain (or mode) of the positive phase; without a prior, as trained and held."""
    if spec.prior is None or state.prior is None:
        return {**state.held.start, **state.params}
    u = jax.tree.map(lambda leaf: leaf[chain], state.prior.positive.whitened)
    return phases.place(spec.prior, state.params, state.held, u)


def chains(state: TrainState) -> int:
    return 1 if state.prior is None else state.prior.positive.log_step.shape[0]


class Answers:
    """Answers rows in chunks; the features of a frozen trunk are computed once and shared by all baselines."""

    def __init__(self, run: Run, rows: Batch, chunk: int):
        self.run, self.rows, self.chunk = run, rows, chunk
        self.trunk: Params | None = None  # set when the trunk stage is done

    def __call__(self, spec: StageSpec, state: TrainState) -> HeadLogits:
        """Logits of both heads, float64 on the host: log of the mean probability over chains."""
        per_chain = [self._of(spec, chain_params(spec, state, chain)) for chain in range(chains(state))]
        heads: list[Any] = []  # numpy float64, whatever the precision of the run
        for head in range(2):
            log_p = jnp.stack([jax.nn.log_softmax(jnp.asarray(logits[head])) for logits in per_chain])
            heads.append(np.asarray(jax.scipy.special.logsumexp(log_p, axis=0), np.float64))
        return HeadLogits(heads[0], heads[1])

    def _of(self, spec: StageSpec, params: Params) -> HeadLogits:
        if isinstance(spec.predictor, FeaturePredictor):
            return spec.predictor.head_logits(params, self._features)
        return self._token_answers(params)

    @cached_property
    def _features(self):
        assert self.trunk is not None, "the trunk stage comes first"
        return feature_rows(self.run.model, self.trunk, to_device(self.rows), self.chunk)

    def _token_answers(self, params: Params) -> HeadLogits:
        rows, predictor = to_device(self.rows), TokenPredictor(self.run.model)
        parts = [
            _token_logits(predictor, params, jax.tree.map(lambda leaf, i=start: leaf[i : i + self.chunk], rows))
            for start in range(0, rows.label_B.shape[0], self.chunk)
        ]
        return HeadLogits(*(jnp.concatenate(column) for column in zip(*parts, strict=True)))


@partial(jax.jit, static_argnums=0)
def _token_logits(predictor: TokenPredictor, params: Params, rows: Batch) -> HeadLogits:
    """Compiled once for a model, whoever asks."""
    return predictor.head_logits(params, rows)
