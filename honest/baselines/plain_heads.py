"""Two heads on the frozen trunk with the labels of the full objective, and without priors, agreement or log Z."""

from honest.baselines.method import HeadRows, Method
from honest.data.batch import Splits


def rows(splits: Splits, supervision: str) -> HeadRows:
    """With `supervision: none` both heads explain the trusted labels: the person's answers are withheld from both."""
    return HeadRows(
        intended=splits.trusted,
        instrumental=splits.untrusted if supervision == "untrusted" else splits.trusted,
        target=None,
        compared=True,
    )


METHOD = Method("plain_heads", lambda pair: tuple(f"plain heads: {name}" for name in pair), rows, penalty=None)
