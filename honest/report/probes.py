"""Fits the probes of a run to its frozen trunk, and answers the test rows with them."""

from __future__ import annotations

import zlib
from functools import cached_property

import numpy as np

from honest.baselines import PROBES
from honest.baselines.probe import Features, ProbeRows
from honest.data.batch import Batch
from honest.data.loader import to_device
from honest.params import Params
from honest.train.predictor import feature_rows
from honest.train.stage import Run


class Probing:
    """Reads features once for all probes; what is fitted is a function of the trunk, the config and its seed."""

    def __init__(self, run: Run, trunk: Params):
        self.run, self.trunk = run, trunk

    def logits(self, name: str) -> np.ndarray:
        """[0, z] of each test row, float64 (B, 2), by the probe `name` fitted to trusted (and unlabelled) rows."""
        rng = np.random.default_rng([self.run.config.seed, zlib.crc32(name.encode())])
        z_B = PROBES[name].fit(self._rows, self.run.config.baselines.probes, rng)(self._test)
        return np.stack([np.zeros_like(z_B), z_B], axis=1)

    @cached_property
    def _rows(self) -> ProbeRows:
        splits = self.run.task.splits
        label_N = np.asarray(splits.trusted.label_B)
        labelled_N = label_N >= 0
        question, true, false = self._features(splits.trusted)
        trusted = Features(question[labelled_N], *(x if x is None else x[labelled_N] for x in (true, false)))
        return ProbeRows(trusted, label_N[labelled_N], self._features(splits.untrusted))

    @cached_property
    def _test(self) -> Features:
        return self._features(self.run.task.splits.test.batch)

    def _features(self, rows: Batch) -> Features:
        contrast = self.run.task.contrast
        if contrast is None:
            return Features(self._of(rows), None, None)
        return Features(self._of(rows), *(self._of(part) for part in contrast(rows)))

    def _of(self, rows: Batch) -> np.ndarray:
        chunk = self.run.config.evaluation.batch_rows
        found = feature_rows(self.run.model, self.trunk, to_device(rows), chunk)
        return np.asarray(found.features_BxD, np.float64)
