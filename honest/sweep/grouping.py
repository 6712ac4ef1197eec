"""Which members can be trained together: those whose configs differ in numbers that no program depends on."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax
import numpy as np

from honest.baselines import METHODS
from honest.config_io.walk import leaves
from honest.sweep.members import Member
from honest.train.spec import MULTIPLIER_NUMBERS, OPTIMIZER_NUMBERS, PHASE_NUMBERS
from honest.train.stage import Run

# Of a prior these are arrays of the state: scales, and what they are made from.
PRIOR_NUMBERS = (
    "stddev",
    "scale",
    "tie_stddev",
    "spike_stddev",
    "floor",
    "bits",
    "examples",
    "scales.stddev",
    "scales.examples",
    "tensors.*",
)
PRIORS = ("objective.first_prior.*", "objective.second_prior.*")
NUMBERS = (
    "name",
    "seed",
    "task.seed",
    "objective.reference_measure.*",
    *(f"{prior}.{number}" for prior in PRIORS for number in PRIOR_NUMBERS),
    *(f"objective.multiplier.{number}" for number in MULTIPLIER_NUMBERS),
    *(f"objective.phases.{number}" for number in PHASE_NUMBERS),
    *(f"stages.*.optimizer.{number}" for number in OPTIMIZER_NUMBERS),
)


def is_number(key: str) -> bool:
    """Whether members may differ in the value of this dotted key, and still share a program."""
    return any(fnmatchcase(key, pattern) for pattern in NUMBERS)


def program_key(run: Run) -> str:
    """Equal for members that can be trained together: all that is no number, and the sizes of their models and data.

    Members of several hosts, or of another strategy than auto, have a key of their own: see `check_together`.
    """
    parallel = run.config.parallel
    if parallel.strategy != "auto" or parallel.hosts != "one":
        return f"alone: {run.config.name}"
    rest = {key: value for key, value, _ in leaves(run.config) if not is_number(key)}
    return json.dumps([rest, model_key(run), data_key(run)], sort_keys=True, default=str, ensure_ascii=False)


def model_key(run: Run) -> list[Any]:
    """Sizes that the task gives the model; a table's vocabulary is of its training rows, which a seed may choose."""
    task = run.task
    return [task.vocabulary.size, task.max_length, len(task.answers), task.world_channels, task.world_classes]


def data_key(run: Run) -> list[Any]:
    """Shapes and counts of the rows; and what they are, where a baseline's own loss is made from them."""
    splits = run.task.splits
    shapes = [(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(splits)]
    labels = [int(np.sum(np.asarray(part.label_B) >= 0)) for part in (splits.trusted, splits.untrusted, splits.ceiling)]
    tokens = int(np.sum(np.asarray(splits.world.world_targets_BxLxT) >= 0))
    of_rows = any(METHODS[name].penalty is not None for name in run.config.methods if name in METHODS)
    # A loss of a baseline may be made from any of the rows, and the first member's would serve all.
    content = [zlib.crc32(np.ascontiguousarray(leaf).tobytes()) for leaf in jax.tree.leaves(splits)] if of_rows else []
    return [shapes, labels, tokens, content]


def groups_of(members: Sequence[Member], keys: Sequence[str], most: int) -> list[list[Member]]:
    """Members of one key together, at most so many, in the order of the sweep. keys: `program_key` of each."""
    by_key: dict[str, list[Member]] = {}
    for member, key in zip(members, keys, strict=True):
        by_key.setdefault(key, []).append(member)
    return [group[first : first + most] for group in by_key.values() for first in range(0, len(group), most)]
