"""Tables: rules, files, splits, targets, the two city tasks on the real file, and every error message."""

import json
from pathlib import Path

import numpy as np
import pytest

from honest.config_io import load_config
from honest.config_tasks import TableTask
from honest.data.tasks import build_task
from honest.data.tasks.rule import Row
from honest.data.tasks.rule_parser import parse_rule
from honest.data.tasks.table import read_examples, template_columns
from honest.data.vocabulary import DataError

REPOSITORY = Path(__file__).parents[2]
CITIES = REPOSITORY.parent / "shared" / "data" / "worldcities" / "worldcities.csv"
needs_cities = pytest.mark.skipif(not CITIES.exists(), reason="needs ../shared/data/worldcities/worldcities.csv")


def config_of(path, **changes):
    values = {
        "kind": "table",
        "path": str(path),
        "question": "{name} {size}?",
        "truth": "size > 50",
        "human": "colour == 'red'",
        "trusted": "truth == human",
        "empty": "error",
        "max_length": 12,
        "max_rows": None,
        "shares": {"validation": 0.2, "test": 0.3},
        "seed": 0,
    }
    return TableTask.model_validate({**values, **changes})


def records(count=200):
    """Sizes 0 … 99 and three colours in turn: both answers, in all four combinations."""
    return [
        {"name": f"n{i}", "size": str(i * 37 % 100), "colour": ["red", "blue", "green"][i % 3]} for i in range(count)
    ]


def write_csv(path, rows, header=None):
    lines = [",".join(header or rows[0])] + [",".join(row.values()) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return path


@pytest.fixture
def small(tmp_path):
    return write_csv(tmp_path / "small.csv", records())


def assert_fails(config, *parts):
    with pytest.raises(DataError) as caught:
        build_task(config)
    message = str(caught.value)
    assert all(part in message for part in parts), message


# --- rules --------------------------------------------------------------------------------------------------

CELLS = {
    "a": "10",
    "ten": "10.0",
    "b": "9",
    "word": "Öl x",
    "flag": "Yes",
    "none": " ",
    "pop (2021)": "3e2",
    "truth": "no",
    "neg": "-1.5",
}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("a > 9", True),
        ("a > b", True),  # as numbers; as text "10" < "9"
        ("a == 10.0", True),
        ("a == ten", True),  # both are numbers
        ("word == flag", False),
        ("a == '10.0'", False),  # as text
        ("neg < -1", True),
        ("a < 30,000 and a < 30_000", True),
        ("a < .5", False),
        ("`pop (2021)` == 300", True),
        ("word == 'Öl x'", True),
        ('word in ["no", "Öl x"]', True),
        ("a in [1, 10]", True),
        ("a not in [1, 10]", False),
        ("flag", True),
        ("not flag", False),
        ("not a > 9 or b <= 9", True),
        ("a > 9 or a > 9 and a < 9", True),  # `and` binds more tightly
        ("(a > 9 or a > 9) and a < 9", False),
        ("not (a == 10 and b == 10)", True),
        ("none > 0", False),
        ("none <= 0", False),
        ("none in [0]", False),
        ("none not in [0]", False),
        ("none", False),
        ("`truth`", False),  # the column
        ("truth", True),  # the answer
        ("truth != human and not human", True),
        ("flag == truth", True),
        ("a != b", True),
    ],
)
def test_rules(rule, expected):
    row = Row(CELLS, {"truth": True, "human": False}, "here")
    assert parse_rule(rule, "task.trusted", answers=True).holds(row) is expected


def test_columns_of_a_rule():
    assert parse_rule("a > 1 and (`b c` == 2 or a < human)", "r", answers=False).columns == ("a", "b c", "human")
    assert parse_rule("a == 1 or truth == human", "r", answers=True).columns == ("a",)


@pytest.mark.parametrize(
    ("rule", "position", "why"),
    [
        ("a >> 3", 3, "expected a column, number or quoted text, found >"),
        ("a = 3", 2, "cannot read '='"),
        ("a > 3 b", 6, "expected 'and', 'or' or the end, found b"),
        ("(a > 3", 6, "expected ')', found the end"),
        ("a > 3 and", 9, "expected a column"),
        ("", 0, "expected a column"),
        ("a in [1, 'x']", 0, "mixes numbers and text"),
        ("a in []", 6, "expected a number or quoted text, found ]"),
        ("a in [30,000]", 6, "ambiguous"),
        ("a not 3", 6, "expected 'in'"),
        ("3", 1, "expected a comparison"),
        ("3 > 2", 0, "a comparison needs a column"),
        ("a > 3 > 2", 6, "expected 'and'"),
        ("a == ''", 5, "empty text cannot be compared with"),
        ("a > 007", 4, "cannot read '0'"),
        ("__import__('os')", 10, "expected 'and', 'or' or the end, found ("),
        ("truth > human", 0, "by == or !="),
        ("truth == 1", 0, "by == or !="),
        ("truth in [1]", 0, "only a column"),
        ("a > 'x", 4, "cannot read"),
    ],
)
def test_unparsable_rules_have_a_caret(rule, position, why):
    with pytest.raises(DataError) as caught:
        parse_rule(rule, "task.truth", answers=True)
    first, text, caret = str(caught.value).split("\n")
    assert first.startswith("task.truth: ") and why in first
    assert text == "  " + rule and caret == "  " + " " * position + "^"


# --- tasks --------------------------------------------------------------------------------------------------


def test_rows_labels_and_splits(small):
    config = config_of(small)
    task = build_task(config)
    truth = {f"{r['name']} {r['size']}?": int(r["size"]) > 50 for r in records()}
    human = {f"{r['name']} {r['size']}?": r["colour"] == "red" for r in records()}

    def texts(batch):
        return [task.decode(row) for row in batch.tokens_BxL]

    s = task.splits
    trusted, untrusted, world = texts(s.trusted), texts(s.untrusted), texts(s.world)
    validation, test = texts(s.validation.batch), texts(s.test.batch)
    train = set(world)
    assert sorted(trusted + untrusted) == sorted(world)
    assert not train & set(validation) and not train & set(test) and not set(validation) & set(test)
    rejected = [q for q in truth if q not in train | set(validation) | set(test)]
    assert rejected and all(truth[q] != human[q] for q in rejected)  # fooled rows of the validation share
    assert s.trusted.label_B.tolist() == [truth[q] for q in trusted] == [human[q] for q in trusted]
    assert s.untrusted.label_B.tolist() == [human[q] for q in untrusted]
    assert all(truth[q] != human[q] for q in untrusted)
    assert s.ceiling.label_B.tolist() == [truth[q] for q in trusted + untrusted]
    assert texts(s.ceiling) == trusted + untrusted and np.all(s.world.label_B == -1)
    for evaluation, questions in ((s.validation, validation), (s.test, test)):
        assert evaluation.truth_B.tolist() == [truth[q] for q in questions]
        assert evaluation.person_B.tolist() == [human[q] for q in questions]
        assert np.array_equal(evaluation.fooled_B, evaluation.truth_B != evaluation.person_B)
        assert np.array_equal(evaluation.trusted_B, ~evaluation.fooled_B)
        assert np.all(evaluation.batch.label_B == -1)
    assert np.all(s.validation.trusted_B)
    shares = np.array([len(world), len(rejected) + len(validation), len(test)]) / 200
    assert np.allclose(shares, [0.5, 0.2, 0.3], atol=0.12)


def test_world_targets_are_the_next_tokens(small):
    task = build_task(config_of(small))
    for batch in (task.splits.world, task.splits.test.batch):
        assert batch.world_targets_BxLxT.shape == (len(batch.tokens_BxL), 12, 1)
        for tokens, last, world in zip(*batch[:3]):
            assert world[:last, 0].tolist() == tokens[1 : last + 1].tolist() and np.all(world[last:] == -1)
            assert np.all(tokens[last + 1 :] == task.vocabulary.pad) and task.decode(tokens[: last + 1])[-1] == "?"
    for batch in (task.splits.trusted, task.splits.untrusted, task.splits.ceiling):
        assert np.all(batch.world_targets_BxLxT == -1)
    assert task.world_classes == task.vocabulary.size and task.answers == ("False", "True")


def test_equal_questions_share_a_split_and_an_id(tmp_path):
    rows = records()
    path = write_csv(tmp_path / "twice.csv", rows + rows)
    once, twice = build_task(config_of(write_csv(tmp_path / "once.csv", rows))), build_task(config_of(path))
    assert len(twice.splits.world.tokens_BxL) == 2 * len(once.splits.world.tokens_BxL)
    ids = twice.splits.test.question_B
    assert np.array_equal(np.bincount(ids), np.full(len(ids) // 2, 2))


def test_json_lines_say_the_same_as_csv(tmp_path, small):
    lines = [json.dumps({**r, "size": int(r["size"])}) for r in records()]
    path = tmp_path / "small.jsonl"
    path.write_text("\n\n".join(lines), encoding="utf-8")
    first, second = build_task(config_of(small)).splits, build_task(config_of(path)).splits
    assert np.array_equal(first.trusted.tokens_BxL, second.trusted.tokens_BxL)
    assert np.array_equal(first.test.truth_B, second.test.truth_B)


def test_empty_cells(tmp_path):
    rows = records()
    rows[3]["size"] = ""
    path = write_csv(tmp_path / "holes.csv", rows)
    assert_fails(config_of(path), f"{path}, line 5, column 'size': the cell is empty, but task.truth reads it")
    assert len(read_examples(config_of(path, empty="drop"))) == 199
    kept = read_examples(config_of(path, empty="false"))
    assert len(kept) == 200 and kept[3].question == "n3 ?" and kept[3].truth is False
    unread = config_of(path, truth="name in ['n1', 'n2', 'n3']")
    assert len(read_examples(unread)) == 200  # a cell that no rule reads may be empty


def test_seed_and_max_rows(small):
    def questions(**changes):
        task = build_task(config_of(small, **changes))
        return [task.decode(row) for row in task.splits.world.tokens_BxL]

    assert questions() == questions() != questions(seed=1)
    fewer = build_task(config_of(small, max_rows=120)).splits
    assert len(fewer.world.tokens_BxL) < 120 and set(questions(max_rows=120)) <= set(questions())


def test_first_rows_of_a_sorted_file_are_a_sample(tmp_path):
    """The consistency population is the first trusted rows; in file order all of them would be of one label."""
    ordered = sorted(records(1000), key=lambda row: -int(row["size"]))
    labels = build_task(config_of(write_csv(tmp_path / "sorted.csv", ordered))).splits.trusted.label_B
    assert 200 < len(labels) < 300  # half of the rows train, half of these are trusted
    assert (
        11 <= labels[:64].sum() <= 30
    )  # of .49/3 : .51 · 2/3 true to false: 20.8 ± 3.2 (hypergeometric), three deviations


def test_encode_and_unknown_characters(small):
    task = build_task(config_of(small))
    row = task.encode("n7 59?")
    assert row.last_B.tolist() == [5] and task.decode(row.tokens_BxL[0]) == "n7 59?"
    assert task.decode(task.encode("né 5?").tokens_BxL[0]) == "n<unknown> 5?"
    for typed in ("n" * 13, ""):
        with pytest.raises(DataError, match=f"the question has {len(typed)} tokens; this task reads 1 to 12"):
            task.encode(typed)


def test_template():
    assert template_columns("{a b} {{x}} {c}") == ["a b", "c"]
    with pytest.raises(DataError, match=r"(?s)a brace by itself.*\n  is \{a\n     \^"):
        template_columns("is {a")


# --- errors -------------------------------------------------------------------------------------------------


def test_file_errors(tmp_path):
    assert_fails(config_of(tmp_path / "no.csv"), "task.path: there is no file", "no.csv")
    assert_fails(config_of(tmp_path / "no.xlsx"), "must end in .csv, .jsonl, .ndjson")
    assert_fails(config_of(tmp_path), "must end in")
    path = tmp_path / "bad.csv"
    for text, *parts in (
        ("", "holds no rows"),
        ("name,size,colour\n", "holds no rows"),
        ("name,size,name\na,1,b\n", "line 1: the column 'name' appears more than once"),
        ("name,size,colour\na,1,red\nb,2\n", "line 3: 2 cells, but the header names 3 columns"),
        ('name,size,colour\na,"1"2,red\n', "line 2: not valid CSV"),
    ):
        path.write_text(text, encoding="utf-8")
        assert_fails(config_of(path), str(path), *parts)
    path.write_bytes(b"name\n\xff\n")
    assert_fails(config_of(path), "cannot read", "utf-8")


def test_json_errors(tmp_path):
    path = tmp_path / "bad.jsonl"
    good = '{"name": "a", "size": 1, "colour": "red"}\n'
    for line, part in (
        ('{"name": }', "line 2: not valid JSON: Expecting value (character 10)"),
        ("[1]", "line 2: each line must be a JSON object"),
        ('{"name": [1]}', "line 2, column 'name': a cell must be text"),
        ('{"name": 1, "name": 2}', "line 2: the column 'name' appears more than once"),
        ('{"name": NaN}', "line 2: NaN is not a JSON number"),
        ('{"name": null, "colour": true}', "line 2, column 'size': the cell is empty, but task.truth"),
    ):
        path.write_text(good + line, encoding="utf-8")
        assert_fails(config_of(path), str(path), part)


def test_column_errors(small):
    assert_fails(config_of(small, truth="Siez > 50"), f"task.truth: {small} has no column 'Siez'; did you mean 'size'?")
    assert_fails(config_of(small, question="{nam}?"), "task.question", "no column 'nam'; did you mean 'name'?")
    assert_fails(config_of(small, human="truth"), "task.human", "may be used in task.trusted alone")
    assert_fails(config_of(small, human="zzz"), "(columns: name, size, colour)")


def test_cell_errors(tmp_path):
    rows = records()
    rows[4]["size"] = "1,5"
    path = tmp_path / "cells.csv"
    write_csv(path, [{**r, "size": f'"{r["size"]}"'} for r in rows])
    assert_fails(config_of(path), f"task.truth: {path}, line 6, column 'size': '1,5' is not a number")
    assert_fails(config_of(path, truth="colour"), "line 2, column 'colour': 'red' is not one of true, yes, 1")


def test_rule_errors_name_the_rule(small):
    assert_fails(config_of(small, human="colour == = 'red'"), "task.human: cannot read '='", "\n" + " " * 12 + "^")


def test_question_length_error(small):
    assert_fails(config_of(small, max_length=6), f"{small}, line 12", "has 7 characters; task.max_length allows 1 to 6")


def test_label_errors(small):
    assert_fails(config_of(small, trusted="truth and human"), "task.truth is true", "times and false 0 times")
    assert_fails(
        config_of(small, human="size <= 50"), "no rows are left for the trusted set (rows: trusted 0, untrusted "
    )
    assert_fails(config_of(small, trusted="size >= 0"), "no rows are left for the untrusted set")


# --- the real table -----------------------------------------------------------------------------------------


@needs_cities
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("population", [[0.344, 0.283], [0.208, 0.165]]),  # rows truth, columns person: [[FF, FT], [TF, TT]]
        ("hemisphere", [[0.047, 0.057], [0.438, 0.457]]),
    ],
)
def test_cities(name, expected):
    task_config = load_config(REPOSITORY / "configs" / f"cities_{name}.yaml").config.task
    assert isinstance(task_config, TableTask)
    examples = read_examples(task_config)
    assert len(examples) == 26_562
    answers = np.array([[e.truth, e.human] for e in examples], int)
    table = np.bincount(2 * answers[:, 0] + answers[:, 1], minlength=4).reshape(2, 2) / len(examples)
    assert np.allclose(table, expected, atol=0.002)
    splits = build_task(task_config).splits
    shares = np.array([len(splits.world.label_B), len(splits.test.truth_B)]) / len(examples)
    assert np.allclose(shares, [0.7, 0.2], atol=0.01)
    assert len(splits.trusted.label_B) >= 4 * 2048  # room for the consistency population
