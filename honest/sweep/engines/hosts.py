"""Members that are trained on one host, and on several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from honest.config import RunConfig


def trained_on(hosts: Literal["one", "detect"], configs: Mapping[str, RunConfig]) -> list[str]:
    """Names of the members whose `parallel.hosts` says so."""
    return [name for name, config in configs.items() if config.parallel.hosts == hosts]
