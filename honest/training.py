"""Whole runs: their stages in order, each resumed where it stopped. Several runs may share their programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from honest.config import RunConfig
from honest.config_io import dump_config
from honest.report.evaluator import Evaluator
from honest.report.final import Final, conclude, summary, text
from honest.report.plots import heads_figure
from honest.run import logged_gaps, start_all
from honest.train import hosts
from honest.train.checkpoint import Checkpoints
from honest.train.events import EventLog, Follower, custom_scalars_layout
from honest.train.loop import Lane, run_stage
from honest.train.own_view import OwnView
from honest.train.run_directory import ENVIRONMENT, SUMMARY, RunDirectory, write_new
from honest.train.shared_trunk import adopt_trunk, check_trunk
from honest.train.stage import PRIOR, TRUNK, Run, Stage, Stopped, order, stage_steps
from honest.train.stages import make_stage
from honest.train.state import TrainState


@dataclass(frozen=True)
class Asked:
    """A run to train. trunk_from: one whose finished trunk stage is taken over instead of training it again.

    command: what makes the run again, as one can type it."""

    config: RunConfig
    directory: RunDirectory
    trunk_from: RunDirectory | None
    command: str


class Member:
    """A run that is being trained."""

    def __init__(self, asked: Asked, run: Run, evaluator: Evaluator):
        self.config, self.directory, self.run, self.evaluator = asked.config, asked.directory, run, evaluator
        self.own = OwnView(run.mesh)
        self.events = EventLog(asked.directory.path) if hosts.is_first() else Follower(asked.directory.path)
        self.stages: dict[str, Stage] = {}
        self.states: dict[str, TrainState] = {}
        custom_scalars_layout(self.events)
        self.events.text("config", f"```\n{dump_config(asked.config)}\n```", 0)

    def begin(self, name: str) -> Lane:
        results = {done: state.params for done, state in self.states.items()}
        stage = make_stage(self.run, name, results)
        checkpoints = Checkpoints(self.directory.checkpoints(name), self.config.checkpoint.keep)
        return Lane(stage, checkpoints, self.events, self.evaluate, self.config.evaluation.log_every)

    def evaluate(self, stage: Stage, state: TrainState) -> tuple[dict[str, float], dict[str, Any]]:
        return self.evaluator(*self.own(stage, state))

    def end(self, name: str, stage: Stage, state: TrainState) -> None:
        self.stages[name], self.states[name] = self.own(stage, state)
        if name == TRUNK:
            self.evaluator.set_trunk(self.states[TRUNK].params["trunk"])


def train(asked: Sequence[Asked], stop_requested: Callable[[], bool], all_saved: Callable[[], None]) -> None:
    """Trains every stage, prints the reports and writes each `summary.json` and figure. Raises `Stopped`.

    Several runs are trained together, in one program: their configs differ in numbers alone, and they stand at the same
    step of the same stage.

    Several processes that have joined (`hosts.join`) all train, evaluate and checkpoint; process 0 writes the rest.

    stop_requested: asked after every step, and before each report. all_saved: called once training is saved, so that a
    stop need not wait.
    """
    with ExitStack() as leaving:
        leaving.enter_context(hosts.quiet_but_first())
        for each in asked:
            hosts.on_first(partial(enter, leaving, each))
        resumed = [each.directory.check(each.config) for each in asked]
        # Before anything is written: a table that cannot be read leaves no run behind.
        runs = start_all([each.config for each in asked])
        for each in asked:
            if each.trunk_from is not None:
                check_trunk(each.trunk_from, each.config)
            hosts.on_first(partial(prepare, each))
        for each, goes_on in zip(asked, resumed, strict=True):
            print(f"{'resuming' if goes_on else 'new run in'} {each.directory.path}", flush=True)
        print(runs[0][0].task.description, flush=True)
        members = [Member(each, *run) for each, run in zip(asked, runs, strict=True)]
        stop = hosts.stop_together(stop_requested)
        for name in order(asked[0].config):
            train_stage(members, name, stop)
        for member in members:
            member.events.close()
        all_saved()
        if PRIOR in members[0].stages:
            print("sampling log Z from both sides …", flush=True)
        for member in members:
            report_unless(stop, member)


def report_unless(stop_requested: Callable[[], bool], member: Member) -> None:
    """Draws log Z's bounds, and reports; the same command makes a report that a stop prevented. Raises `Stopped`."""
    if stop_requested():
        last = order(member.config)[-1]
        raise Stopped(last, stage_steps(member.config, last))
    gaps = logged_gaps(member.directory, member.stages)
    final = conclude(member.evaluator, member.stages, member.states, gaps)
    hosts.on_first(partial(report, final, member.config, member.directory))


def enter(leaving: ExitStack, asked: Asked) -> None:
    leaving.enter_context(asked.directory.lock())


def prepare(asked: Asked) -> None:
    asked.directory.prepare(asked.config, asked.command)
    if asked.trunk_from is not None:
        adopt_trunk(asked.trunk_from, asked.directory)


def train_stage(members: Sequence[Member], name: str, stop_requested: Callable[[], bool]) -> None:
    lanes = [member.begin(name) for member in members]
    config = members[0].config
    try:
        states = run_stage(
            lanes,
            members[0].run.mesh,
            burn_in=config.objective.phases.burn_in_steps,
            checkpoint_every=config.checkpoint.every,
            evaluate_every=config.evaluation.every,
            stop_requested=stop_requested,
        )
    finally:
        for lane in lanes:
            lane.checkpoints.close()
    for member, lane, state in zip(members, lanes, states, strict=True):
        member.end(name, lane.stage, state)


def report(final: Final, config: RunConfig, directory: RunDirectory) -> None:
    if not (directory / SUMMARY).exists():
        figures = directory / "figures"
        figures.mkdir(exist_ok=True)
        heads_figure(figures / "heads.png", final.scores, f"{config.name}, seed {config.seed}")
        # The environment that the run started in: the source may have changed since.
        started = json.loads((directory / ENVIRONMENT).read_text(encoding="utf-8"))
        write_new(directory / SUMMARY, json.dumps(summary(final, config, started), indent=2, ensure_ascii=False))
    print(text(final, config))
    print(f"\nResults: {directory / SUMMARY}   Figure: {directory / 'figures' / 'heads.png'}")
    print(f"TensorBoard: {tensorboard()} --logdir {directory.path}")


def tensorboard() -> str:
    """The installed command as one can type it from here, whether or not the environment is activated."""
    command = Path(sys.executable).parent / "tensorboard"
    return str(command.relative_to(Path.cwd()) if command.is_relative_to(Path.cwd()) else command)
