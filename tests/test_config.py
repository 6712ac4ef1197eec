"""Reading configs: a mistake is told with file, line, key and remedy; a good config survives a round trip."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from honest.config import RunConfig
from honest.config_io import ConfigError, differences, dump_config, load_config, unit_table
from honest.config_tasks import TableTask
from honest.errors import UserError

QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
# The quick-start config with the values that these tests replace or quote, whatever it is tuned to.
PINNED = (
    "name=quickstart",
    "seed=0",
    "task.digits=3",
    "task.trunk_targets=says",
    "task.truth_rate=0.25",
    "task.rows.trusted=8192",
    "model.layers=3",
    "model.width=64",
    "model.attention_heads=4",
    "model.key_value_heads=4",
    "model.positions=rotary",
    "model.head={kind: mlp, hidden: 128}",
    "objective.anchor=init",
    "objective.consistency.population=2048",
    "objective.first_prior.trunk.stddev=1.5 θ.trunk",
    "objective.multiplier.tolerance=0.01 disagreement/example",
    "objective.multiplier.initial=1.0 nat/disagreement",
    "objective.multiplier.minimum=0.01 nat/disagreement",
    "objective.multiplier.maximum=100.0 nat/disagreement",
    "objective.multiplier.rate=0.02",
    "objective.multiplier.warmup_steps=101",
    "objective.phases.target_accept=0.6",
    "objective.phases.adjusted=true",
    "stages.prior.steps=600",
    "stages.prior.optimizer.warmup_steps=21",
    "stages.heads.optimizer.weight_decay=0.5",
    "checkpoint={every: 200, keep: 2}",
    "compute={dtype: parameters, rematerialise: false, micro_batches: 1}",
    "parallel={devices: null, strategy: auto, hosts: one}",
)
TABLE_TASK = """task:
  kind: table
  path: data/cities.csv
  question: "{city}: more than 30000?"
  truth: population > 30000
  human: country == "China"
  trusted: truth == human
  empty: false
  max_length: 64
  max_rows: null
  shares: {validation: 0.1, test: 0.2}
  seed: 0
"""


@pytest.fixture(scope="module")
def text() -> str:
    """A config that holds no mistake, one key a line."""
    return dump_config(load_config(QUICKSTART, PINNED).config)


@pytest.fixture
def plain(tmp_path, text) -> Path:
    path = tmp_path / "plain.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def config(plain) -> RunConfig:
    return load_config(plain).config


def line_of(piece: str, text: str) -> int:
    assert text.count(piece) == 1, f"{piece!r} occurs {text.count(piece)} times"
    return text[: text.index(piece)].count("\n") + 1


@pytest.fixture
def edited(tmp_path, text):
    """Writes the config with a piece of its text replaced; returns the path and the piece's line."""

    def edit(old: str, new: str) -> tuple[Path, int]:
        path = tmp_path / "run.yaml"
        path.write_text(text.replace(old, new), encoding="utf-8")
        return path, line_of(old, text)

    return edit


def message(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert "pydantic" not in str(caught.value) and "http" not in str(caught.value)
    return str(caught.value)


# --- what is read -------------------------------------------------------------------------------------------


def test_the_quickstart_config_loads(tmp_path):
    loaded = load_config(QUICKSTART)
    assert loaded.path == QUICKSTART and loaded.config.name == "quickstart"
    assert reloaded(loaded.config, tmp_path) == loaded.config


def test_values_are_those_of_the_text(config):
    assert config.stages.heads.optimizer.weight_decay == 0.5
    assert config.objective.multiplier.tolerance == "0.01 disagreement/example"
    assert config.objective.phases.adjusted is True
    assert config.parallel.devices is None


def test_numbers_follow_yaml_1_2(edited):
    path, _ = edited("    rate: 0.02\n", "    rate: 1e-3\n")
    config = load_config(path, ["objective.multiplier.ema=0", "name=yes", "task.seed=010"]).config
    assert config.objective.multiplier.rate == 0.001  # no dot is needed before the exponent
    assert config.objective.multiplier.ema == 0.0 and type(config.objective.multiplier.ema) is float
    assert config.name == "yes"  # a word, not a truth value
    assert config.task.seed == 10  # not octal


def test_dates_are_text(plain):
    assert load_config(plain, ["name=2024-05-01"]).config.name == "2024-05-01"


def test_both_spellings_of_a_unit(edited):
    path, _ = edited("stddev: 1.5 θ.trunk", "stddev: 0.5 theta.trunk")
    assert load_config(path).config.objective.first_prior.trunk.stddev == "0.5 theta.trunk"


def test_a_unit_that_converts_is_accepted(plain):
    config = load_config(plain, ["objective.multiplier.initial=2 bit/disagreement"]).config
    assert config.objective.multiplier.initial == "2 bit/disagreement"


def test_configs_are_frozen(config):
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3


# --- one mistake at a time ----------------------------------------------------------------------------------

# what -> (text that is replaced, by what, text on the line that is named, what is told)
MISTAKES = {
    "unknown key": (
        "  layers: 3",
        "  layers: 3\n  layerz: 3",
        "layerz: 3",
        "model.layerz: unknown key (value given: 3); did you mean 'model.layers'? allowed here: layers, "
        "width, attention_heads, key_value_heads, mlp_ratio, norm, positions, head",
    ),
    "misspelt key, told once": (
        "weight_decay: 0.5",
        "wieght_decay: 0.5",
        "wieght_decay: 0.5",
        "stages.heads.optimizer.wieght_decay: unknown key (value given: 0.5); did you mean "
        "'stages.heads.optimizer.weight_decay'? allowed here: learning_rate, weight_decay, warmup_steps, "
        "schedule, clip_norm",
    ),
    "key of another section": (
        "name: quickstart",
        "name: quickstart\nema: 0.5",
        "ema: 0.5",
        "ema: unknown key (value given: 0.5); did you mean 'objective.multiplier.ema'? allowed here: name, "
        "seed, precision, task, model, objective, methods, baselines, stages, evaluation, checkpoint, compute, "
        "parallel",
    ),
    "missing key": (
        "    hidden: 128\n",
        "",
        "  head:\n",
        "model.head.hidden: missing key; give it a whole number ≥ 1",
    ),
    "missing section": (
        "  head:\n    kind: mlp\n    hidden: 128\n",
        "",
        "model:\n",
        "model.head: missing key; give it a section with the keys kind, hidden",
    ),
    "text for a whole number": (
        "digits: 3",
        'digits: "3"',
        'digits: "3"',
        "task.digits: wrong type (value given: '3'); expected a whole number ≥ 1 and ≤ 6, without quotes",
    ),
    "number with a point for a whole number": (
        "  layers: 3",
        "  layers: 3.0",
        "  layers: 3.0",
        "model.layers: wrong type (value given: 3.0); expected a whole number ≥ 1",
    ),
    "truth value for a number": (
        "    rate: 0.02\n",
        "    rate: true\n",
        "    rate: true\n",
        "objective.multiplier.rate: wrong type (value given: true); expected a number > 0",
    ),
    "number for text": (
        "name: quickstart",
        "name: 12",
        "name: 12",
        "name: wrong type (value given: 12); expected text of the form ^[A-Za-z0-9][A-Za-z0-9_.-]*$, in quotes",
    ),
    "text for a truth value": (
        "adjusted: true",
        "adjusted: yes",
        "adjusted: yes",
        "objective.phases.adjusted: wrong type (value given: 'yes'); expected true or false",
    ),
    "nothing for a section": (
        "checkpoint:\n  every: 200\n  keep: 2\n",
        "checkpoint:\n",
        "checkpoint:\n",
        "checkpoint: wrong type (value given: null); expected a section with the keys every, keep",
    ),
    "not null": (
        "devices: null",
        "devices: all",
        "devices: all",
        "parallel.devices: wrong type (value given: 'all'); expected a whole number ≥ 1 or null",
    ),
    "below its range": (
        "target_accept: 0.6",
        "target_accept: 0",
        "target_accept: 0",
        "objective.phases.target_accept: out of range (value given: 0); expected a number > 0 and < 1",
    ),
    "above its range": (
        "truth_rate: 0.25",
        "truth_rate: 1.25",
        "truth_rate: 1.25",
        "task.truth_rate: out of range (value given: 1.25); expected a number ≥ 0 and ≤ 1",
    ),
    "infinite": (
        "    rate: 0.02\n",
        "    rate: .inf\n",
        "    rate: .inf\n",
        "objective.multiplier.rate: out of range (value given: inf); expected a number > 0",
    ),
    "name that is no file name": (
        "name: quickstart",
        "name: ../quickstart",
        "name: ../quickstart",
        "name: not of the allowed form (value given: '../quickstart'); "
        "expected text of the form ^[A-Za-z0-9][A-Za-z0-9_.-]*$",
    ),
    "unit of another group": (
        "stddev: 1.5 θ.trunk",
        "stddev: 1.5 θ.head",
        "stddev: 1.5 θ.head",
        "objective.first_prior.trunk.stddev: has unit θ.head, not θ.trunk (value given: '1.5 θ.head'); "
        "expected a positive number and its unit, e.g. 1.0 θ.trunk",
    ),
    "number without a unit": (
        "tolerance: 0.01 disagreement/example",
        "tolerance: 0.01",
        "tolerance: 0.01",
        "objective.multiplier.tolerance: number without its unit (value given: 0.01); "
        "expected a positive number and its unit, e.g. 1.0 disagreement/example",
    ),
    "unknown unit": (
        "tolerance: 0.01 disagreement/example",
        "tolerance: 0.01 furlong",
        "tolerance: 0.01 furlong",
        "objective.multiplier.tolerance: is not a number with a known unit (value given: '0.01 furlong'); "
        "expected a positive number and its unit, e.g. 1.0 disagreement/example",
    ),
    "negative with a unit": (
        "tolerance: 0.01 disagreement/example",
        "tolerance: -0.01 disagreement/example",
        "tolerance: -0.01 disagreement/example",
        "objective.multiplier.tolerance: must be positive and finite (value given: '-0.01 disagreement/example'); "
        "expected a positive number and its unit, e.g. 1.0 disagreement/example",
    ),
    "unknown word": (
        "trunk_targets: says",
        "trunk_targets: say",
        "trunk_targets: say",
        "task.trunk_targets: unknown value (value given: 'say'); did you mean 'says'? "
        "expected one of 'digits', 'difference', 'says'",
    ),
    "unknown kind": (
        "kind: arithmetic",
        "kind: arithmatic",
        "kind: arithmatic",
        "task.kind: unknown value (value given: 'arithmatic'); did you mean 'arithmetic'? "
        "expected one of 'arithmetic', 'table', 'diamonds', 'world'",
    ),
    "no kind": (
        "  kind: arithmetic\n",
        "",
        "task:\n",
        "task.kind: missing key; give it one of 'arithmetic', 'table', 'diamonds', 'world'",
    ),
    "tag": (
        "  keep: 2\n",
        "  keep: 2\n  <<: !what x\n",
        "<<: !what x",
        "checkpoint.<<: tag !what does not fit; leave the tag out",
    ),
    "population beyond its rows": (
        "population: 2048",
        "population: 8193",
        "population: 8193",
        "objective.consistency.population: 8193 of the trusted rows are asked for, "
        "but task.rows.trusted is 8192; change one of them",
    ),
    "multiplier that never moves": (
        "warmup_steps: 101\n",
        "warmup_steps: 601\n",
        "warmup_steps: 601\n",
        "objective.multiplier.warmup_steps: λ is frozen for 601 steps, but stages.prior.steps is 600; "
        "change one of them",
    ),
    "warm-up longer than the stage": (
        "steps: 600",
        "steps: 20",
        "warmup_steps: 21\n",
        "stages.prior.optimizer.warmup_steps: 21 warm-up steps do not end within the stage's 20 steps; "
        "change one of them",
    ),
    "control variate of modes": (
        "control_variate: none",
        "control_variate: newton_stein",
        "control_variate: newton_stein",
        "objective.phases.control_variate: newton_stein takes sampling noise from chains, but phases.kind is laplace; "
        "change one of them",
    ),
    "width not divisible": (
        "width: 64",
        "width: 66",
        "width: 66",
        "model.width: 66 is not a multiple of attention_heads 4; change one of them",
    ),
    "odd width of a head": (
        "width: 64",
        "width: 12",
        "width: 12",
        "model.width: rotary positions need an even width / attention_heads, not 12/4; change one of them",
    ),
    "groups not divisible": (
        "key_value_heads: 4",
        "key_value_heads: 3",
        "key_value_heads: 3",
        "model.key_value_heads: attention_heads 4 is not a multiple of key_value_heads 3; change one of them",
    ),
    "multiplier out of order, across units": (
        "initial: 1.0 nat/disagreement",
        "initial: 145 bit/disagreement",  # 145 ln 2 = 100.5 nat
        "initial: 145 bit/disagreement",
        "objective.multiplier.initial: needs minimum ≤ initial ≤ maximum, has 0.01 ≤ 100.506 ≤ 100; change one of them",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_told_with_line_key_and_remedy(edited, mistake):
    old, new, named, told = MISTAKES[mistake]
    path, _ = edited(old, new)
    first, *others = message(path).split("\n")
    assert first == f"{path}:{line_of(named, path.read_text(encoding='utf-8'))}: {told}"
    assert len(others) == (1 if mistake == "tag" else 0)  # the tag sits on an unknown key


def test_batches_divide_into_the_devices_that_are_asked_for(plain):
    """256 = 85·3 + 1, and 128 = 42·3 + 2."""
    lines = message(plain, "parallel.devices=3").split("\n")
    text = plain.read_text(encoding="utf-8")
    start = text[: text.index("\nstages:")].count("\n") + 1
    found = {key: (int(place), what) for place, key, what in (re.findall(r":(\d+): (\S+): (.*)", x)[0] for x in lines)}
    assert {key: what for key, (_, what) in found.items()} == {
        f"stages.{name}.batch_rows": f"{rows} rows do not divide into the 3 of parallel.devices; change one of them"
        for name, rows in (("trunk", 256), ("heads", 256), ("prior", 128))
    }
    for place, _ in found.values():
        assert place > start and "batch_rows" in text.split("\n")[place - 1]
    for devices in ("8", "null"):  # of all devices it is known where the run starts
        load_config(plain, [f"parallel.devices={devices}"])


FISHER = "scales: {{source: fisher, stddev: 1.0 θ.{}, examples: 1, rows: {}}}"


@pytest.mark.parametrize(
    ("group", "rows", "more", "have"),
    [
        ("intended_head", 100, [], 100),
        ("intended_head", 125, ["objective.supervision.amplified={share: 0.5, error_rate: 0.0}"], 125),  # 100 + 50/2
        ("instrumental_head", 50, [], 50),
        ("instrumental_head", 100, ["objective.supervision.instrumental=none"], 100),  # of the trusted labels then
        ("trunk", 200, ["objective.staging=all"], 200),
    ],
)
def test_a_prior_takes_its_scales_from_rows_that_there_are(plain, group, rows, more, have):
    sizes = [f"task.rows.{name}={n}" for name, n in (("world", 200), ("trusted", 100), ("untrusted", 50))]
    common = [*sizes, "objective.consistency.population=10", *more]

    def asking(count: int) -> str:
        scales = FISHER.format("trunk" if group == "trunk" else "head", count)
        return f"objective.first_prior.{group}={{kind: diagonal, {scales}}}"

    load_config(plain, [*common, asking(rows)])
    load_config(plain, [*common, asking(rows + 1), "methods=[plain_heads]"])  # no prior is made
    assert message(plain, *common, asking(rows + 1)) == (
        f"--set {asking(rows + 1)}: objective.first_prior.{group}.scales.rows: asks for {rows + 1} rows, but there "
        f"are {have} to take them from; change one of them"
    )


def test_rows_of_a_prior_that_no_stage_makes_are_not_asked_for(plain):
    first = f"objective.first_prior.trunk={{kind: diagonal, {FISHER.format('trunk', 10**8)}}}"
    load_config(plain, [first, "objective.staging=heads_then_trunk"])
    second = first.replace("first", "second")
    assert "asks for 100000000 rows" in message(plain, second, "objective.staging=heads_then_trunk")


def test_the_control_variate_needs_an_even_number_of_chains(plain):
    chains = ("objective.phases.kind=chains", "objective.phases.control_variate=newton_stein")
    assert load_config(plain, [*chains, "objective.phases.chains=6"]).config.objective.phases.chains == 6
    assert (
        load_config(plain, [chains[0], "objective.phases.chains=7"]).config.objective.phases.control_variate == "none"
    )
    assert message(plain, *chains, "objective.phases.chains=7") == (
        "--set objective.phases.chains=7: objective.phases.chains: newton_stein corrects each half of the chains by "
        "the other: it needs an even number, not 7; change one of them"
    )
    assert "cg_steps: out of range" in message(plain, *chains, "objective.phases.cg_steps=0")
    some = message(plain, *chains, "objective.phases.chains=6", "objective.phases.asked_chains=2")
    assert "newton_stein corrects the mean over all 6 chains: set it to null, not to 2" in some


def test_chains_that_are_asked_in_turn_all_have_their_turns(plain):
    chains = ("objective.phases.kind=chains", "objective.phases.chains=6")
    assert load_config(plain, [*chains, "objective.phases.asked_chains=3"]).config.objective.phases.asked_chains == 3
    for asked in (4, 12):
        told = message(plain, *chains, f"objective.phases.asked_chains={asked}")
        assert f"has to divide objective.phases.chains, 6, for all chains to have their turns; it is {asked}" in told


def test_lines_of_a_small_file_by_hand(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("# a comment\n\nname: a b\nmodel:\n\n  layers: 0\n", encoding="utf-8")
    places = [line.split(": ")[:2] for line in message(path).split("\n")]
    assert [f"{path}:3", "name"] in places
    assert [f"{path}:3", "task"] in places  # missing from the whole, which begins on line 3
    assert [f"{path}:6", "model.layers"] in places
    assert [f"{path}:4", "model.width"] in places  # missing from `model`, which is on line 4


def test_duplicate_keys_name_both_lines(edited):
    path, line = edited("  layers: 3\n", "  layers: 3\n  width: 32\n  layers: 4\n")
    told = "duplicate key, first given in"
    assert message(path).split("\n") == [
        f"{path}:{line + 2}: model.layers: {told} {path}:{line}; keep one of the two",
        f"{path}:{line + 3}: model.width: {told} {path}:{line + 1}; keep one of the two",
    ]


def test_misspelt_key_does_not_hide_another_missing_one(edited):
    path, _ = edited("  every: 200\n  keep: 2\n", "  evry: 200\n")
    assert [line.split(": ")[1:3] for line in message(path).split("\n")] == [
        ["checkpoint.keep", "missing key; give it a whole number ≥ 1"],  # on the section's line
        ["checkpoint.evry", "unknown key (value given"],
    ]


def test_all_problems_at_once_in_reading_order(edited):
    path, line = edited("  layers: 3\n  width: 64\n", "  layers: 0\n  width: wide\n  width: 64\n  wdith: 1\n")
    lines = message(path, "seed=-1", "stages.prior.steps", "nmae=x", "stages.trunk.steps=many").split("\n")
    assert [text.rpartition(";")[0].split(" (")[0] for text in lines] == [
        f"{path}:{line}: model.layers: out of range",
        f"{path}:{line + 1}: model.width: wrong type",
        f"{path}:{line + 2}: model.width: duplicate key, first given in {path}:{line + 1}",
        f"{path}:{line + 3}: model.wdith: unknown key",
        "--set seed=-1: seed: out of range",
        "--set stages.prior.steps: is not of the form key.path=value",
        "--set nmae=x: nmae: unknown key",
        "--set stages.trunk.steps=many: stages.trunk.steps: wrong type",
    ]


def test_config_error_is_a_user_error_and_holds_its_problems(edited):
    path, line = edited("  layers: 3", "  layers: 0")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert isinstance(caught.value, UserError)
    (problem,) = caught.value.problems
    assert (problem.place.line, problem.key, problem.what[:12]) == (line, "model.layers", "out of range")


# --- files that are no config -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ("name: a\n  seed: 1\n", ":2:7", "not YAML: mapping values are not allowed here"),
        ("name: a\nseed: [1\nmodel: 3\n", ":3:6", "not YAML: expected ',' or ']', but got ':'"),
        ("name: a\n\tseed: 1\n", ":2:1", "not YAML: found character '\\t'"),
        ("name: a\nseed: *b\n", ":2:7", "not YAML: found undefined alias 'b'"),
        ('name: a\nx: "\x01"\n', ":2:5", "not YAML: character 0x1 is not allowed"),
        ("name: a\n---\nseed: 1\n", ":2:1", "not YAML: but found another document"),
        ("", ":1", "holds no keys"),
        ("- name\n- seed\n", ":1", "holds no keys"),
    ],
)
def test_text_that_is_no_mapping(tmp_path, text, place, what):
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    only = message(path)
    assert only.startswith(f"{path}{place}: {what}") and "\n" not in only


def test_alias_that_holds_itself(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("model: &m\n  head: *m\n", encoding="utf-8")
    assert f"{path}:2: model.head: holds itself by an alias (*); write the section out" in message(path)


def test_file_that_cannot_be_read(tmp_path):
    (tmp_path / "cities.yaml").touch()
    missing = tmp_path / "citties.yaml"
    told = f"{missing}: cannot be read (No such file or directory); did you mean 'cities.yaml'?"
    assert message(missing) == told
    assert message(tmp_path) == f"{tmp_path}: cannot be read (Is a directory); give the path of a YAML file"
    (tmp_path / "latin.yaml").write_bytes("name: é\n".encode("latin-1"))
    told = f"{tmp_path / 'latin.yaml'}: byte 6 is not UTF-8; save it as UTF-8"
    assert message(tmp_path / "latin.yaml") == told


# --- overrides ----------------------------------------------------------------------------------------------


def test_overrides_are_yaml_values_and_the_last_holds(plain):
    overrides = ["seed=1", "seed=2", "parallel.devices=4", "stages.prior.optimizer={learning_rate: 1, "
                 "weight_decay: 0, warmup_steps: 0, schedule: constant, clip_norm: 1e2}"]  # fmt: skip
    config = load_config(plain, overrides).config
    assert (config.seed, config.parallel.devices) == (2, 4)
    assert config.stages.prior.optimizer.model_dump() == {
        "learning_rate": 1.0,
        "weight_decay": 0.0,
        "warmup_steps": 0,
        "schedule": "constant",
        "clip_norm": 100.0,
    }


def test_override_supplies_what_the_file_lacks(edited):
    path, _ = edited("checkpoint:\n  every: 200\n  keep: 2\n", "")
    assert load_config(path, ["checkpoint.every=5", "checkpoint.keep=1"]).config.checkpoint.every == 5


def test_override_mends_the_file(edited):
    path, _ = edited("  layers: 3", "  layers: 0")
    assert load_config(path, ["model.layers=1"]).config.model.layers == 1


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("stages.prior.steps", "is not of the form key.path=value; e.g. --set stages.prior.steps=10"),
        ("=3", "is not of the form key.path=value; e.g. --set stages.prior.steps=10"),
        ("stages..steps=3", "is not of the form key.path=value; e.g. --set stages.prior.steps=10"),
        ("seed.x=3", "seed: has the value 0, so nothing can be set below it; set the key itself"),
        ("seed=[1", "not YAML: expected ',' or ']', but got '<stream end>' while parsing a flow sequence; "
                    "quote text with any of : # & * { } [ ]"),
        ("seed='3'", "seed: wrong type (value given: '3'); expected a whole number ≥ 0 and < 2147483648, "
                     "without quotes"),
        ("checkpoint.evry=3", "checkpoint.evry: unknown key (value given: 3); did you mean "
                              "'checkpoint.every'? allowed here: every, keep"),
        ("ema=0.5", "ema: unknown key (value given: 0.5); did you mean 'objective.multiplier.ema'? allowed "
                    "here: name, seed, precision, task, model, objective, methods, baselines, stages, evaluation, "
                    "checkpoint, compute, parallel"),
        ("task=3", "task: wrong type (value given: 3); expected a section whose kind is one of 'arithmetic', "
                   "'table', 'diamonds', 'world'"),
        ("task={}", "task.kind: missing key; give it one of 'arithmetic', 'table', 'diamonds', 'world'"),
        ("checkpoint={every: 1, every: 2, keep: 1}", "checkpoint.every: duplicate key, first given in "
         "--set checkpoint={every: 1, every: 2, keep: 1}; keep one of the two"),
    ],
)  # fmt: skip
def test_mistaken_override_names_itself(plain, override, told):
    assert message(plain, override) == f"--set {override}: {told}"


def test_error_of_an_unchanged_key_keeps_its_line(edited):
    path, line = edited("  layers: 3", "  layers: 0")
    assert message(path, "seed=1").startswith(f"{path}:{line}: model.layers: out of range")


# --- the table task -----------------------------------------------------------------------------------------


@pytest.fixture
def table_config(tmp_path, text):
    path = tmp_path / "configs" / "table.yaml"
    path.parent.mkdir()
    path.write_text(re.sub(r"^task:\n(?: .*\n)+", TABLE_TASK, text, flags=re.M), encoding="utf-8")
    return path


def table_task(path: Path | str, *overrides: str) -> TableTask:
    task = load_config(path, overrides).config.task
    assert isinstance(task, TableTask)
    return task


def test_table_path_is_resolved_against_the_config_file(table_config, tmp_path, monkeypatch):
    beside = str(tmp_path / "configs" / "data" / "cities.csv")
    assert table_task(table_config).path == beside
    assert table_task(table_config, "task.path=../cities.csv").path == str(tmp_path / "cities.csv")
    assert table_task(table_config, "task.path=/x/cities.csv").path == "/x/cities.csv"
    monkeypatch.chdir(tmp_path)
    assert table_task("configs/table.yaml").path == beside


def test_unquoted_false_is_the_choice_false(table_config):
    assert table_task(table_config).empty == "false"
    told = message(table_config, "task.empty=true")
    assert "unknown value (value given: true); expected one of 'error', 'drop', 'false'" in told


def test_mistakes_inside_a_kind(table_config):
    line = table_config.read_text(encoding="utf-8").split("\n").index("  max_rows: null") + 1
    told = message(table_config, "task.path=", "task.shares={validation: 0.5, test: 0.5}", "task.max_rows=0")
    assert "--set task.path=: task.path: wrong type (value given: null); expected text of length ≥ 1" in told
    assert "task.shares.test: validation + test is 1, which leaves no share for training" in told
    assert "task.max_rows: out of range (value given: 0); expected a whole number ≥ 1 or null" in told
    table_config.write_text(
        table_config.read_text(encoding="utf-8").replace("  max_rows: null", "  max_rowz: null"),
        encoding="utf-8",
    )
    assert message(table_config).startswith(
        f"{table_config}:{line}: task.max_rowz: unknown key (value given: null); did you mean 'task.max_rows'?"
    )


# --- back to text -------------------------------------------------------------------------------------------


def reloaded(config: RunConfig, folder: Path) -> RunConfig:
    path = folder / "resolved.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    return load_config(path).config


def test_round_trip(config, table_config, tmp_path):
    assert reloaded(config, tmp_path) == config
    table = load_config(table_config).config
    assert reloaded(table, tmp_path) == table  # in another folder: the path is absolute


@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    question=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    rate=st.floats(min_value=0, max_value=1e300, exclude_min=True),
    name=st.sampled_from(["1e3", "null", "true", "0x10", "2024-05-01", "no", "1_0", "1e-07"]),
)
def test_round_trip_of_any_text_and_number(table_config, tmp_path, question, rate, name):
    config = load_config(table_config).config
    task = config.task.model_copy(update={"question": question})
    multiplier = config.objective.multiplier.model_copy(update={"rate": rate})
    objective = config.objective.model_copy(update={"multiplier": multiplier})
    config = config.model_copy(update={"task": task, "objective": objective, "name": name})
    assert reloaded(config, tmp_path) == config


def test_dump_is_readable(config):
    lines = dump_config(config).split("\n")
    assert lines[0] == "name: quickstart"
    assert "      stddev: 1.5 θ.trunk" in lines and "  devices: null" in lines
    assert "      weight_decay: 0.5" in lines


# --- differences and units ----------------------------------------------------------------------------------


def test_differences_name_the_keys(config, plain):
    assert differences(config, config) == []
    overrides = ["stages.prior.steps=700", "parallel.devices=2", "objective.anchor=trained"]
    assert differences(config, load_config(plain, overrides).config) == [
        "objective.anchor: run has 'init', command asks 'trained'",
        "stages.prior.steps: run has 600, command asks 700",
        "parallel.devices: run has null, command asks 2",
    ]


def test_quantities_differ_by_value_not_by_spelling(config, plain):
    same = [
        "objective.first_prior.trunk.stddev=15e-1 theta.trunk",
        "objective.multiplier.tolerance=1e-2 disagreement/example",
    ]
    assert differences(config, load_config(plain, same).config) == []
    other = load_config(plain, ["objective.multiplier.initial=1.0 bit/disagreement"]).config
    assert differences(config, other) == [
        "objective.multiplier.initial: run has '1.0 nat/disagreement', command asks '1.0 bit/disagreement'"
    ]


def test_differences_between_kinds(config, table_config):
    lines = differences(config, load_config(table_config).config)
    assert lines[0] == "task.kind: run has 'arithmetic', command asks 'table'"
    assert "task.digits: run has 3, command asks no such key" in lines
    assert "task.max_rows: run has no such key, command asks null" in lines
    assert all(line.startswith("task.") for line in lines)


def test_unit_table(config, table_config):
    units = unit_table(config)
    expected = {
        "objective.first_prior.trunk.stddev": "θ.trunk",
        "objective.second_prior.intended_head.stddev": "θ.head",
        "objective.second_prior.instrumental_head.stddev": "θ.head",
        "objective.multiplier.tolerance": "disagreement/example",
        "objective.multiplier.maximum": "nat/disagreement",
        "objective.consistency.population": "example",
        "stages.heads.steps": "step",
        "task.rows.world": "example",
    }
    assert expected.items() <= units.items()
    assert "seed" not in units and "task.truth_rate" not in units
    table_units = unit_table(load_config(table_config).config)
    assert (table_units["task.max_length"], table_units["task.max_rows"]) == ("token", "example")


def test_every_text_that_names_a_unit_is_in_the_unit_table(config):
    def texts(section: dict, prefix: str = ""):
        for key, value in section.items():
            if isinstance(value, dict):
                yield from texts(value, f"{prefix}{key}.")
            elif isinstance(value, str) and re.match(r"[\d.]+ ", value):
                yield prefix + key, value.split(" ", 1)[1]

    named = dict(texts(config.model_dump()))
    assert len(named) >= 10
    assert named.items() <= unit_table(config).items()
