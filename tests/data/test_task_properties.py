"""What holds for every kind of task: seeds, streams, disjoint questions, whose answers are labels, and text."""

from pathlib import Path

import numpy as np
import pytest

from honest.config_io import load_config
from honest.data.batch import Batch
from honest.data.tasks import build_task

CONFIGS = Path(__file__).parents[2] / "configs"
ROWS = {"world": 60, "trusted": 64, "untrusted": 64, "validation": 40, "test": 80}
SETS = ("world", "trusted", "untrusted", "ceiling", "validation", "test")
TRAINING = SETS[:4]
COLUMNS = "name,size,colour\n" + "".join(f"n{i},{i * 37 % 100},{('red', 'blue', 'green')[i % 3]}\n" for i in range(300))


def declared(kind):
    """The task section of the shipped config, with few rows."""
    config = {"arithmetic": "quickstart"}.get(kind, kind)
    task = load_config(CONFIGS / f"{config}.yaml", ["objective.consistency.population=16"]).config.task
    return task.model_copy(update={"rows": task.rows.model_copy(update=ROWS)})


@pytest.fixture(params=["arithmetic", "table", "diamonds", "world"])
def config(request, tmp_path):
    if request.param != "table":
        return declared(request.param)
    path = tmp_path / "rows.csv"
    path.write_text(COLUMNS, encoding="utf-8")
    task = load_config(CONFIGS / "cities_population.yaml").config.task
    changes = {
        "path": str(path),
        "question": "{name} {size} {colour}",
        "truth": "size > 49",
        "human": "colour in ['red']",
        "trusted": "truth == human",
        "max_length": 20,
        "max_rows": 250,
    }
    return task.model_copy(update=changes)


def batch_of(splits, name) -> Batch:
    found = getattr(splits, name)
    return found if isinstance(found, Batch) else found.batch


def arrays(splits, names=SETS):
    found = [getattr(splits, name) for name in names]
    batches = [part if isinstance(part, Batch) else part.batch for part in found]
    answers = [part[1:] for part in found if not isinstance(part, Batch)]
    return [np.asarray(x) for part in (*batches, *answers) for x in part]


def same(first, second):
    return len(first) == len(second) and all(np.array_equal(x, y) for x, y in zip(first, second, strict=True))


def questions(task, name):
    """The question alone: for arithmetic the operands, in either order, else the whole text."""
    texts = {task.decode(row) for row in batch_of(task.splits, name).tokens_BxL}
    if any("=" in text for text in texts):
        return {tuple(sorted(text.split("=")[0].replace(" ", "").split("+"))) for text in texts}
    return texts


def test_seeds(config):
    first, again = build_task(config), build_task(config)
    other = build_task(config.model_copy(update={"seed": config.seed + 1}))
    assert same(arrays(first.splits), arrays(again.splits))
    assert first.description == again.description and first.vocabulary == again.vocabulary
    for name in SETS:
        assert not same(arrays(first.splits, [name]), arrays(other.splits, [name])), name


@pytest.mark.parametrize("changed", ["world", "trusted", "untrusted", "validation", "test"])
def test_sets_have_streams_of_their_own(config, changed):
    if not hasattr(config, "rows"):
        pytest.skip("a table's sets are the file's rows, told apart by a hash")
    more = config.rows.model_copy(update={changed: 2 * getattr(config.rows, changed)})
    first, other = build_task(config).splits, build_task(config.model_copy(update={"rows": more})).splits
    follow = {changed, "ceiling"} if changed in ("trusted", "untrusted") else {changed}
    for name in SETS:
        assert same(arrays(first, [name]), arrays(other, [name])) == (name not in follow), name


def test_no_held_out_question_is_trained_on(config):
    task = build_task(config)
    trained = set().union(*(questions(task, name) for name in TRAINING))
    validation, test = questions(task, "validation"), questions(task, "test")
    assert trained and validation and test
    assert not trained & validation and not trained & test and not validation & test


def test_answers(config):
    """Labels of trusted and untrusted rows are the person's; the crosstab holds both answers and fooled rows."""
    splits = build_task(config).splits
    rows = len(splits.trusted.label_B)
    trusted_truth_B, untrusted_truth_B = splits.ceiling.label_B[:rows], splits.ceiling.label_B[rows:]
    assert np.array_equal(trusted_truth_B, splits.trusted.label_B)  # the person is right there (no error rate)
    assert np.any(untrusted_truth_B != splits.untrusted.label_B)  # and not everywhere else
    assert set(trusted_truth_B.tolist()) == {0, 1}
    for evaluation in (splits.validation, splits.test):
        table = np.zeros((2, 2), int)
        np.add.at(table, (evaluation.truth_B, evaluation.person_B), 1)
        assert table.sum() == len(evaluation.truth_B)
        assert table[0, 1] + table[1, 0] == evaluation.fooled_B.sum()
        assert not np.any(evaluation.fooled_B & evaluation.trusted_B)
        assert len(set(evaluation.truth_B.tolist())) == 2
    assert np.all(splits.validation.trusted_B) and splits.test.fooled_B.any() and not splits.test.fooled_B.all()


def test_labels_and_world_targets_are_where_they_belong(config):
    task = build_task(config)
    for name in SETS:
        batch = batch_of(task.splits, name)
        assert batch.tokens_BxL.shape == (len(batch.last_B), task.max_length)
        assert batch.world_targets_BxLxT.shape == (*batch.tokens_BxL.shape, task.world_channels)
        assert batch.world_targets_BxLxT.max() < task.world_classes
        labelled = name in ("trusted", "untrusted", "ceiling")
        assert np.all((batch.label_B >= 0) == labelled), name
        assert np.any(batch.world_targets_BxLxT >= 0) == (not labelled), name


def test_encode_inverts_decode(config):
    task = build_task(config)
    for name in ("trusted", "untrusted", "test"):
        batch = batch_of(task.splits, name)
        for row in range(20):
            if task.vocabulary.unknown in batch.tokens_BxL[row].tolist():
                continue
            again = task.encode(task.decode(batch.tokens_BxL[row]))
            assert np.array_equal(again.tokens_BxL[0], batch.tokens_BxL[row])
            assert again.last_B[0] == batch.last_B[row]
