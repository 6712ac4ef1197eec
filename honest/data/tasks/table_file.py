"""Reads tables: CSV with a header, or one JSON object a line. Every cell is text; an empty cell is "".

All errors are DataError and name the file and the line.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from honest.data.vocabulary import DataError


class Record(NamedTuple):
    line: int  # of the file, from 1; the last one where a cell holds line breaks
    cells: dict[str, str]


def read_records(path: str) -> tuple[tuple[str, ...], list[Record]]:
    """Columns and records of a .csv, .jsonl or .ndjson file (UTF-8, with or without a byte-order mark)."""
    file = Path(path)
    readers = {".csv": _read_csv, ".jsonl": _read_json_lines, ".ndjson": _read_json_lines}
    if file.suffix.lower() not in readers:
        raise DataError(f"task.path: {path} must end in {', '.join(readers)}")
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            columns, records = readers[file.suffix.lower()](stream, path)
    except FileNotFoundError:
        raise DataError(f"task.path: there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"task.path: cannot read {path}: {error}") from error
    if not records:
        raise DataError(f"{path} holds no rows")
    return columns, records


def _refuse_repeats(names: Sequence[str], place: str) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{place}: the column {repeated[0]!r} appears more than once")


def _read_csv(stream: Iterable[str], path: str) -> tuple[tuple[str, ...], list[Record]]:
    reader = csv.reader(stream, strict=True)
    records = []
    try:
        columns = next(reader, [])
        _refuse_repeats(columns, f"{path}, line 1")
        for cells in reader:
            if cells and len(cells) != len(columns):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells, but the header names {len(columns)} columns"
                )
            if cells:
                records.append(Record(reader.line_num, dict(zip(columns, cells, strict=True))))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not valid CSV: {error}") from error
    return tuple(columns), records


def _read_json_lines(stream: Iterable[str], path: str) -> tuple[tuple[str, ...], list[Record]]:
    """Numbers keep the text they were written with; null and absent keys are empty cells."""
    found = [(n, _json_cells(line, f"{path}, line {n}")) for n, line in enumerate(stream, 1) if line.strip()]
    columns = tuple(dict.fromkeys(key for _, cells in found for key in cells))
    empty = dict.fromkeys(columns, "")
    return columns, [Record(n, empty | cells) for n, cells in found]


def _json_cells(line: str, place: str) -> dict[str, str]:
    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        _refuse_repeats([key for key, _ in items], place)
        return dict(items)

    def refuse(constant: str) -> NoReturn:
        raise DataError(f"{place}: {constant} is not a JSON number")

    try:
        value = json.loads(line, parse_float=str, parse_int=str, parse_constant=refuse, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: not valid JSON: {error.msg} (character {error.pos + 1})") from error
    if not isinstance(value, dict):
        raise DataError(f'{place}: each line must be a JSON object, like {{"column": value}}')
    for key, cell in value.items():
        if isinstance(cell, dict | list):
            raise DataError(f"{place}, column {key!r}: a cell must be text, a number, true, false or null")
    words = {None: "", True: "true", False: "false"}
    return {key: words[cell] if cell is None or isinstance(cell, bool) else cell for key, cell in value.items()}
