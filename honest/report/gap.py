"""No exploitation: what the two phases claim, against sampled bounds and certain limits (design §2).

    L ≤ log Z ≤ U       sampled from both ends
    L_D ≤ log Z_D ≤ U_D   sampled likewise (net: sampled), or only log Z_D ≤ log Z, which is certain (net: limit):
    log Z_D in [L_D, min(U_D, U)],  net = log Z_D − log Z in [L_D − U, min(U_D − L, 0)],   L_D = −∞, U_D = U for limit

    modes    claim log Z, log Z_D and so the net outright: the gap is how far a claim lies outside, the largest of three
    chains   claim no value; but log Z = E[w] − KL(phase ‖ prior), so their mean of w may not lie below L: the gap is
             how far it does. In equilibrium that is over a with probability e^−a at most (Markov: E[exp −w] = 1/Z).
             The positive phase's is compared where L_D was sampled.

Stage one climbs log Z_D − log Z, so what it can exploit is a log Z claimed too low, which L shows, and a log Z_D
claimed too high, which U and the limit 0 of the net show. A gap is evidence that a claim is wrong, as good as the
bounds are; no gap is none that it is right, least of all between bounds that are far apart. Chains that lag behind θ1
show; chains that sit where w is too high do not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from honest.objective.predictions import RowSets
from honest.report.ledger_values import LedgerValues, SampledLogPartition
from honest.train import phases
from honest.train.spec import StageSpec
from honest.train.state import TrainState

GAP_TAG = "objective/log_partition_gap_nats"
DATA_TERMS = ("data", "second_prior", "consistency")  # rows of the ledger that make up the positive mode's log Z_D
Net = Literal["sampled", "limit"]


class Bounds(NamedTuple):
    """In nat; ∓inf where there is none."""

    lower: float
    upper: float

    def outside(self, claim: float) -> float:
        """How far a claim lies outside, in nat; 0 between the bounds, inf for what is no number or has no bounds."""
        if not math.isfinite(claim) or math.isnan(self.lower) or math.isnan(self.upper):
            return math.inf
        return max(self.lower - claim, claim - self.upper, 0.0)


class Comparison(NamedTuple):
    """claim in nat, logged under `tag`, with what it may be; `of` says what it is a claim of."""

    of: str
    tag: str
    claim: float
    bounds: Bounds

    @property
    def gap(self) -> float:
        return self.bounds.outside(self.claim)


class Check(NamedTuple):
    """All comparisons at one state, with the bounds of log Z and of the net."""

    compared: tuple[Comparison, ...]
    log_z: Bounds
    net: Bounds

    @property
    def worst(self) -> Comparison:
        return max(self.compared, key=lambda comparison: comparison.gap)

    @property
    def gap(self) -> float:
        """In nat."""
        return self.worst.gap

    def scalars(self) -> dict[str, float]:
        """Gap, claims and bounds under their tags; no bound that was not computed."""
        bounds = {"objective/log_partition": self.log_z, "objective/net": self.net}
        sides = {f"{name}_{side}_nats": value for name, b in bounds.items() for side, value in b._asdict().items()}
        return {
            GAP_TAG: self.gap,
            **{comparison.tag: comparison.claim for comparison in self.compared},
            **{tag: value for tag, value in sides.items() if not math.isinf(value)},
        }


def data_bounds(log_z: Bounds, data: SampledLogPartition | None) -> tuple[Bounds, Bounds]:
    """(of log Z_D, of the net). None: nothing was sampled, and only log Z_D ≤ log Z is known.

    A lower bound of log Z_D above the upper one of log Z, which is the conditional one, is believed.
    """
    if data is None:
        return Bounds(-math.inf, log_z.upper), Bounds(-math.inf, 0.0)
    log_z_data = Bounds(data.lower, max(data.lower, min(data.upper, log_z.upper)))
    return log_z_data, Bounds(min(data.lower - log_z.upper, 0.0), min(data.upper - log_z.lower, 0.0))


def check_modes(
    sampled: SampledLogPartition, sampled_data: SampledLogPartition | None, claim: float, data_claim: float
) -> Check:
    """claim, data_claim: log Z and log Z_D in nat as the modes have them."""
    log_z = Bounds(sampled.lower, sampled.upper)
    log_z_data, net = data_bounds(log_z, sampled_data)
    compared = (
        Comparison("log Z", "phases/log_partition_whole_claim_nats", claim, log_z),
        Comparison("log Z_D", "phases/log_partition_data_whole_claim_nats", data_claim, log_z_data),
        Comparison("the net", "phases/net_whole_claim_nats", data_claim - claim, net),
    )
    return Check(compared, log_z, net)


def check_chains(
    sampled: SampledLogPartition, sampled_data: SampledLogPartition | None, mean: float, data_mean: float | None
) -> Check:
    """mean, data_mean: of w over the chains of the negative and of the positive phase in nat; the latter only with
    `sampled_data`, as without there is nothing to compare it with."""
    log_z = Bounds(sampled.lower, sampled.upper)
    log_z_data, net = data_bounds(log_z, sampled_data)
    at_least = Bounds(log_z.lower, math.inf)
    compared = [Comparison("log Z (mean of w)", "phases/negative_log_weight_nats", mean, at_least)]
    if data_mean is not None:
        at_least = Bounds(log_z_data.lower, math.inf)
        compared.append(Comparison("log Z_D (mean of w)", "phases/positive_log_weight_nats", data_mean, at_least))
    return Check(tuple(compared), log_z, net)


def mode_data_claim(values: LedgerValues, state: TrainState) -> float:
    """log Z_D in nat as the positive mode claims it: its terms over the whole sets, and its volume if it has one."""
    assert state.prior is not None
    volume = 0.0 if state.prior.volume is None else float(state.prior.volume.positive)
    return sum(row.nats for row in values.rows if row.term in DATA_TERMS) + volume


def chain_mean(spec: StageSpec, state: TrainState, sets: RowSets, with_data: bool) -> jax.Array:
    """Mean of w over the negative phase's chains (the positive's, with data) in nat, over the whole sets. Traceable."""
    assert state.prior is not None
    weight = state.prior.multiplier.value
    phase = state.prior.positive if with_data else state.prior.negative
    target = phases.log_weight(spec, state.params, state.held, weight, sets, with_data=with_data, whole=True)
    return jnp.mean(jax.lax.map(target, phase.whitened))


# --- what a run says of its checks --------------------------------------------------------------------------------


class GapSummary(NamedTuple):
    """Of all checks of a run; inf stands for a claim that was no number."""

    checks: int
    above_limit: int
    largest_gap_nats: float
    largest_gap_step: int  # of the prior stage
    limit_nats: float
    net: Net


def summarise(gaps: Mapping[int, float], limit: float, net: Net) -> GapSummary:
    """gaps: step -> gap in nat of each check, at least one. One that is not finite is above any limit."""
    known = {step: gap if math.isfinite(gap) else math.inf for step, gap in gaps.items()}
    step = max(known, key=lambda at: known[at])
    return GapSummary(len(known), sum(gap > limit for gap in known.values()), known[step], step, limit, net)


def sentence(found: GapSummary, kind: str) -> str:
    """The report's line. kind: of the phases."""
    who = "the chains' means of w" if kind == "chains" else f"what the {kind} phases claim"
    bounds = "sampled bounds of log Z and of the net"
    if found.net == "limit":
        bounds = "sampled bounds of log Z" + ("" if kind == "chains" else " and with the net's limit 0")
    count = f"{found.checks} time{'s' if found.checks > 1 else ''}"
    largest = f"largest gap {found.largest_gap_nats:.1f} nat, at step {found.largest_gap_step}"
    if not found.above_limit:
        return (
            f"Compared {count} with {bounds}, {who} never lay more than {found.limit_nats:g} nat outside ({largest})."
        )
    return (
        f"WARNING: compared {count} with {bounds}, {who} lay more than {found.limit_nats:g} nat outside "
        f"{found.above_limit} of {found.checks} times ({largest}): do not trust what the phases gained."
    )


def warning(step: int, check: Check, limit: float, kind: str) -> str:
    """What is said on stderr, once a process, when a check first passes the limit."""
    worst = check.worst
    return (
        f"honest: warning: step {step} of stage prior: the {kind} phases' {worst.of} is {worst.claim:.1f} nat, "
        f"{worst.gap:.1f} nat outside [{worst.bounds.lower:.1f}, {worst.bounds.upper:.1f}] "
        f"(evaluation.log_partition.gap_limit is {limit:g} nat): stage one may be climbing an artefact; "
        + (
            "give the chains longer or more moves (objective.phases.leapfrog_steps, step_size, burn_in_steps)"
            if kind == "chains"
            else "lower objective.multiplier.maximum, raise objective.phases.volume_rows, or take phases.kind chains"
        )
    )
