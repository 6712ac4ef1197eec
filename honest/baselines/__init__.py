"""Every baseline by its name in a config's `methods`. One file each: a loss for the one trainer, or a probe."""

from __future__ import annotations

from honest.baselines import (
    ccs,
    confidence,
    contrast_logistic,
    dbat,
    difference_in_means,
    divdis,
    lda,
    logistic_regression,
    person_head,
    plain_heads,
    random_direction,
    single_head,
    truth_ceiling,
)
from honest.baselines.method import Method
from honest.baselines.probe import Probe

METHODS: dict[str, Method] = {
    module.METHOD.name: module.METHOD
    for module in (single_head, plain_heads, truth_ceiling, person_head, divdis, dbat, confidence)
}
PROBES: dict[str, Probe] = {
    module.PROBE.name: module.PROBE
    for module in (logistic_regression, difference_in_means, lda, contrast_logistic, ccs, random_direction)
}
