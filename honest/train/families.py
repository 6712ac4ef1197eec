"""From the config's priors to families: numbers out of their units, patterns to tensors, curvature at θ0."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from honest import config_priors as sections
from honest.config import GROUP_UNITS, GROUPS
from honest.config_objective import ObjectiveConfig
from honest.errors import UserError
from honest.objective.data_loss import label_nll, world_nll
from honest.objective.parameter_prior import (
    Gaussian,
    Horseshoe,
    Laplace,
    Prior,
    Sparse,
    StudentT,
    Tied,
    TowardZero,
    curvature,
    scales_file,
)
from honest.objective.parameter_prior.curvature import RowNll
from honest.objective.parameter_prior.gaussian import isotropic
from honest.objective.predictions import Predictor, Rows, RowSets
from honest.params import Params, Tree, tensor_paths
from honest.train.state import Priors
from honest.units import Quantity, nat, parse_quantity, total

ROLES = ("first_prior", "second_prior")


def check(objective: ObjectiveConfig, shapes: Params) -> None:
    """UserError for patterns that match no tensor and for files that do not fit, before anything runs."""
    for role in ROLES:
        for group in GROUPS:
            section, key = getattr(getattr(objective, role), group), f"objective.{role}.{group}"
            if isinstance(section, sections.GaussianPrior):
                _stddevs(section, shapes[group], key)
            if isinstance(section, sections.DiagonalPrior) and isinstance(section.scales, sections.FileScales):
                read_scales(section.scales, shapes[group], group, key)


def make(
    objective: ObjectiveConfig, trained: tuple[str, ...], resampled: tuple[str, ...], anchor: Params, data: Fisher
) -> Priors:
    """The families of both stages at θ0 = `anchor`; traceable."""
    dtype = jax.tree.leaves(anchor)[0].dtype

    def family(role: str, group: str) -> Prior:
        section = getattr(getattr(objective, role), group)
        return _family(section, group, anchor, data, f"objective.{role}.{group}")

    measure = objective.reference_measure
    return Priors(
        first={group: family("first_prior", group) for group in trained},
        second={group: family("second_prior", group) for group in resampled},  # type: ignore[misc]
        measure={
            group: _scale(measure.trunk if group == "trunk" else measure.head, group, dtype)
            for group in dict.fromkeys([*trained, *resampled])
        },
    )


class Fisher:
    """What the empirical Fisher information of each group is taken from: log-likelihoods of rows at θ0.

    trunk: all world tokens of a world row. intended_head: a trusted row's label. instrumental_head: the person's answer
    on an untrusted row, or a trusted row's label where the person's answers are withheld.
    """

    def __init__(self, predictor: Predictor, sets: RowSets):
        self.predictor, self.sets = predictor, sets

    def rows(self, group: str, count: int, key: str) -> Rows:
        rows = sections.explained_by(self.sets.world, self.sets.trusted, self.sets.untrusted)[group]
        have = jax.tree.leaves(rows)[0].shape[0]
        if count > have:
            raise UserError(f"{key}.rows asks for {count} rows, but there are {have} to take them from; lower it")
        return jax.tree.map(lambda leaf: leaf[:count], rows)

    def nll(self, group: str, anchor: Params) -> RowNll:
        def of(theta: Tree, row: Rows) -> Quantity:
            params = {**anchor, group: theta}
            if group == "trunk":
                return total(world_nll(self.predictor.world_logits(params, row), row.world_targets_BxLxT))
            intended_BxK, instrumental_BxK = self.predictor.head_logits(params, row)
            return total(label_nll(intended_BxK if group == "intended_head" else instrumental_BxK, row.label_B))

        return of


def _scale(text: str, group: str, dtype: Any) -> Quantity:
    unit = GROUP_UNITS[group]
    return Quantity(jnp.asarray(parse_quantity(text).to(unit), dtype), unit)


def _stddevs(section: sections.GaussianPrior, tree: Tree, key: str) -> list[Quantity]:
    """σ of each tensor: of the first pattern that matches its path, else the group's."""
    paths, patterns = tensor_paths(tree), section.tensors or {}
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in paths):
            raise UserError(f"{key}.tensors.{pattern}: matches no tensor; the group's tensors are {', '.join(paths)}")
    chosen = [next((s for p, s in patterns.items() if fnmatchcase(path, p)), section.stddev) for path in paths]
    return [parse_quantity(text) for text in chosen]


def read_scales(scales: sections.FileScales, tree: Tree, group: str, key: str) -> Gaussian:
    return scales_file.read(Path(scales.path), tree, GROUP_UNITS[group], f"{key}.scales.path")


def _gaussian(section: Any, group: str, anchor: Params, data: Fisher, key: str) -> Gaussian:
    theta = anchor[group]
    if isinstance(section, sections.GaussianPrior):
        return isotropic(theta, _stddevs(section, theta, key))
    diagonal = isinstance(section, sections.DiagonalPrior)
    scales = section.scales if diagonal else section
    if isinstance(scales, sections.FileScales):
        return read_scales(scales, theta, group, key)
    stddev = _scale(scales.stddev, group, jax.tree.leaves(theta)[0].dtype)
    rows = data.rows(group, scales.rows, f"{key}.scales" if diagonal else key)
    nll = data.nll(group, anchor)
    if diagonal:
        return curvature.diagonal(nll, group, theta, rows, stddev, scales.examples)
    return curvature.kronecker(nll, group, theta, rows, stddev, scales.examples, section.largest_axis)


def _family(section: Any, group: str, anchor: Params, data: Fisher, key: str) -> Prior:
    dtype = jax.tree.leaves(anchor[group])[0].dtype
    scale: Callable[[str], Quantity] = lambda text: _scale(text, group, dtype)  # noqa: E731
    bits: Callable[[str], Quantity] = lambda text: Quantity(jnp.asarray(parse_quantity(text).to(nat), dtype), nat)  # noqa: E731
    match section:
        case sections.TowardZeroPrior():
            return TowardZero(scale(section.stddev), section.per)
        case sections.StudentTPrior():
            return StudentT(scale(section.scale), section.degrees_of_freedom)
        case sections.LaplacePrior():
            return Laplace(scale(section.scale))
        case sections.HorseshoePrior():
            return Horseshoe(scale(section.scale), scale(section.floor))
        case sections.TiedPrior():
            return Tied(scale(section.stddev), scale(section.tie_stddev), bits(section.bits))
        case sections.SparsePrior():
            return Sparse(scale(section.stddev), scale(section.spike_stddev), bits(section.bits), section.per)
    return _gaussian(section, group, anchor, data, key)
