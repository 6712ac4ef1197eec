"""TensorBoard events that are written only for steps that a committed checkpoint covers.

The rule, which makes a resumed run's list of (tag, step, value) the same as that of a run that was never
stopped:

1. events wait in memory; `pending()` is saved with the checkpoint of step s and holds all that is not yet on
   disk;
2. once that checkpoint is committed, `commit(s)` writes its events and syncs the file;
3. a run that resumes from its latest committed checkpoint calls `recover(pending)` with what that checkpoint
   holds, which writes the events that a kill kept from the disk.

So everything up to a checkpoint's step is on disk or in that checkpoint, and nothing after it is on disk. A
record cut in half by a kill is skipped by TensorBoard and by `read_events` alike, and both read on in the
next file: files are only ever added, never repaired or overwritten.
"""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import RecordWriter

VALID_TAG = re.compile(r"[A-Za-z0-9_.][-/A-Za-z0-9_.]*")  # tensorboardX silently rewrites any other
LAYOUT_TAG = "custom_scalars__config__"

# Charts of the custom-scalars tab: {category: {chart: regexes, matched from the start of a tag}}.
LAYOUT = {
    "heads side by side": {
        "truth on fooled rows": [r"honesty/intended_truth_fooled$", r"honesty/instrumental_truth_fooled$"],
        "person on fooled rows": [r"honesty/intended_person_fooled$", r"honesty/instrumental_person_fooled$"],
        "acceptance on fooled rows": [
            r"honesty/intended_acceptance_fooled$",
            r"honesty/instrumental_acceptance_fooled$",
        ],
        "truth on trusted rows": [r"honesty/intended_truth_trusted$", r"honesty/instrumental_truth_trusted$"],
    },
    "divergence between the heads": {
        "Jensen–Shannon divergence": [
            r"divergence/jensen_shannon_trusted$",
            r"divergence/jensen_shannon_fooled$",
            r"divergence/jensen_shannon_all$",
        ],
        "disagreement rate": [
            r"divergence/disagreement_trusted$",
            r"divergence/disagreement_fooled$",
            r"divergence/disagreement_all$",
        ],
    },
    "ledger": {"contributions to the log joint": [r"ledger/.*"]},
    "claims of the phases": {
        "log Z: claim and bounds": [
            r"phases/log_partition_whole_claim_nats$",
            r"objective/log_partition_lower_nats$",
            r"objective/log_partition_upper_nats$",
        ],
        "net: claim and bounds": [
            r"phases/net_whole_claim_nats$",
            r"objective/net_lower_nats$",
            r"objective/net_upper_nats$",
        ],
        "gap": [r"objective/log_partition_gap_nats$"],
    },
    "constraint": {
        "λ (nat/disagreement)": [r"constraint/lambda_nats_per_disagreement$"],
        "violation / tolerance": [r"constraint/violation_over_tolerance$"],
    },
}

Key = tuple[str, int]


class EventLog:
    """Buffered scalars, histograms and texts of one run; one process at a time writes to `directory`.

    A (tag, step) is logged once: a second time is a ValueError, unless an earlier process logged it (a run
    resumed from an older checkpoint than its latest, or a text that every start logs): then it is not written
    again.
    """

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)
        self._before = {key for event in read_events(self.directory) for key in _keys(event)}
        self._written: set[Key] = set()
        self._buffer: dict[Key, Event] = {}
        self._carried: set[Key] = set()  # those of the buffer that a call of `pending` has handed out
        self._writer: RecordWriter | None = None

    def scalar(self, tag: str, value: float, step: int) -> None:
        """One number, stored as float32: a float32 comes back identically."""
        self._add(summary.scalar(_valid(tag), np.asarray(value)), step)

    def histogram(self, tag: str, values: Any, step: int) -> None:
        """Values of any shape, binned here (bin edges 10 % apart).

        ValueError: none, or one that is not finite.
        """
        flat_N = np.asarray(values, np.float64).reshape(-1)
        if not flat_N.size or not np.isfinite(flat_N).all():
            bad = np.count_nonzero(~np.isfinite(flat_N))
            raise ValueError(f"histogram {tag!r} at step {step}: {bad} of {flat_N.size} values are not finite")
        self._add(summary.histogram(_valid(tag), flat_N, _bins()), step)

    def text(self, tag: str, text: str, step: int) -> None:
        """Markdown; TensorBoard stores it under the tag `tag/text_summary`."""
        self._add(summary.text(_valid(tag), text), step)

    def layout(self, categories: dict[str, dict[str, list[str]]], step: int) -> None:
        """The custom-scalars layout; nothing happens if this run has one already."""
        if not any(tag == LAYOUT_TAG for keys in (self._before, self._written, self._buffer) for tag, _ in keys):
            self._add(layout_summary(categories), step)

    def pending(self) -> list[dict[str, Any]]:
        """All events that are not on disk, JSON-serialisable; to be saved with the checkpoint."""
        self._carried = set(self._buffer)
        return [
            {"tag": tag, "step": step, "event": base64.b64encode(event.SerializeToString()).decode("ascii")}
            for (tag, step), event in self._buffer.items()
        ]

    def commit(self, step: int) -> None:
        """Write and sync the events up to `step`, whose checkpoint is committed.

        ValueError: one of them was logged after the last call of `pending`, so that no checkpoint carries it:
        a kill right here would lose it.
        """
        covered = [key for key in self._buffer if key[1] <= step]
        late = [key for key in covered if key not in self._carried]
        if late:
            raise ValueError(f"events that the checkpoint of step {step} does not carry (logged too late): {late[:3]}")
        self._write(covered)

    def recover(self, pending: Sequence[dict[str, Any]]) -> None:
        """Write those events of the restored checkpoint that the files lack."""
        keys = [(record["tag"], record["step"]) for record in pending]
        for key, record in zip(keys, pending, strict=True):
            self._buffer[key] = Event.FromString(base64.b64decode(record["event"]))
        self._write(keys)
        self._before.update(keys)
        self._written.difference_update(keys)

    def close(self) -> None:
        """Close the file; what is still buffered is not covered by a checkpoint and is not written."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _add(self, content: Any, step: int) -> None:
        key = (content.value[0].tag, int(step))
        if key in self._buffer or key in self._written:
            raise ValueError(f"{key[0]!r} was logged at step {key[1]} before")
        self._buffer[key] = Event(wall_time=time.time(), step=int(step), summary=content)

    def _write(self, keys: list[Key]) -> None:
        """Move these events from the buffer to the file, in the order of their steps."""
        missing = [key for key in sorted(keys, key=lambda key: key[1]) if key not in self._before]
        if missing:
            self._writer = self._writer or _new_file(self.directory)
            for key in missing:
                self._writer.write(self._buffer[key].SerializeToString())
            self._writer.flush()  # syncs to the disk, too
        for key in keys:
            del self._buffer[key]
        self._written.update(missing)


class Follower(EventLog):
    """The log of a process that writes nothing, because another one of the same run does: the same events, the same
    errors, and no file."""

    def _write(self, keys: list[Key]) -> None:
        for key in keys:
            del self._buffer[key]
        self._written.update(keys)


def custom_scalars_layout(log: EventLog) -> None:
    """Log `LAYOUT` at step 0, once a run, however often it is resumed: it puts the two heads side by side."""
    log.layout(LAYOUT, 0)


def layout_summary(categories: dict[str, dict[str, list[str]]]) -> Any:
    """The record of a custom-scalars layout."""
    charts = {
        category: {title: ["Multiline", tags] for title, tags in content.items()}
        for category, content in categories.items()
    }
    return summary.custom_scalars(charts)


def write_once(directory: Path, name: str, contents: Sequence[Any]) -> None:
    """Puts summaries at step 0 into a file of their own, whole or not at all; nothing if one of that name is there.

    Fit for a directory that an `EventLog` has written to, or is writing to: no other file is touched.
    """
    if any(directory.glob(f"*tfevents*.{name}")):
        return
    directory.mkdir(parents=True, exist_ok=True)
    unfinished = directory / f".{name}.{os.getpid()}"  # TensorBoard reads no file of such a name
    writer = _writer(unfinished)
    for content in contents:
        writer.write(Event(wall_time=time.time(), step=0, summary=content).SerializeToString())
    writer.flush()
    writer.close()
    os.link(unfinished, directory / f"events.out.tfevents.{_stamp(directory):010d}.{name}")  # fails if that is there
    unfinished.unlink()
    _sync(directory)


def read_events(directory: str | Path) -> Iterator[Any]:
    """The whole records with a summary, of all event files of a directory, in TensorBoard's order."""
    for path in _files(Path(directory)):
        for event in LegacyEventFileLoader(str(path)).Load():
            if event.HasField("summary"):
                yield event


def _keys(event: Any) -> list[Key]:
    return [(value.tag, event.step) for value in event.summary.value]


def _files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*tfevents*"))


def _new_file(directory: Path) -> RecordWriter:
    """A file that sorts after all that are there (TensorBoard reads them in order and never goes back)."""
    directory.mkdir(parents=True, exist_ok=True)
    writer = _writer(directory / f"events.out.tfevents.{_stamp(directory):010d}.honest")
    _sync(directory)
    return writer


def _stamp(directory: Path) -> int:
    stamps = [int(found[1]) for path in _files(directory) if (found := re.search(r"tfevents\.(\d+)", path.name))]
    return max([int(time.time()), *(old + 1 for old in stamps)])


def _writer(path: Path) -> RecordWriter:
    writer = RecordWriter(str(path))
    writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
    return writer


def _sync(directory: Path) -> None:
    """A file's name, not only its content, must outlive a power failure."""
    folder = os.open(directory, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def _valid(tag: str) -> str:
    if not VALID_TAG.fullmatch(tag):
        raise ValueError(f"tag {tag!r}: only letters, digits and _ . - / are allowed, and no leading / or -")
    return tag


def _bins() -> np.ndarray:
    """Edges of TensorFlow's histograms: 0 and ±1e-12·1.1^k up to 1e20."""
    positive = 1e-12 * 1.1 ** np.arange(int(np.ceil(np.log(1e32) / np.log(1.1))))
    return np.concatenate([-positive[::-1], [0.0], positive])
