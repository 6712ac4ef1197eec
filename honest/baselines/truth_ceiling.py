"""One head on the frozen trunk, trained on the truth of all training rows: what the trunk's features allow.

The one place outside evaluation where a truth label of an untrusted row is used, and declared by its name.
"""

from honest.baselines.method import HeadRows, Method, one_line
from honest.data.batch import Splits


def rows(splits: Splits, _supervision: str) -> HeadRows:
    return HeadRows(intended=splits.ceiling, instrumental=None, target=None)


METHOD = Method("truth_ceiling", one_line("truth-trained ceiling"), rows, penalty=None)
