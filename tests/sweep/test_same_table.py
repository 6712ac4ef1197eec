"""The comparison of two sweeps' tables, on tables written by hand."""

from __future__ import annotations

import pytest

from launch import same_table

HEAD = "member,seed,score,state\n"


@pytest.fixture
def table(tmp_path):
    def write(name: str, *rows: str):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.csv").write_text(HEAD + "".join(f"{row}\n" for row in rows), encoding="utf-8")
        return str(tmp_path / name)

    return write


def test_numbers_within_the_tolerance_are_the_same(table, capsys):
    a, b = table("a", "m,0,100.0,done", "n,1,nan,done"), table("b", "m,0,100.0000005,done", "n,1,nan,done")
    assert same_table.main([a, b]) == 0
    assert capsys.readouterr().out.startswith(
        "8 values of 2 members; 0 differ by more than 1e-08\n  5.0e-09  m  score: "
    )


@pytest.mark.parametrize(
    "other",
    ["m,0,100.001,done", "m,0,nan,done", "m,0,inf,done", "m,0,,done", "m,0,100.0,failed"],
    ids=["more", "nan", "inf", "empty", "text"],
)
def test_a_difference_is_told(table, other, capsys):
    assert same_table.main([table("a", "m,0,100.0,done"), table("b", other)]) == 1
    assert "4 values of 1 members; 1 differ" in capsys.readouterr().out


def test_small_numbers_are_compared_absolutely(table):
    a, b = table("a", "m,0,1e-12,done"), table("b", "m,0,2e-12,done")
    assert same_table.main([a, b]) == 0
    assert same_table.main([a, b, "--tolerance", "1e-13"]) == 1


def test_other_members_or_no_table_at_all(table, tmp_path, capsys):
    a = table("a", "m,0,1.0,done")
    assert same_table.main([a, table("b", "n,0,1.0,done")]) == 2
    assert "or other columns: m member, m score, m seed" in capsys.readouterr().err
    assert same_table.main([table("c"), table("d")]) == 2
    assert "both are empty" in capsys.readouterr().err
    assert same_table.main([a, str(tmp_path)]) == 2
    assert "there is no results.csv" in capsys.readouterr().err
