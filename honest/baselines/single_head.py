"""One head on the frozen trunk, trained on the labels of trusted rows: what everybody would do first."""

from honest.baselines.method import HeadRows, Method, one_line
from honest.data.batch import Splits


def rows(splits: Splits, _supervision: str) -> HeadRows:
    return HeadRows(intended=splits.trusted, instrumental=None, target=None, compared=True)


METHOD = Method("single_head", one_line("single head"), rows, penalty=None)
