"""A progress bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

LINE_SECONDS = 15.0


class StageProgress:
    """Shows stage, step, steps/s, loss in nats/example, λ, head divergence and time left; a context manager.

    Of several members that are trained together: how many, and the means of their numbers.
    """

    def __init__(self, stage: str, steps: int, done: int, members: int):
        self.stage, self.steps, self.first = stage if members == 1 else f"{stage} ×{members}", steps, done
        self.started = self.printed = time.monotonic()
        self.bar = Progress(
            TextColumn("{task.fields[stage]:>13}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:>5}/{task.total} {task.fields[numbers]}"),
            TimeRemainingColumn(),
            disable=not sys.stdout.isatty(),
        )
        self.task = self.bar.add_task(stage, total=steps, completed=done, stage=self.stage, numbers="")

    def __enter__(self) -> StageProgress:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def show(self, step: int, metrics: dict[str, float]) -> None:
        """`step` steps are done; `metrics` are the latest that were read."""
        now = time.monotonic()
        rate = (step - self.first) / max(now - self.started, 1e-9)
        numbers = f"{rate:6.1f} steps/s" + describe(metrics)
        if not self.bar.disable:
            self.bar.update(self.task, completed=step, numbers=numbers)
        elif now - self.printed > LINE_SECONDS or step == self.steps:
            self.printed = now
            left = (self.steps - step) / max(rate, 1e-9)
            print(f"{self.stage:>13} {step:>5}/{self.steps} {numbers}  {left:4.0f} s left", flush=True)


def describe(metrics: dict[str, float]) -> str:
    """The numbers that a stage has, of: loss, λ in nat/disagreement, divergence in disagreement/example."""
    parts = [
        ("loss", "objective/loss_nats_per_example", "nat/example"),
        ("λ", "constraint/lambda_nats_per_disagreement", ""),
        ("divergence", "divergence/batch_consistency", ""),
        ("divergence", "divergence/batch_untrusted", ""),
    ]
    return "".join(f"  {name} {metrics[tag]:.4g} {unit}".rstrip() for name, tag, unit in parts if tag in metrics)
