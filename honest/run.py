"""What can be asked of a run that was trained, or is being trained: its report, its units, an answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from honest.config import GROUPS, RunConfig
from honest.config_io import unit_fields
from honest.data.batch import Task
from honest.data.tasks import build_task
from honest.errors import UserError
from honest.params import Params
from honest.report.answers import Answers
from honest.report.divergence import row_divergences
from honest.report.evaluator import Evaluator, method_names
from honest.report.final import conclude, summary, text
from honest.report.gap import GAP_TAG
from honest.report.ledger_values import LN2
from honest.report.unit_report import unit_report
from honest.report.unit_text import unit_json, unit_text
from honest.train.checkpoint import Checkpoints
from honest.train.events import read_events
from honest.train.run_directory import RunDirectory, environment, typed, write_new
from honest.train.sharding import make_mesh
from honest.train.spec import PriorSpec
from honest.train.stage import PRIOR, TRUNK, Run, Stage, make_run, order
from honest.train.stages import make_stage
from honest.train.state import TrainState


def start(config: RunConfig) -> tuple[Run, Evaluator]:
    """Task, model and mesh of a config. Sets JAX's precision, which is the process's: see `set_precision`."""
    return start_all([config])[0]


class Tasks:
    """Makes tasks from their sections of a config; what asks for the same task shares it."""

    def __init__(self) -> None:
        self._made: list[tuple[Any, Task]] = []

    def __call__(self, section: Any) -> Task:
        for asked, task in self._made:
            if asked == section:
                return task
        self._made.append((section, build_task(section)))
        return self._made[-1][1]


def set_precision(precision: str) -> None:
    """float32 means float32: by default JAX takes such matmuls in TF32 on a GPU, and in bfloat16 on a TPU."""
    jax.config.update("jax_enable_x64", precision == "float64")
    jax.config.update("jax_default_matmul_precision", "highest")


def start_all(configs: Sequence[RunConfig]) -> list[tuple[Run, Evaluator]]:
    """As `start`, for configs of one precision and number of devices; what asks for the same task shares it."""
    set_precision(configs[0].precision)
    mesh = make_mesh(configs[0].parallel.devices)
    tasks = Tasks()
    runs = [make_run(config, tasks(config.task), mesh) for config in configs]
    return [(run, Evaluator(run)) for run in runs]


def on_one_device(config: RunConfig) -> RunConfig:
    """The config for a command that only reads a run, wherever that was trained."""
    parallel = config.parallel.model_copy(update={"devices": 1, "strategy": "auto", "hosts": "one"})
    return config.model_copy(update={"parallel": parallel})


def logged_gaps(directory: RunDirectory, stages: dict[str, Stage]) -> dict[int, float]:
    """Step of the prior stage -> the gap in nat logged there: of the whole run, however often it was resumed."""
    if PRIOR not in stages:
        return {}
    return {
        event.step - stages[PRIOR].offset: value.simple_value
        for event in read_events(directory.path)
        for value in event.summary.value
        if value.tag == GAP_TAG
    }


def restore(directory: RunDirectory, names: tuple[str, ...]) -> tuple[Run, Evaluator, dict, dict]:
    """Run, evaluator, stages and newest committed states of the stages `names` (and the trunk's).

    UserError: a stage has no committed checkpoint yet, or the run's `methods` do not have it.
    """
    config = directory.config()
    absent = [name for name in names if name not in order(config)]
    if absent:
        raise UserError(f"{directory.path}: the run's methods are {', '.join(config.methods)}; it has no {absent[0]}")
    run, evaluator = start(on_one_device(config))
    stages: dict[str, Stage] = {}
    states: dict[str, TrainState] = {}
    trunk: Params | None = None
    for name in order(config):
        if name != TRUNK and name not in names:
            continue
        checkpoints = Checkpoints(directory.checkpoints(name), config.checkpoint.keep)
        latest = checkpoints.latest()
        if latest is None:
            raise UserError(f"{directory.path}: stage {name} has no checkpoint yet; finish the run with honest train")
        stages[name] = make_stage(run, name, {} if trunk is None else {TRUNK: trunk})
        states[name], _ = checkpoints.restore(latest, run.spread.awaited(jax.eval_shape(stages[name].init)))
        if name == TRUNK:
            trunk = states[TRUNK].params
            evaluator.set_trunk(trunk["trunk"])
    return run, evaluator, stages, states


def evaluate(directory: RunDirectory, json_path: Path | None) -> None:
    """Scores a run's newest checkpoints again and prints the report; `json_path`: a new file for the summary."""
    check_new(json_path)
    run, evaluator, stages, states = restore(directory, order(directory.config()))
    final = conclude(evaluator, stages, states, logged_gaps(directory, stages))
    print(text(final, run.config))
    if json_path is not None:
        content: dict[str, Any] = summary(final, run.config, environment(typed()))
        write_new(json_path, json.dumps(content, indent=2, ensure_ascii=False))


def check_new(path: Path | None) -> None:
    """UserError, before anything is computed, where a new file cannot be written to `path`."""
    if path is not None and path.exists():
        raise UserError(f"{path} exists already; nothing is overwritten")
    if path is not None and not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; make it first")


def marked_unused(fields: dict[str, tuple[str, str]], prior: PriorSpec) -> dict[str, tuple[str, str]]:
    """The fields, with the priors of groups that the staging has no such stage for marked."""
    stages = (("first_prior", prior.trained), ("second_prior", prior.resampled))
    unused = tuple(f"objective.{name}.{group}." for name, used in stages for group in GROUPS if group not in used)
    mark = f"  (not used: staging is {prior.staging})"
    return {key: (value + mark if key.startswith(unused) else value, unit) for key, (value, unit) in fields.items()}


def units(config: RunConfig, directory: RunDirectory | None, json_path: Path | None) -> None:
    """Prints the unit table of a config at its initialisation, or of a run at its newest checkpoint."""
    check_new(json_path)
    if directory is None:
        run, evaluator = start(on_one_device(config))
        stage = make_stage(run, PRIOR, {TRUNK: {"trunk": run.anchor()["trunk"]}})
        state, where = stage.init(), "at initialisation, before any training"
        if config.objective.anchor == "trained":
            where += " (anchor: trained is not known yet: θ0.trunk is the untrained one here)"
    else:
        _, evaluator, stages, states = restore(directory, (PRIOR,))
        stage, state = stages[PRIOR], states[PRIOR]
        where = f"in {directory.path} at step {int(state.step)} of {stage.steps} of stage {PRIOR}"
    print(f"honest: summing every term over its whole set, {where} …", file=sys.stderr, flush=True)
    assert stage.spec.prior is not None
    log_z = evaluator.sampled(stage, state).upper if stage.spec.prior.log_partition else None
    report = unit_report(stage, state, config.objective, log_z)
    fields = marked_unused(unit_fields(config), stage.spec.prior)
    print(unit_text(report, fields, where))
    if json_path is not None:
        write_new(json_path, json.dumps(unit_json(report, fields, where), indent=2, ensure_ascii=False))


def ask(directory: RunDirectory, question: str) -> str:
    """What each head answers to a question as a person types it, with its probability, and how far they are apart."""
    run, _, stages, states = restore(directory, (PRIOR,))
    row = run.task.encode(question)
    unknown = run.task.vocabulary.unknown
    if unknown is not None and (np.asarray(row.tokens_BxL) == unknown).any():
        shown = run.task.decode(row.tokens_BxL[0])
        raise UserError(f"the question has characters that no training question had: {shown}; ask in their form")
    logits = Answers(run, row, 1)(stages[PRIOR].spec, states[PRIOR])
    lines = [f"question read as: {run.task.decode(row.tokens_BxL[0])}"]
    for name, x_1xK in zip(method_names(run.config)[PRIOR], logits, strict=True):
        p_K = np.exp(x_1xK[0])
        best = int(np.argmax(p_K))
        lines.append(
            f"{name.removeprefix('under the prior: '):>12} head: {run.task.answers[best]}  (p = {p_K[best]:.4f})"
        )
    bits = row_divergences(logits)[0] / LN2
    lines.append(f"the heads are {bits:.4g} bits apart (Jensen–Shannon divergence; 0 agree, 1 contradict)")
    done = int(states[PRIOR].step)
    if done < stages[PRIOR].steps:
        lines.append(f"note: the run is not finished (step {done} of {stages[PRIOR].steps} of its last stage)")
    return "\n".join(lines)
