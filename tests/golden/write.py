"""Writes `tiny.json` anew: `.venv/bin/python -m tests.golden.write`, after a change that is meant to change numbers."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from tests.conftest import Runner

GOLDEN = Path(__file__).parent / "tiny.json"
ABOUT = (
    "Final metrics, and accuracies of every head on fooled rows, of the tiny config of tests/conftest.py, float64 on "
    "CPU. They guard against unmeant changes and say nothing about what is right: write them anew with "
    "`.venv/bin/python -m tests.golden.write` when a change is meant."
)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(Path(folder))
        done = runner.train("tiny", ())
        runner.close()
        if done.returncode:
            raise SystemExit(done.stderr)
        summary = json.loads((done.directory / "summary.json").read_text(encoding="utf-8"))
    content = {"about": ABOUT, "relative_tolerance": 1e-6, "metrics": summary["metrics"]}
    content["truth_fooled"] = {name: scores["truth_fooled"]["value"] for name, scores in summary["scores"].items()}
    GOLDEN.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
