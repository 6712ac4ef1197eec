"""Events: a process killed at any moment and resumed leaves no gap and writes nothing twice."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.util import tensor_util

from honest.train.events import LAYOUT, EventLog, custom_scalars_layout, read_events

EVERY, LAST = 4, 12  # steps between checkpoints, last step


def value_of(tag, step):
    return float(np.float32(np.sin(step) / 3)) if tag == "objective/data_nats" else float(np.float32(1e-30 * step))


EXPECTED = [(tag, s, value_of(tag, s)) for s in range(1, LAST + 1) for tag in ("objective/data_nats", "honesty/x")]


def log_step(log, step):
    for tag in ("objective/data_nats", "honesty/x"):
        log.scalar(tag, value_of(tag, step), step)


def scalars(directory):
    """(tag, step, value) as TensorBoard reads them, in a canonical order; a repeated one appears twice."""
    accumulator = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    accumulator.Reload()
    rows = [(tag, e.step, e.value) for tag in accumulator.Tags()["scalars"] for e in accumulator.Scalars(tag)]
    return sorted(rows, key=lambda row: row[1])


def assert_complete(directory):
    assert sorted(scalars(directory)) == sorted(EXPECTED)
    records = [(value.tag, event.step) for event in read_events(directory) for value in event.summary.value]
    assert len(records) == len(set(records))


class Killed(Exception):
    """Stands for SIGKILL: nothing of the process's memory is used after it."""


class Run:
    """A training loop in small: its checkpoint holds the step and the pending events, through JSON."""

    def __init__(self, directory):
        self.directory = directory
        self.committed = []  # the checkpoints on disk, as JSON texts

    def process(self, kill_at=None, where=None):
        log = EventLog(self.directory)
        start = 0
        if self.committed:
            start, pending = json.loads(self.committed[-1])
            log.recover(pending)
        if kill_at == "recovered":
            raise Killed
        for step in range(start + 1, LAST + 1):
            log_step(log, step)
            if step % EVERY:
                continue
            checkpoint = json.dumps([step, log.pending()])
            if (step, where) == (kill_at, "before the checkpoint"):
                raise Killed
            self.committed.append(checkpoint)
            if (step, where) == (kill_at, "before the events"):
                raise Killed
            log.commit(step)
            if (step, where) == (kill_at, "after the events"):
                raise Killed
        log.close()


@pytest.mark.parametrize("kill_at", [4, 8, 12])
@pytest.mark.parametrize("where", ["before the checkpoint", "before the events", "after the events"])
def test_killed_around_a_checkpoint(tmp_path, kill_at, where):
    run = Run(tmp_path)
    with pytest.raises(Killed):
        run.process(kill_at, where)
    covered = json.loads(run.committed[-1])[0] if run.committed else 0
    assert all(step <= covered for _, step, _ in scalars(tmp_path))  # nothing ahead of the checkpoints
    with pytest.raises(Killed):
        run.process("recovered")
    assert scalars(tmp_path) == [row for row in scalars(tmp_path) if row[1] <= covered]
    assert len(scalars(tmp_path)) == 2 * covered  # recovery alone closes the gap
    run.process()
    assert_complete(tmp_path)


def whole_flush(tmp_path_factory):
    """Bytes of a file with two commits, the sizes after each, and the checkpoints."""
    run = Run(tmp_path_factory.mktemp("whole"))
    with pytest.raises(Killed):
        run.process(4, "after the events")
    first = next(run.directory.iterdir()).stat().st_size
    log = EventLog(run.directory / "second")
    log.recover(json.loads(run.committed[-1])[1])
    for step in range(5, 9):
        log_step(log, step)
    run.committed.append(json.dumps([8, log.pending()]))
    log.commit(8)
    (file,) = (run.directory / "second").iterdir()
    return file.name, file.read_bytes(), first, run.committed


def test_killed_in_the_middle_of_a_flush(tmp_path_factory):
    """The second commit's bytes are cut at every length (each third, to be quick), then the run resumes."""
    name, content, first, committed = whole_flush(tmp_path_factory)
    for length in [*range(first, len(content), 3), len(content)]:
        run = Run(tmp_path_factory.mktemp("cut"))
        (run.directory / name).write_bytes(content[:length])
        run.committed = list(committed)
        run.process()
        assert_complete(run.directory)
        assert (run.directory / name).read_bytes() == content[:length]  # nothing is overwritten


@pytest.mark.parametrize("length", [0, 5, 30])
def test_killed_in_the_middle_of_the_first_flush(tmp_path, length):
    """Not even the file's version record, or that alone, is whole."""
    run = Run(tmp_path)
    with pytest.raises(Killed):
        run.process(4, "before the events")
    (tmp_path / "events.out.tfevents.9999999998.honest").write_bytes(b"\x18" + bytes(29))
    os.truncate(tmp_path / "events.out.tfevents.9999999998.honest", length)
    run.process()
    assert_complete(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir())[-1] == "events.out.tfevents.9999999999.honest"


def test_a_later_save_carries_what_was_not_committed_yet(tmp_path):
    """Asynchronous saving: step 8 is saved before the commit of step 4 was noticed."""
    log = EventLog(tmp_path)
    for step in range(1, 9):
        log_step(log, step)
        if step == 4:
            log.pending()
    pending = log.pending()
    assert {record["step"] for record in pending} == set(range(1, 9))
    log.commit(4)
    assert {step for _, step, _ in scalars(tmp_path)} == {1, 2, 3, 4}
    resumed = EventLog(tmp_path)  # killed; the checkpoint of step 8 was committed
    resumed.recover(pending)
    assert sorted(scalars(tmp_path)) == sorted(row for row in EXPECTED if row[1] <= 8)


def test_resumed_from_an_older_checkpoint(tmp_path):
    run = Run(tmp_path)
    run.process()
    run.committed = run.committed[:1]
    run.process()
    assert_complete(tmp_path)


def test_an_event_that_no_checkpoint_carries_is_refused(tmp_path):
    log = EventLog(tmp_path)
    log_step(log, 3)
    log.pending()
    log.scalar("late/loss", 1.0, 4)
    log.commit(3)  # the late one is not covered yet
    with pytest.raises(ValueError, match="late/loss"):
        log.commit(4)
    log.pending()
    log.commit(4)
    with pytest.raises(ValueError, match="logged at step 4 before"):
        log.scalar("late/loss", 1.0, 4)
    log.scalar("late/loss", 1.0, 5)
    with pytest.raises(ValueError, match="logged at step 5 before"):
        log.scalar("late/loss", 2.0, 5)


@pytest.mark.parametrize("tag", ["λ", "a b", "/a", "", "a:0"])
def test_tags_that_would_be_rewritten_are_refused(tmp_path, tag):
    for write in (lambda log: log.scalar(tag, 1.0, 1), lambda log: log.text(tag, "x", 1)):
        with pytest.raises(ValueError, match="tag"):
            write(EventLog(tmp_path))


def committed_log(directory):
    """A log of every kind of event, written through a checkpoint's JSON."""
    log = EventLog(directory)
    custom_scalars_layout(log)
    log.histogram("divergence/rows", np.array([[0.0, -2.0], [3.0, 3.0]]), 2)
    log.text("summary", "two **heads**", 2)
    for step, value in enumerate([float(np.float32(0.1)), 1e-45, np.inf, 3.4e38, 1 / 3]):
        log.scalar("x", value, step)
    resumed = EventLog(directory)
    resumed.recover(json.loads(json.dumps(log.pending(), allow_nan=False)))
    return resumed


def test_values_come_back(tmp_path):
    before = time.time()
    committed_log(tmp_path)
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    values = [np.float32(e.value) for e in accumulator.Scalars("x")]
    np.testing.assert_array_equal(values, np.array([0.1, 1e-45, np.inf, 3.4e38, 1 / 3], np.float32))
    assert all(before <= e.wall_time <= time.time() for e in accumulator.Scalars("x"))
    (event,) = [event for event in read_events(tmp_path) if event.summary.value[0].HasField("histo")]
    histogram = event.summary.value[0].histo
    assert (histogram.num, histogram.sum, histogram.sum_squares) == (4, 4, 22)
    assert (histogram.min, histogram.max) == (-2, 3)
    edges = np.array(histogram.bucket_limit)
    for value, count in (
        (-2.0, 1),
        (0.0, 1),
        (3.0, 2),
    ):  # a bucket holds [its left neighbour's edge, its own edge)
        assert histogram.bucket[int(np.searchsorted(edges, value, side="right"))] == count
    (text,) = accumulator.Tensors("summary/text_summary")
    assert tensor_util.make_ndarray(text.tensor_proto).tolist() == [b"two **heads**"]


def test_histogram_of_nothing_or_of_nan_is_refused(tmp_path):
    for values in ([], [1.0, np.nan], [np.inf]):
        with pytest.raises(ValueError, match="histogram 'h' at step 7"):
            EventLog(tmp_path).histogram("h", values, 7)


def test_layout_is_written_once_and_its_charts_find_their_tags(tmp_path):
    for _ in range(2):
        log = committed_log(tmp_path / "run") if not (tmp_path / "run").exists() else EventLog(tmp_path / "run")
        custom_scalars_layout(log)
        log.pending()
        log.commit(0)
    accumulator = EventAccumulator(str(tmp_path / "run"))
    accumulator.Reload()
    (record,) = accumulator.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(tensor_util.make_ndarray(record.tensor_proto).item())
    read = {c.title: {chart.title: list(chart.multiline.tag) for chart in c.chart} for c in layout.category}
    assert read == LAYOUT
    pair = read["heads side by side"]["truth on fooled rows"]
    tags = [
        "honesty/intended_truth_fooled",
        "honesty/instrumental_truth_fooled",
        "honesty/intended_truth_fooled_low",
    ]
    assert [[bool(re.match(regex, tag)) for regex in pair] for tag in tags] == [
        [True, False],
        [False, True],
        [False, False],
    ]


CHILD = """
import json, os, sys, time
from honest.train.events import EventLog
directory, state, last = sys.argv[1], sys.argv[2], int(sys.argv[3])
log, start = EventLog(directory), 0
if os.path.exists(state):
    start, pending = json.load(open(state))
    log.recover(pending)
print("running", flush=True)
for step in range(start + 1, last + 1):
    for tag in ("a", "b"):
        log.scalar(tag, step / 7, step)
    if step % 5 == 0:
        with open(state + ".new", "w") as file:
            json.dump([step, log.pending()], file)
        os.replace(state + ".new", state)
        time.sleep(.004)
        log.commit(step)
"""


def test_sigkill(tmp_path):
    """A real process, killed three times at random moments and then left to finish."""
    last, pick = 1500, random.Random(0)
    command = [sys.executable, "-c", CHILD, str(tmp_path / "events"), str(tmp_path / "state.json"), str(last)]
    killed = 0
    for _ in range(3):
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert child.stdout is not None and child.stdout.readline() == b"running\n"
        time.sleep(pick.uniform(0.02, 0.12))
        child.kill()
        child.stdout.close()
        killed += child.wait(timeout=30) == -signal.SIGKILL
    assert killed == 3
    assert subprocess.run(command, stdout=subprocess.DEVNULL, timeout=60).returncode == 0
    expected = [(tag, step, float(np.float32(step / 7))) for step in range(1, last + 1) for tag in ("a", "b")]
    assert sorted(scalars(tmp_path / "events")) == sorted(expected)
