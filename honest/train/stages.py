"""The stages of a run, made from its config and task: with `prior_stage`, the one place where the trainer reads them.

trunk → the methods that the config lists, in its order
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from honest.baselines import METHODS
from honest.baselines.method import Method, PenaltyContext
from honest.data.batch import Batch
from honest.data.loader import to_device
from honest.objective.predictions import Counts, RowSets
from honest.params import Params
from honest.train.predictor import FeaturePredictor, FeatureRows, TokenPredictor, feature_rows
from honest.train.prior_stage import prior_stage
from honest.train.spec import HEADS, StageSpec
from honest.train.stage import (
    PRIOR,
    TRUNK,
    Results,
    Run,
    Stage,
    assemble,
    fresh_state,
    labelled_rows,
    stage_optimizer,
)
from honest.train.state import Held, TrainState

FEATURE_CHUNK = 4096  # rows per pass when a frozen trunk's features are computed


def make_stage(run: Run, name: str, results: Results) -> Stage:
    """The stage `name`, given the results of those before it."""
    if name == TRUNK:
        return _trunk_stage(run)
    if name == PRIOR:
        return prior_stage(run, results[TRUNK][TRUNK])
    return method_stage(run, METHODS[name], results[TRUNK][TRUNK])


def _trunk_stage(run: Run) -> Stage:
    world = to_device(run.task.splits.world)
    tokens = int(np.sum(run.task.splits.world.world_targets_BxLxT >= 0))
    spec = StageSpec(
        name=TRUNK,
        predictor=TokenPredictor(run.model),
        trained=("trunk",),
        counts=Counts(0, 0, tokens, 0),
        examples=world.label_B.shape[0],
        optimizer=stage_optimizer(run.config.stages.trunk),
        prior=None,
        penalty=None,
    )

    def init() -> TrainState:
        params = run.anchor()
        return fresh_state(run, spec, {"trunk": params["trunk"]}, Held({}, {h: params[h] for h in HEADS}, None), None)

    return assemble(run, spec, RowSets(None, None, world, None), init)


def method_stage(run: Run, method: Method, trunk: Params) -> Stage:
    rows = method.rows(run.task.splits, run.config.objective.supervision.instrumental)

    def read(part: Batch) -> FeatureRows:
        return feature_rows(run.model, trunk, to_device(part), FEATURE_CHUNK)

    features = [None if part is None else read(part) for part in (rows.intended, rows.instrumental, rows.target)]
    targets = 0 if rows.target is None else rows.target.label_B.shape[0]
    pairs = run.task.splits.comparisons if rows.compared else None
    compared: Any = None
    if pairs is not None:
        compared = jax.tree.map(read, pairs, is_leaf=lambda part: isinstance(part, Batch))
    made = 0 if pairs is None else pairs.better.label_B.shape[0]
    counts = Counts(labelled_rows(rows.intended), labelled_rows(rows.instrumental), 0, targets, made)
    context = PenaltyContext(run.config.baselines, rows, run.config.stages.heads.steps)
    trained = HEADS if rows.instrumental is not None else HEADS[:1]
    spec = StageSpec(
        name=method.name,
        predictor=FeaturePredictor(run.model),
        trained=trained,
        counts=counts,
        examples=counts.labels,
        optimizer=stage_optimizer(run.config.stages.heads),
        prior=None,
        penalty=None if method.penalty is None else method.penalty(context),
    )

    def init() -> TrainState:
        fresh = run.model.init(run.key(method.name))  # heads of its own: two methods must not coincide bit for bit
        held = {head: fresh[head] for head in HEADS if head not in trained}
        return fresh_state(run, spec, {head: fresh[head] for head in trained}, Held({}, held, None), None)

    return assemble(run, spec, RowSets(features[0], features[1], None, features[2], compared), init)
