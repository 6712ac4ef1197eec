"""What a person with help says of untrusted training rows: labels of some (`amplified`), and comparisons of pairs.

Help is stated, not simulated: the helped person is right but for a stated error rate. Steps two and three of
Christiano's "Teaching ML to answer questions honestly instead of predicting human answers": amplified labels, and
comparisons on which the judge abstains unless one answer is surely better. These are the only ways, beside a trunk's
declared targets and the ceiling, in which truth about untrusted rows reaches a trainer; rows that were helped leave the
test set.
"""

from __future__ import annotations

import jax
import numpy as np

from honest.config_objective import Amplified, Comparisons, Supervision
from honest.data.batch import NONE, Batch, Evaluation, Pairs, Splits, concatenate, labelled

STREAMS = {"amplified": 11, "comparisons": 12}  # beside a task's own


def helped(splits: Splits, supervision: Supervision, seed: int) -> Splits:
    """The splits with the help that the config states. A pure function of its arguments.

    Amplified labels join `trusted`, at its end; the person's own answers to these rows stay in `untrusted`.
    """
    used: list[Batch] = []
    result = splits
    if supervision.amplified is not None:
        rows = amplified(splits, supervision.amplified, seed)
        used.append(rows)
        result = result._replace(trusted=concatenate(splits.trusted, rows))
    if supervision.comparisons is not None:
        pairs = compared(splits, supervision.comparisons, seed)
        used += list(pairs)
        result = result._replace(comparisons=pairs)
    return result._replace(test=without(splits.test, used)) if used else result


def truth_of_untrusted(splits: Splits) -> np.ndarray:
    """int32[N]: the truth of each untrusted training row, which the ceiling's rows hold after the trusted ones."""
    trusted = np.asarray(splits.trusted.label_B).shape[0]
    tokens = np.asarray(splits.ceiling.tokens_BxL)[trusted:]
    assert np.array_equal(tokens, np.asarray(splits.untrusted.tokens_BxL)), "ceiling = trusted rows, then untrusted"
    return np.asarray(splits.ceiling.label_B)[trusted:]


def amplified(splits: Splits, config: Amplified, seed: int) -> Batch:
    """round(share · N) random untrusted rows with the helped person's labels, a share `error_rate` of them wrong."""
    rng = np.random.default_rng([seed, STREAMS["amplified"]])
    truth_N = truth_of_untrusted(splits)
    chosen = rng.permutation(len(truth_N))[: round(config.share * len(truth_N))]
    wrong = rng.permutation(len(chosen)) < round(config.error_rate * len(chosen))
    return labelled(rows_at(splits.untrusted, chosen), truth_N[chosen] ^ wrong)


def compared(splits: Splits, config: Comparisons, seed: int) -> Pairs:
    """The comparisons made: of `asked` random pairs those with exactly one true claim, less the share abstained on."""
    rng = np.random.default_rng([seed, STREAMS["comparisons"]])
    truth_N = truth_of_untrusted(splits)
    first_P, second_P = rng.integers(0, len(truth_N), (2, config.asked))
    decided = np.flatnonzero(truth_N[first_P] != truth_N[second_P])
    made = decided[rng.permutation(len(decided)) >= round(config.abstain_rate * len(decided))]
    wrong = rng.permutation(len(made)) < round(config.error_rate * len(made))
    first_better = (truth_N[first_P[made]] == 1) ^ wrong
    better = np.where(first_better, first_P[made], second_P[made])
    worse = np.where(first_better, second_P[made], first_P[made])
    silent = labelled(splits.untrusted, np.full(len(truth_N), NONE))
    return Pairs(rows_at(silent, better), rows_at(silent, worse))


def rows_at(batch: Batch, chosen: np.ndarray) -> Batch:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[chosen], batch)


def without(evaluation: Evaluation, used: list[Batch]) -> Evaluation:
    """The evaluation less the rows whose text is among the rows used."""
    seen = {row.tobytes() for batch in used for row in np.asarray(batch.tokens_BxL)}
    keep = np.array([row.tobytes() not in seen for row in np.asarray(evaluation.batch.tokens_BxL)], bool)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[keep], evaluation)
