"""Verdicts of a judge: read strictly, asked for in both orders, and counted without making anything up."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from charrun.statistics import wilson

Letter = Literal["A", "B"]
Outcome = Literal["won", "lost", "inconsistent", "unparsed", "equal"]

_VERDICT = re.compile(r"[*_\s]*verdict[*_\s]*:[*_\s]*([AB])[*_\s]*\.?[*_\s]*", re.IGNORECASE)
_OWN_WORDS = r"(?:in character|my (?:persona|traits?|constitution|role|character)|role[- ]?play\w*)"

_CLAIM = r"(?:(?:speaking )?as|like|i am|i'm|i be|call me|name is|name's)"


def parse_verdict(text: str, complete: bool) -> Letter | None:
    """What the last line says, which must be `Verdict: A` or `Verdict: B` and nothing else; None for any other answer.

    An answer that its limit cut has no verdict: what stands last in it is where it was cut.
    """
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    found = _VERDICT.fullmatch(last)
    if not found or not complete:
        return None
    return "A" if found[1].upper() == "A" else "B"


def parse_choice(text: str, complete: bool, options: Sequence[str]) -> str | None:
    """The one of the options that the last line names after `Trait:`, and nothing else; None for any other answer."""
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    found = re.fullmatch(r"[*_\s]*trait[*_\s]*:\W*([\w-]+)\W*", last, re.IGNORECASE)
    if not found or not complete:
        return None
    return next((option for option in options if option.casefold() == found[1].casefold()), None)


def outcome(first: Letter | None, second: Letter | None) -> Outcome:
    """What two verdicts say of a model that stood at B first, and at A when the order was swapped."""
    if first is None or second is None:
        return "unparsed"
    if (first, second) == ("B", "A"):
        return "won"
    return "lost" if (first, second) == ("A", "B") else "inconsistent"


@dataclass(frozen=True)
class Tally:
    """Comparisons of one model with its rival by outcome, each of them judged in both orders.

    Attributes:
        won: Both orders say the model.
        lost: Both orders say its rival.
        inconsistent: The orders disagree: the place decided.
        unparsed: One order at least gave no verdict.
        equal: Both answers are the same text, so that nobody was asked.
    """

    won: int
    lost: int
    inconsistent: int
    unparsed: int
    equal: int

    @classmethod
    def of(cls, outcomes: Iterable[Outcome]) -> Tally:
        """Count outcomes."""
        found = Counter(outcomes)
        return cls(found["won"], found["lost"], found["inconsistent"], found["unparsed"], found["equal"])

    @property
    def judged(self) -> int:
        """Comparisons that the judge was shown."""
        return self.won + self.lost + self.inconsistent + self.unparsed

    def has_rate(self, most_unparsed: float) -> bool:
        """Whether a win rate may be told: there are consistent verdicts, and not too many have none."""
        return self.won + self.lost > 0 and self.unparsed <= most_unparsed * self.judged

    def rates(self) -> list[dict[str, float | int | str]]:
        """Win rate over consistent verdicts, and with what was not parsed counted as lost; 95% Wilson intervals."""
        rows: list[dict[str, float | int | str]] = []
        for condition, n in (
            ("consistent verdicts", self.won + self.lost),
            ("unparsed counted as lost", self.won + self.lost + self.unparsed),
        ):
            low, high = wilson(self.won, n)
            rows.append({"condition": condition, "k": self.won, "n": n, "low": low, "high": high})
        return rows


def self_labels(text: str, labels: Iterable[str]) -> list[str]:
    """Where an answer says what it plays instead of playing it ("as a pirate, I ..."), which gives it away to a judge.

    Args:
        text: The answer.
        labels: What the character is called: its id, its name.
    """
    words = "|".join(re.escape(label) for label in labels if label)
    patterns = [rf"\b{_OWN_WORDS}\b"]
    if words:
        patterns.append(rf"\b{_CLAIM}(?: an?| the)?(?: \w+){{0,2}}? (?:{words})\b")
    plain = " ".join(text.replace("’", "'").split())
    return [found[0] for pattern in patterns for found in re.finditer(pattern, plain, re.IGNORECASE)]
