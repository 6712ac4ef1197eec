"""The ledger: contributions to the log joint in nats and bits, by term and group; its rows add up to the total."""

from __future__ import annotations

from typing import NamedTuple

from honest.objective.log_posterior import ObjectiveTerms, log_posterior
from honest.units import nat


class Entry(NamedTuple):
    term: str
    group: str
    nats: float


def ledger(terms: ObjectiveTerms, variables: frozenset[str]) -> tuple[list[Entry], float]:
    """The rows (term, group, nats) and their total in nats, read to the host."""
    rows = [
        Entry(name, group, float(quantity.to(nat)))
        for name in ("data", "first_prior", "second_prior", "constants")
        for group, quantity in getattr(terms, name).items()
    ]
    rows.append(Entry("consistency", "heads", float(terms.consistency.to(nat))))
    rows.append(Entry("log_partition", "heads", float(terms.log_partition.to(nat))))
    return rows, float(log_posterior(terms, variables).to(nat))
