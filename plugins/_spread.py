"""A share of numbered things, spread evenly over them."""

from __future__ import annotations

import math
from fractions import Fraction


def is_among(number: int, share: float) -> bool:
    """Whether a thing, counted from 0, is among the share.

    Of the first n things round(share * n) are, a half rounded down, for every n: so those of a smaller scale are the
    first of a larger one's.
    """
    return count_among(number + 1, share) > count_among(number, share)


def count_among(things: int, share: float) -> int:
    """How many of the first things are among the share."""
    return math.ceil(Fraction(str(share)) * things - Fraction(1, 2))
