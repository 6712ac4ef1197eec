"""What a sweep sets for its process is undone after each test."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import pytest

SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_platforms")


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    yield
    for name, value in before.items():
        jax.config.update(name, value)
