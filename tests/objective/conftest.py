"""These tests compile many tiny programs, which hardly compute."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="module")
def quickly(quick_compilation: None) -> None:
    pass
