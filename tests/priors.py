"""Isotropic Gaussian priors for tests, from plain numbers."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import jax.numpy as jnp

from honest.config import GROUP_UNITS
from honest.objective.parameter_prior import Gaussian
from honest.objective.parameter_prior.gaussian import isotropic
from honest.params import Params
from honest.train.state import Priors
from honest.units import Quantity


def gaussian(params: Params, group: str, stddev: float) -> Gaussian:
    """N(·, stddev²) with one σ in θ_g for the whole group."""
    tree = params[group]
    return isotropic(tree, [Quantity(stddev, GROUP_UNITS[group])] * len(jax.tree.leaves(tree)))


def gaussian_priors(
    params: Params, trained: Iterable[str], resampled: Iterable[str], first: float, second: float
) -> Priors:
    trained, resampled = tuple(trained), tuple(resampled)
    return Priors(
        first={group: gaussian(params, group, first) for group in trained},
        second={group: gaussian(params, group, second) for group in resampled},
        measure={
            group: Quantity(jnp.ones((), jax.tree.leaves(params[group])[0].dtype), GROUP_UNITS[group])
            for group in {*trained, *resampled}
        },
    )
