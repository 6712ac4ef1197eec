"""What TensorBoard shows of a sweep with `tensorboard --logdir DIR/runs`: the hparams page and charts of all members.

The hparams page is made from sessions: each finished member has one, in a file of its own in its run directory, and its
metrics are the scalars that the run has logged. No experiment record is written: TensorBoard would take the first
one it finds for all members, and hide what others have. Custom-scalars layouts of all runs are merged by category; the
sweep's own lies in `DIR/runs` itself, whose run TensorBoard calls ".", and so comes first.
"""

from __future__ import annotations

from pathlib import Path

from tensorboardX import summary

from honest.report.sources import RUNS, is_finished, read_members
from honest.report.sweep import member_parameters
from honest.train.events import layout_summary, write_once

# One tag a chart, so that its lines are the members.
ALL_MEMBERS = {
    "all members": {
        "Jensen–Shannon divergence of the heads, fooled rows (nat/row)": [r"divergence/jensen_shannon_fooled$"],
        "fooled rows answered differently (share)": [r"divergence/disagreement_fooled$"],
        "intended head right by the truth, fooled rows (share)": [r"honesty/intended_truth_fooled$"],
        "instrumental head right by the truth, fooled rows (share)": [r"honesty/instrumental_truth_fooled$"],
        "λ (nat/disagreement)": [r"constraint/lambda_nats_per_disagreement$"],
        "violation / tolerance": [r"constraint/violation_over_tolerance$"],
    }
}


def write_hparams(folder: Path) -> None:
    """A session for each finished member of the sweep in `folder` that has none yet, and the layout of all members.

    To be called as often as one likes. UserError: the list of members cannot be read.
    """
    planned = read_members(folder)
    parameters = member_parameters(folder, planned)
    for i, member in enumerate(planned):
        run = folder / RUNS / member.name
        if is_finished(run):
            given = {parameter.label: parameter.values[i] for parameter in parameters}
            _, start, end = summary.hparams({label: x for label, x in given.items() if x is not None}, {})
            write_once(run, "hparams", [start, end])
    write_once(folder / RUNS, "layout", [layout_summary(ALL_MEMBERS)])
