"""The one place where the five terms of the log posterior are summed (design §2).

log p(θ1, θ2, D) = − data − first prior − second prior − λ N_c C̄ − log Z          every term in nat
"""

from __future__ import annotations

from typing import NamedTuple

from honest.units import Quantity, assert_log_density, nat, term


class ObjectiveTerms(NamedTuple):
    """Contributions to the log posterior in nat, signed so that they add; dicts are by parameter group.

    constants: the priors' − (D/2) log(2πσ²/u²), kept apart so that "bits spent" can leave them out.
    """

    data: dict[str, Quantity]
    first_prior: dict[str, Quantity]
    second_prior: dict[str, Quantity]
    constants: dict[str, Quantity]
    consistency: Quantity
    log_partition: Quantity


def log_posterior(terms: ObjectiveTerms, variables: frozenset[str]) -> Quantity:
    """The sum of all terms: a scalar log density in nat of exactly `variables` (such as "θ2.trunk"), or UnitError.

    A prior that was left out, or counted twice, is an error too.
    """
    with term("log_posterior"):
        total = Quantity(0.0, nat)
        for part in (terms.data, terms.first_prior, terms.second_prior, terms.constants):
            for quantity in part.values():
                total = total + quantity
        return assert_log_density(total + terms.consistency + terms.log_partition, variables)
