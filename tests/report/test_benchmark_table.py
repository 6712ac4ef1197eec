"""Aggregation over seeds against hand arithmetic and scipy."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp, ttest_rel

from honest.errors import UserError
from honest.report.benchmark_table import ABOVE, GAP, better, task_tables
from honest.report.findings import beats, cell_text, sides
from honest.report.sources import read_results
from tests.report.made_up_results import ALWAYS, CEILING, INTENDED, SINGLE, TRUTH, lines, write


def table_of(folder, *made):
    (table,) = task_tables(read_results(write(folder, [line for part in made for line in part]) / "results.csv"))
    return table


def test_means_have_the_t_interval_of_scipy(tmp_path):
    cell = table_of(tmp_path, lines("sums", "prior", TRUTH)).cells[INTENDED]["truth_fooled"]
    expected = ttest_1samp([0.5, 0.7, 0.4], 0).confidence_interval(0.95)
    assert cell[:3] == pytest.approx((1.6 / 3, expected.low, expected.high))
    assert (cell.seeds, cell.interval) == (3, "t over seeds")


def test_gap_recovered_is_taken_in_each_seed(tmp_path):
    """(.5 − 0)/1, (.7 − .1)/.8, (.4 − .2)/.8 = .5, .75, .25; of the means it would be (1.6 − .3)/(2.9 − .3) too, but
    always False has .5, .5, .375, whose mean .4583 is not (1.5 − .3)/2.6."""
    table = table_of(tmp_path, lines("sums", "prior", TRUTH))
    expected = ttest_1samp([0.5, 0.75, 0.25], 0).confidence_interval(0.95)
    assert table.cells[INTENDED][GAP][:3] == pytest.approx((0.5, expected.low, expected.high))
    assert table.cells[ALWAYS][GAP].value == pytest.approx(1.375 / 3)
    assert table.cells[SINGLE][GAP].value == 0.0 and table.cells[CEILING][GAP].value == 1.0
    assert table.always_gaps["prior"] == table.cells[ALWAYS][GAP]


def test_a_seed_without_a_gap_has_no_share_of_it(tmp_path):
    truth = TRUTH | {CEILING: (1.0, 0.1, 1.0)}
    cell = table_of(tmp_path, lines("sums", "prior", truth)).cells[INTENDED][GAP]
    assert (cell.value, cell.seeds) == (pytest.approx((0.5 + 0.25) / 2), 2)


def test_share_of_seeds_above_nine_tenths(tmp_path):
    truth = TRUTH | {INTENDED: (0.95, 0.9, 0.901)}
    cell = table_of(tmp_path, lines("sums", "prior", truth)).cells[INTENDED][ABOVE]
    expected = binomtest(2, 3).proportion_ci(0.95, "exact")
    assert cell[:3] == pytest.approx((2 / 3, expected.low, expected.high))


def test_one_seed_keeps_its_bootstrap_interval(tmp_path):
    table = table_of(tmp_path, lines("sums", "prior", {head: values[:1] for head, values in TRUTH.items()}))
    cell = table.cells[INTENDED]["truth_fooled"]
    assert cell == (0.5, pytest.approx(0.45), pytest.approx(0.55), 1, "bootstrap of the one seed")
    auroc = table.cells[INTENDED]["auroc_fooled"]
    assert auroc.value == 0.5 and math.isnan(auroc.low) and auroc.interval == "none"
    gap = table.cells[INTENDED][GAP]  # single head 0 and ceiling 1: the same numbers
    assert gap[:4] == (0.5, pytest.approx(0.45), pytest.approx(0.55), 1) and "held fixed" in gap.interval


def test_heads_that_entries_share_are_one_method(tmp_path):
    other = TRUTH | {INTENDED: (0.6, 0.6, 0.6)}
    table = table_of(tmp_path, lines("sums", "prior", TRUTH), lines("sums", "chains", other))
    names = [method.name for method in table.methods]
    assert names == [SINGLE, CEILING, f"{INTENDED} · prior", f"{INTENDED} · chains", ALWAYS]
    assert table.methods[0].entries == ("prior", "chains")
    assert [method.name for method in table.references] == [f"{INTENDED} · prior"]


def test_entries_without_a_common_seed_are_not_averaged(tmp_path):
    """Nothing shows that they are one method: they could be of different settings."""
    later = [(task, seed + 3, *rest) for task, seed, *rest in lines("sums", "lambda_100", {INTENDED: (0.9, 0.9)})]
    table = table_of(tmp_path, lines("sums", "prior", TRUTH), later)
    assert table.cells[f"{INTENDED} · prior"]["truth_fooled"].value == pytest.approx(1.6 / 3)
    assert table.cells[f"{INTENDED} · lambda_100"]["truth_fooled"].value == pytest.approx(0.9)


def test_always_false_recovers_by_entry_where_single_heads_differ(tmp_path):
    other = TRUTH | {SINGLE: (0.25, 0.25, 0.25), CEILING: (0.75, 0.75, 0.75)}
    table = table_of(tmp_path, lines("sums", "a", TRUTH), lines("sums", "b", other))
    assert table.always_gaps["a"].value == pytest.approx(1.375 / 3)
    assert table.always_gaps["b"].value == pytest.approx(0.5)
    assert math.isnan(table.cells[ALWAYS][GAP].value)  # one line for both would be of neither


def test_an_entry_without_ends_takes_those_of_its_seed(tmp_path):
    table = table_of(
        tmp_path, lines("sums", "prior", TRUTH), lines("sums", "divdis", {"divdis: intended": (0.1, 0.3, 0.4)})
    )
    values = [0.1, 0.2 / 0.8, 0.2 / 0.8]
    assert table.cells["divdis: intended · divdis"][GAP].value == pytest.approx(np.mean(values))


def test_unordered_pairs_are_told_apart_seed_by_seed(tmp_path):
    pair = {"under the prior: first": (0.9, 0.1, 0.8), "under the prior: second": (0.2, 0.7, 0.3)}
    blind = {"under the prior: mean (blind choice)": (0.5, 0.4, 0.5)}
    table = table_of(tmp_path, lines("sums", "withheld", TRUTH | pair | blind))
    better_name, worse_name = (f"under the prior: {which} of an unordered pair" for which in ("better", "worse"))
    assert table.cells[better_name]["truth_fooled"].value == pytest.approx(0.8)  # .9, .7, .8
    assert table.cells[worse_name]["truth_fooled"].value == pytest.approx(0.2)  # .2, .1, .3
    assert table.cells[worse_name]["person_fooled"].value == pytest.approx(0.8)  # the whole head goes along
    assert not any(name.endswith((": first", ": second")) for name in table.cells)
    prior = lines("sums", "prior", TRUTH | {name.replace("under the prior", "divdis"): x for name, x in pair.items()})
    assert {c.method for c in table_of(tmp_path, prior).comparisons} == {SINGLE}  # the truth made both


# --- who beats two heads with the prior ---------------------------------------------------------------------------


def test_a_method_wins_by_the_paired_difference(tmp_path):
    """Seeds differ by far more than the methods, which only pairing shows."""
    rival = (0.55, 0.74, 0.46)
    table = table_of(tmp_path, lines("sums", "two_heads_with_the_prior", TRUTH | {"divdis: intended": rival}))
    (won,) = better(c for c in table.comparisons if c.metric == "truth_fooled")
    interval = ttest_rel(rival, TRUTH[INTENDED]).confidence_interval(0.95)
    assert won.method == "divdis: intended"
    assert won.difference[:3] == pytest.approx((0.05, interval.low, interval.high))
    mine, its = table.cells["divdis: intended"]["truth_fooled"], table.cells[INTENDED]["truth_fooled"]
    assert mine.low < its.high  # the intervals themselves overlap
    said = beats(table)
    assert "BEATEN" in said[0] and "“divdis: intended” by 0.050 [0.025, 0.075]" in said[0]


def test_a_difference_that_could_be_nothing_wins_nothing(tmp_path):
    rival = (0.9, 0.7, 0.35)  # .4, 0, −.05 above: mean .117, far from certain
    table = table_of(tmp_path, lines("sums", "prior", TRUTH | {"divdis: intended": rival}))
    assert not better(table.comparisons)
    assert "none of 2 compared methods beats" in beats(table)[0]


@pytest.mark.parametrize(("rival", "wins"), [(0.59, False), (0.61, True)])
def test_with_one_seed_bootstrap_intervals_may_not_meet(tmp_path, rival, wins):
    truth = {head: values[:1] for head, values in TRUTH.items()} | {"divdis: intended": (rival,)}
    table = table_of(tmp_path, lines("sums", "prior", truth))  # .5 ± .05 against .6 ∓ .01 ± .05
    assert bool(better(c for c in table.comparisons if c.metric == "truth_fooled")) is wins


def test_one_seed_without_intervals_tells_no_winner(tmp_path):
    """AUROC has no bootstrap interval: .9 against .5 is not "none beats"."""
    truth = {head: values[:1] for head, values in TRUTH.items()} | {"divdis: intended": (0.9,)}
    said = beats(table_of(tmp_path, lines("sums", "prior", truth)))
    (auroc,) = [line for line in said if "AUROC" in line]
    assert "does not tell who beats whom" in auroc and "none of" not in auroc


def test_the_ceiling_and_always_false_are_no_rivals(tmp_path):
    table = table_of(tmp_path, lines("sums", "prior", TRUTH | {INTENDED: (0.3, 0.3, 0.3)}))
    assert {comparison.method for comparison in table.comparisons} == {SINGLE}
    assert any("always answering False (0.50) is right on more" in line for line in beats(table))


def test_entries_of_a_sweep_are_compared_in_themselves(tmp_path):
    worse = {head: tuple(x - 0.05 for x in values) for head, values in TRUTH.items() if head != ALWAYS}
    table = table_of(tmp_path, lines("sums", "rate=0", TRUTH), lines("sums", "rate=1", worse))
    pairs = {(c.reference, c.method) for c in table.comparisons}
    assert pairs == {(f"{INTENDED} · {entry}", f"{SINGLE} · {entry}") for entry in ("rate=0", "rate=1")}


def test_results_without_the_prior_say_so(tmp_path):
    table = table_of(tmp_path, lines("sums", "plain", {SINGLE: (0.1, 0.2, 0.1), ALWAYS: (0.5, 0.5, 0.5)}))
    assert "no two heads with the prior" in beats(table)[0]
    assert "no entry has heads under the prior" in sides(table)[0]


def test_sentence_of_a_task(tmp_path):
    """t over .95, .96, .94: .95 ± 4.3027·.01/√3."""
    truth = TRUTH | {INTENDED: (0.95, 0.96, 0.94), "under the prior: instrumental": (0.02, 0.03, 0.01)}
    said = sides(table_of(tmp_path, lines("sums", "prior", truth)))
    assert len(said) == 1
    assert said[0].startswith(
        "sums, prior: on fooled rows the intended head sides with the truth: right on 0.95 [0.93, 0.97] (3 seeds, "
        "95 % t-interval), above 0.9 in 3 of 3, "
    )
    assert "the instrumental head sides with the person: right on 0.02 [" in said[0]
    assert "Always answering False is right on 0.50 and recovers 0.46 [" in said[0]


def test_cell_text_has_no_minus_before_nothing(tmp_path):
    cell = table_of(tmp_path, lines("sums", "prior", TRUTH)).cells[INTENDED]["truth_fooled"]
    assert cell_text(cell._replace(value=-0.001, low=-0.004, high=0.25)) == "0.00 [0.00, 0.25]"
    assert cell_text(cell._replace(value=math.nan)) == "–"
    assert cell_text(cell._replace(value=-1.5, low=math.nan)) == "-1.50"


# --- mistakes in results.csv ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("entry,", "", 1), ["no column 'entry'"]),
        (lambda text: text.replace("0.5,", "half,", 1), [":2: value: not a number", "'half'"]),
        (lambda text: text.replace("sums,0,", "sums,zero,", 1), [":2: seed: not a whole number", "'zero'"]),
        (lambda text: text[:-20], ["not 9 columns"]),
        (lambda text: text + text.splitlines()[1] + "\n", ["sums, 0, prior", "2 times"]),
        (lambda text: text.splitlines()[0] + "\n", ["no line of results"]),
    ],
)
def test_a_broken_file_is_named_with_its_place(tmp_path, change, words):
    path = write(tmp_path, lines("sums", "prior", {INTENDED: (0.5,)})) / "results.csv"
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(UserError) as mistake:
        read_results(path)
    assert all(word in str(mistake.value) for word in [str(path), *words]), mistake.value
