"""A stage and its states as one process reads them outside the compiled step."""

from __future__ import annotations

from dataclasses import replace

from jax.sharding import Mesh

from honest.train.hosts import own_copy
from honest.train.stage import Stage
from honest.train.state import TrainState


class OwnView:
    """Stage and state with every array gathered on one device of this process (see `own_copy`).

    Evaluations hold on to what they computed for the latest stage and state: the same ones give the same objects.
    """

    def __init__(self, mesh: Mesh):
        self.mesh = mesh
        self._stage: tuple[Stage, Stage] | None = None
        self._state: tuple[TrainState, TrainState] | None = None

    def __call__(self, stage: Stage, state: TrainState) -> tuple[Stage, TrainState]:
        if self.mesh.size == 1:
            return stage, state
        if self._stage is None or self._stage[0] is not stage:
            own = replace(stage, sets=own_copy(stage.sets, self.mesh), volume=own_copy(stage.volume, self.mesh))
            self._stage = stage, own
        if self._state is None or self._state[0] is not state:
            self._state = state, own_copy(state, self.mesh)
        return self._stage[1], self._state[1]
