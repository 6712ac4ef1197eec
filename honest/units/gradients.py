"""Gradients of Quantities with respect to bare parameters, labelled value.unit/θ_g."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax

from honest.units.quantity import Quantity, assert_unit, names
from honest.units.unit import Unit, UnitError, nat


def _check_groups(groups: Mapping[str, Any], group_units: Mapping[str, Unit]) -> None:
    if set(groups) != set(group_units):
        raise UnitError(f"got groups {names(groups)}, but units for {names(group_units)}; give each group its unit")


def _is_quantity(leaf: Any) -> bool:
    return isinstance(leaf, Quantity)


def value_and_grad(f: Callable, group_units: Mapping[str, Unit], has_aux: bool = False) -> Callable:
    """Value and gradient of f(params, *args) -> scalar Quantity, or (Quantity, aux) with `has_aux`.

    params: dict group -> pytree of bare arrays, in group_units[group]. Gradients: dict group -> pytree of
    Quantities in value.unit/group_units[group]. Raises UnitError for other groups or outputs, and for params
    that hold a Quantity.
    """

    @functools.wraps(f)
    def value_and_gradients(params: Mapping[str, Any], *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        _check_groups(params, group_units)
        if any(map(_is_quantity, jax.tree.leaves(params, is_leaf=_is_quantity))):
            raise UnitError("params of value_and_grad hold a Quantity; pass bare arrays and give group_units")

        def bare(params: Mapping[str, Any]) -> tuple[Any, Any]:
            out = f(params, *args, **kwargs)
            value = out[0] if has_aux else out
            if not _is_quantity(value) or value.shape != ():
                raise UnitError(f"value_and_grad got {value}; the function must return a scalar Quantity")
            return value.to(value.unit), out

        (_, out), gradients = jax.value_and_grad(bare, has_aux=True)(dict(params))
        value = out[0] if has_aux else out
        labels = {group: functools.partial(Quantity, unit=value.unit / group_units[group]) for group in gradients}
        return out, {group: jax.tree.map(labels[group], tree) for group, tree in gradients.items()}

    return value_and_gradients


def strip_grad(gradients: Mapping[str, Any], group_units: Mapping[str, Unit]) -> dict[str, Any]:
    """dict group -> pytree of bare arrays in nat/θ_g. Raises UnitError unless each leaf is in that unit."""
    _check_groups(gradients, group_units)

    def strip(group: str, tree: Any) -> Any:
        unit, what = nat / group_units[group], f"gradient of {group}"
        return jax.tree.map(lambda leaf: assert_unit(leaf, unit, what).to(unit), tree, is_leaf=_is_quantity)

    return {group: strip(group, tree) for group, tree in gradients.items()}
