"""Every strategy, on two and on eight fake devices and on two processes, gives the numbers of one device."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

CASES = ("chains",)
STRATEGIES = ("auto", "fsdp", "pmap")
TOY = ("chains-8-fsdp-1", "chains-2-fsdp-3", "chains-2-pmap-2", "chains-hosts", "newton_stein-8-auto-1")
TOY += ("newton_stein-8-pmap-1", "laplace-2-fsdp-1", "laplace-8-pmap-1")
DATA = ("2-auto-3", "2-fsdp-2", "2-pmap-3")


@pytest.fixture(scope="module")
def runs(runner, sharded_soon) -> Path:
    """The folder with the numbers of all cases."""
    for future in sharded_soon:
        done = future.result()
        assert done.returncode == 0, done.stderr
    return runner.folder / "sharded"


@pytest.fixture(scope="module")
def said(runs) -> dict[str, dict]:
    return {name: json.loads((runs / f"{name}.json").read_text(encoding="utf-8")) for name in (*CASES, "said")}


def pair(runs: Path, one: str, several: str, fewest: int = 40) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    first, second = (dict(np.load(runs / f"{name}.npz")) for name in (one, several))
    assert first.keys() == second.keys() and len(first) > fewest
    return first, second


def assert_close(one: dict[str, np.ndarray], several: dict[str, np.ndarray], tolerance: float) -> None:
    """Every array within `tolerance` of the largest number of its metric, or of its parameter group."""
    scales: dict[str, float] = {}
    for name, expected in one.items():
        scales[group(name)] = max(scales.get(group(name), 1e-6), np.max(np.abs(expected), initial=0.0))
    for name, expected in one.items():
        assert several[name].dtype == expected.dtype
        np.testing.assert_allclose(several[name], expected, rtol=0, atol=tolerance * scales[group(name)], err_msg=name)


def group(name: str) -> str:
    """state.params['intended_head']['bias'] → state.params['intended_head; a metric is its own group."""
    return name.split("']")[0]


def assert_same_decisions(one: dict[str, np.ndarray], several: dict[str, np.ndarray], shape: tuple[int, int]) -> None:
    decisions = []
    for phase in ("positive", "negative"):
        accepted_SxC = one[f"accepted/{phase}"]
        assert accepted_SxC.shape == shape
        np.testing.assert_array_equal(several[f"accepted/{phase}"], accepted_SxC)
        decisions.append(accepted_SxC)
    assert 0 < np.mean(decisions) < 1  # both decisions occur


def test_eight_devices_share_the_work(said):
    """Only a step whose batch is split has anything to add up between devices, and only split tensors are gathered."""
    for name in CASES:
        assert said[name]["devices"] == 8 and said[name]["1-auto"] == []
        assert "all-reduce" in said[name]["8-auto"]
        assert {"all-reduce", "all-gather"} <= set(said[name]["8-fsdp"])
        assert said[name]["8-pmap"] == ["all-reduce", "all-gather", "reduce-scatter"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_chains_make_identical_decisions(runs, strategy):
    one, eight = pair(runs, "chains-1-auto", f"chains-8-{strategy}")
    assert one["objective/consistency_nats"].dtype == np.float64
    assert_same_decisions(one, eight, (10, 3))
    assert np.ptp(one["constraint/lambda_nats_per_disagreement"]) > 0  # the multiplier moves
    assert_close(one, eight, 1e-8)


@pytest.mark.parametrize("run", ["8-auto", "2-fsdp", "8-pmap"])
def test_float32_agrees_over_twenty_steps(runs, run):
    """Points, on the toy, none of whose tensors divides into eight."""
    one, several = pair(runs, "float32-1-auto-1", f"float32-{run}-1")
    assert one["objective/loss_nats_per_example"].dtype == np.float32
    assert len(one["objective/loss_nats_per_example"]) == 20
    assert_close(one, several, 1e-5)


@pytest.mark.parametrize("run", TOY)
def test_the_toy_agrees(runs, run):
    """The control variate's second derivatives, Laplace's single rows, micro-batches, chains that are split, whole sets
    that do not divide, and two processes."""
    one, several = pair(runs, f"{run.split('-')[0]}-1-auto-1", run)
    if run.startswith("laplace"):
        assert np.ptp(one["phases/positive_volume_nats"]) > 0  # the volumes are refreshed
    else:
        assert_same_decisions(one, several, (12, 8 if run.startswith("chains") else 2))
    assert_close(one, several, 1e-8)


@pytest.mark.parametrize("run", DATA)
def test_parts_add_up_on_two_devices(runs, run):
    """Maximum likelihood, half of the untrusted labels missing; one of three parts of eight rows is filled up."""
    one, several = pair(runs, "data-1-auto-1", f"data-{run}", 20)
    assert one["objective/loss_nats_per_example"].shape == (12,)
    assert_close(one, several, 1e-12)


def test_derivatives_of_every_order_are_whole_on_every_device(runs):
    """pmap's gathered logits against the plain predictor's; second derivatives of one tensor in both orders."""
    errors = json.loads((runs / "derivatives.json").read_text(encoding="utf-8"))
    assert len(errors) == 6 and max(errors.values()) < 1e-12, errors


def test_fsdp_splits_the_state_and_keeps_it_split(said):
    split = {run: (seen["at first"], seen["at last"]) for run, seen in said["said"].items()}
    assert {run for run, both in split.items() if both == (True, True)} == {run for run in split if "fsdp" in run}
    assert all(both[0] == both[1] for both in split.values())
    assert all(seen["donated"] for seen in said["said"].values())


def test_a_run_goes_on_with_other_devices_and_strategies(runs):
    """8 devices and fsdp, then one device, then 2 and pmap, then 2, fsdp and micro-batches; against one throughout."""
    one, last = (dict(np.load(runs / f"{name}.npz")) for name in ("chains-1-auto-1", "relay"))
    assert len(last) > 30 and last["state.step"] == 12
    assert_close({name: one[name] for name in last}, last, 1e-8)


def test_what_does_not_fit_is_refused(said):
    assert "stages.prior.batch_rows is 12, which does not divide into 8 devices" in said["chains"]["uneven"]
    assert "parallel.devices asks for 9 devices; JAX sees 8" in said["chains"]["too many"]
