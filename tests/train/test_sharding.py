"""Data parallel over eight fake devices gives the numbers of one device."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

CASES = ("chains", "laplace", "float32")


@pytest.fixture(scope="module")
def runs(runner, sharded_soon) -> Path:
    """The folder with the numbers of all cases."""
    for future in sharded_soon:
        done = future.result()
        assert done.returncode == 0, done.stderr
    return runner.folder / "sharded"


@pytest.fixture(scope="module")
def said(runs) -> dict[str, dict]:
    return {name: json.loads((runs / f"{name}.json").read_text(encoding="utf-8")) for name in CASES}


def pair(runs: Path, name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    one, eight = (dict(np.load(runs / f"{name}-{devices}.npz")) for devices in (1, 8))
    assert one.keys() == eight.keys() and len(one) > 40
    return one, eight


def assert_close(one: dict[str, np.ndarray], eight: dict[str, np.ndarray], tolerance: float) -> None:
    """Every array within `tolerance` of the largest number of its metric, or of its parameter group."""
    scales: dict[str, float] = {}
    for name, expected in one.items():
        scales[group(name)] = max(scales.get(group(name), 1e-6), np.max(np.abs(expected), initial=0.0))
    for name, expected in one.items():
        assert eight[name].dtype == expected.dtype
        np.testing.assert_allclose(eight[name], expected, rtol=0, atol=tolerance * scales[group(name)], err_msg=name)


def group(name: str) -> str:
    """state.params['intended_head']['bias'] → state.params['intended_head; a metric is its own group."""
    return name.split("']")[0]


def test_eight_devices_share_the_work(said):
    """Only a step whose batch is split has anything to add up between devices."""
    for seen in said.values():
        assert seen["devices"] == 8 and seen["8 talks"] and not seen["1 talks"]


def test_chains_make_identical_decisions(runs):
    one, eight = pair(runs, "chains")
    assert one["objective/consistency_nats"].dtype == np.float64
    for phase in ("positive", "negative"):
        accepted_SxC = one[f"accepted/{phase}"]
        assert accepted_SxC.shape == (10, 3)
        np.testing.assert_array_equal(eight[f"accepted/{phase}"], accepted_SxC)
    decisions = np.concatenate([one[f"accepted/{phase}"] for phase in ("positive", "negative")])
    assert 0 < decisions.mean() < 1  # both decisions occur
    assert_close(one, eight, 1e-8)


def test_the_control_variate_agrees(runs):
    """On the toy of test_guards.py, shared by four devices."""
    said = json.loads((runs / "newton_stein.json").read_text(encoding="utf-8"))
    assert said["4 talks"] and not said["1 talks"]
    one, four = (dict(np.load(runs / f"newton_stein-{devices}.npz")) for devices in (1, 4))
    assert one.keys() == four.keys() and len(one) == 4
    assert np.all(one["gradient['intended_head']['w']"] != 0)
    assert_close(one, four, 1e-8)


def test_laplace_phases_agree(runs):
    one, eight = pair(runs, "laplace")
    assert np.ptp(one["phases/positive_volume_nats"]) > 0  # the volumes are refreshed
    assert_close(one, eight, 1e-8)


def test_float32_agrees_over_twenty_steps(runs):
    """Points, after a burn-in from both starts."""
    one, eight = pair(runs, "float32")
    assert one["objective/loss_nats_per_example"].dtype == np.float32
    assert len(one["objective/loss_nats_per_example"]) == 20
    assert_close(one, eight, 1e-5)


def test_rows_that_do_not_divide_are_refused(said):
    assert "stages.prior.batch_rows is 12, which does not divide into 8 devices" in said["chains"]["uneven"]
    assert "parallel.devices asks for 9 devices; JAX sees 8" in said["chains"]["too many"]
