"""The most probable state by integer programming (HiGHS, through scipy): bits spent by the best point alone.

    maximise  log2 π(z) − m d(z) [+ log2 L(z)]   over  y_{s,t} ∈ {0, 1}, Σ_t y_{s,t} = 1   (one table a slot)

At each input the slots' values choose one of the 2^S combinations k: c_{x,k} ≥ 0 with Σ_k c_{x,k} = 1 and
Σ_{k: bit s of k} c_{x,k} = Σ_t y_{s,t} table_{s,t}(x). Where y is integral, so is c; a combination that is impossible
is fixed at 0. A point claims max_z for both sums, so for log Z_D − log Z the ratio of two modes: the volume is missing,
as in `phases: points`.
"""

from __future__ import annotations

import numpy as np
from scipy import optimize, sparse

from honest.inference.enumeration import Solution
from honest.inference.factors import Factors, times


def milp(factors: Factors) -> Solution:
    """Modes' weights in place of sums, two programs a pair; evaluations: nodes of the branch-and-bound trees."""
    shape = (factors.readers, factors.readers)
    values, rows, nodes = np.full((2, *shape), -np.inf), np.full((2, *shape, 3), np.nan), 0
    program = _Program(factors)
    for i, j in np.ndindex(shape):
        for which, with_labels in enumerate((False, True)):
            values[which, i, j], rows[which, i, j], visited = program.solve(i, j, with_labels)
            nodes += visited
    none = np.full(shape, np.nan)
    return Solution(values[0], values[1], none, none, nodes, rows[1])


class _Program:
    """The constraints, which all pairs share; a pair has its own costs and its own forbidden combinations."""

    def __init__(self, factors: Factors):
        self.factors = factors
        slots, inputs = len(factors.tables), len(factors.costs.trusted_X)
        self.combinations = 2**slots
        starts = np.concatenate([[0], np.cumsum(factors.sizes)])
        self.tables = int(starts[-1])
        variables = self.tables + inputs * self.combinations
        rows: list[sparse.lil_array] = []
        right: list[float] = []
        for s in range(slots):
            row = sparse.lil_array((1, variables))
            row[0, starts[s] : starts[s + 1]] = 1
            rows, right = [*rows, row], [*right, 1.0]
        for x in range(inputs):
            first = self.tables + x * self.combinations
            row = sparse.lil_array((1, variables))
            row[0, first : first + self.combinations] = 1
            rows, right = [*rows, row], [*right, 1.0]
            for s in range(slots):
                row = sparse.lil_array((1, variables))
                bit = (np.arange(self.combinations) >> (slots - 1 - s)) & 1
                row[0, first : first + self.combinations] = bit
                row[0, starts[s] : starts[s + 1]] = -factors.tables[s][:, x]
                rows, right = [*rows, row], [*right, 0.0]
        self.constraint = optimize.LinearConstraint(sparse.vstack(rows).tocsr(), right, right)
        self.integrality = np.arange(variables) < self.tables

    def solve(self, i: int, j: int, with_labels: bool) -> tuple[float, np.ndarray, int]:
        """(log2 of the largest weight, its log2 π, −m d and log2 L, nodes visited); −inf where no state is possible."""
        factors = self.factors
        gain_XxK = self._gains(factors.readers_RxK[i], factors.readers_RxK[j], with_labels)
        gain = np.concatenate([*factors.log2_tables, gain_XxK.ravel()])
        allowed = np.isfinite(gain)
        found = optimize.milp(
            -np.where(allowed, gain, 0.0),
            constraints=self.constraint,
            integrality=self.integrality,
            bounds=optimize.Bounds(0.0, np.where(allowed, 1.0, 0.0)),
            options={"mip_rel_gap": 0.0},
        )
        nodes = int(getattr(found, "mip_node_count", 0) or 0) + 1
        if found.x is None:
            return -np.inf, np.full(3, np.nan), nodes
        chosen = found.x[: self.tables] > 0.5
        state = np.concatenate([np.flatnonzero(part) for part in np.split(chosen, np.cumsum(factors.sizes)[:-1])])
        # The weight itself, not the solver's objective with its tolerance.
        agreement, likelihood = factors.log2_weights(state[None], np.array(i), np.array(j))
        trunk = factors.log2_trunk(state[None])
        weight = trunk + agreement + (likelihood if with_labels else 0.0)
        return float(weight[0]), np.concatenate([trunk, agreement, likelihood]), nodes

    def _gains(self, plus_K: np.ndarray, minus_K: np.ndarray, with_labels: bool) -> np.ndarray:
        """What each combination at each input adds to the log2 weight, (X, K)."""
        factors, costs = self.factors, self.factors.costs
        differ = (plus_K != minus_K)[None, :] & costs.trusted_X[:, None]
        gain = -times(differ, factors.penalty)
        if not with_labels:
            return gain
        for answer_K, label_X in ((plus_K, costs.label_X), (minus_K, costs.person_label_X)):
            given = (label_X >= 0)[:, None]
            right = answer_K[None, :] == label_X[:, None]
            gain = gain + times(given & right, factors.log2_right) + times(given & ~right, factors.log2_wrong)
        return gain
