"""What a solver arrives at: the ledger of the log joint, the same rows for every kind of world."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Ledger(NamedTuple):
    """Contributions to the log joint in nat: a Quantity, arrays or floats; of one state, or their mean over draws.

    A continuous world leaves its Gaussians' constants out; a finite world's priors are whole log probabilities.
    """

    data: Any
    first_prior: Any
    second_prior: Any
    consistency: Any
    log_partition: Any  # −log Z


class Account(NamedTuple):
    """ledger: mean over the posterior as the solver has it, in nat; NaN where it has none. log_evidence: its claim.

    log_evidence and error, its standard error, in nat: NaN where the solver claims none. answers: probabilities that
    are compared with the exact ones. evaluations: states at which the joint was computed (nodes for `milp`).
    """

    ledger: Ledger
    log_evidence: float
    error: float
    answers: np.ndarray
    evaluations: int
