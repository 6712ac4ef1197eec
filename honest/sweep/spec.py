"""A sweep's file: the config that all members share, and what differs between them.

name: width                                  # of the sweep; its folder is runs/NAME
base: ../quickstart.yaml                     # relative to this file's folder
set: ["stages.prior.steps=100"]              # of every member, as after --set
grid:                                        # every combination
  objective.second_prior.trunk.stddev: [0.3 θ.trunk, 1.0 θ.trunk]
  seed: [0, 1, 2]
zip:                                         # taken side by side: the first of each, the second of each, …
  model.width: [32, 64]
  model.layers: [2, 3]
samples: 8                                   # draws, each with every combination of grid and zip
seed: 0                                      # of the draws; a further sample leaves the earlier ones as they are
choice: {objective.staging: [heads_then_trunk, all]}
uniform: {objective.multiplier.ema: [0.5, 0.99]}
loguniform: {objective.multiplier.initial: [0.1 nat/disagreement, 100 nat/disagreement]}
constraints: ["`objective.multiplier.initial` <= 50"]     # rules over the keys; members that break one are left out
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field, model_validator

from honest.config_fields import Count, Seed, Strict, Text, require
from honest.sweep.engines.kubernetes import KubernetesOptions
from honest.sweep.engines.ray import RayOptions
from honest.sweep.engines.slurm import SlurmOptions
from honest.units import UnitError, parse_quantity

Values = Annotated[list[Any], Field(min_length=1)]
Bounds = Annotated[list[Any], Field(min_length=2, max_length=2)]
RANDOM = ("choice", "uniform", "loguniform")
SECTIONS = ("grid", "zip", *RANDOM)


class Engines(Strict):
    """Options of the engines that need any; those not given cannot be chosen."""

    slurm: SlurmOptions | None = None
    ray: RayOptions | None = None
    kubernetes: KubernetesOptions | None = None


class Sweep(Strict):
    """Sections that are not given vary nothing; samples and seed: null or left out where nothing is drawn."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    base: Text
    set: list[Text] = Field(default_factory=list)
    grid: dict[str, Values] = Field(default_factory=dict)
    zip: dict[str, Values] = Field(default_factory=dict)
    samples: Count | None = None
    seed: Seed | None = None
    choice: dict[str, Values] = Field(default_factory=dict)
    uniform: dict[str, Bounds] = Field(default_factory=dict)
    loguniform: dict[str, Bounds] = Field(default_factory=dict)
    constraints: list[Text] = Field(default_factory=list)
    engine: Engines | None = None

    @model_validator(mode="after")
    def sections_fit(self):
        given = {name: getattr(self, name) for name in SECTIONS}
        keys = [key for section in given.values() for key in section]
        drawn = any(given[name] for name in RANDOM)
        lengths = {key: len(values) for key, values in self.zip.items()}
        listed = ", ".join(f"{key} has {count}" for key, count in lengths.items())
        stated = [text.split("=")[0].strip() for text in self.set]
        require(
            (bool(keys), "grid", "nothing varies: give keys of the config in grid, zip, choice, uniform or loguniform"),
            (len({*lengths.values()}) <= 1, "zip", f"lists taken side by side need one length: {listed}"),
            (not drawn or self.samples is not None, "samples", "draws need a number of samples"),
            (not drawn or self.seed is not None, "seed", "draws need a seed"),
            (drawn or self.samples is None, "samples", "nothing is drawn: give keys in choice, uniform or loguniform"),
            *(
                (keys.count(key) == 1, f"{section}.{key}", "is varied in more than one section")
                for section, named in given.items()
                for key in named
            ),
            *(
                (key != "name", f"{section}.{key}", "members are named by what differs")
                for section, named in given.items()
                for key in named
            ),
            *((key not in keys, f"set.{index}", f"{key} is varied as well") for index, key in enumerate(stated)),
            *(
                (not (why := wrong_bounds(bounds, name == "loguniform")), f"{name}.{key}", why)
                for name in ("uniform", "loguniform")
                for key, bounds in given[name].items()
            ),
        )
        return self


def wrong_bounds(bounds: list[Any], logarithmic: bool) -> str:
    """What is wrong with [low, high] of a draw, "" if nothing is."""
    try:
        (low, low_unit), (high, high_unit) = map(number_and_unit, bounds)
    except UnitError:
        return f"needs two numbers, or two numbers with a unit, not {bounds}"
    if low_unit != high_unit:
        return f"has bounds in two units, {low_unit or 'none'} and {high_unit or 'none'}: write both in one"
    if not low < high:
        return f"needs low < high, has {bounds[0]} and {bounds[1]}"
    return "needs positive bounds for their logarithms" if logarithmic and low <= 0 else ""


def number_and_unit(value: Any) -> tuple[float, str]:
    """(0.3, "θ.trunk") of "0.3 θ.trunk", and (0.3, "") of 0.3. UnitError: it is neither."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value), ""
    if not isinstance(value, str):
        raise UnitError(f"{value!r} is not a number with or without a unit")
    parse_quantity(value)
    number, _, unit = value.strip().partition(" ")
    found = float(number)
    if not math.isfinite(found):
        raise UnitError(f"{value!r} is not finite")
    return found, unit.strip()
