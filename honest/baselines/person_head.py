"""One head on the frozen trunk, trained on the person's answers on untrusted rows: the floor of the literal setting.

In `literal` arithmetic these are Bob's labels, so this is the floor of PGR = (method − floor)/(ceiling − floor).
"""

from honest.baselines.method import HeadRows, Method, one_line
from honest.data.batch import Splits


def rows(splits: Splits, _supervision: str) -> HeadRows:
    return HeadRows(intended=splits.untrusted, instrumental=None, target=None)


METHOD = Method("person_head", one_line("person-trained floor"), rows, penalty=None)
