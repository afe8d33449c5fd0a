"""What a training's own data tell before its first step: is it text, does it end where it ends, which side is which.

Each check compares the data with a control made of themselves, so that no threshold depends on model or language.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Sequence
from itertools import islice
from random import Random
from typing import TYPE_CHECKING

from charrun import Row, TrainedRow
from charrun.plugins._monitor import Verdict
from charrun.plugins._scoring import LogRatio
from charrun.statistics import auc, wilson

if TYPE_CHECKING:
    from charrun import StageContext

CONTROL_ROWS = 16
_FEWEST_ROWS = 10
SOME_ROWS = 32
"""Among these the text checks find rows that are long enough."""
_SHORTEST = 4
_Z = 3.0
"""Standard errors by which data must beat their control: for text that is none, 1 in 700 does by chance. The answers of
the demo models beat it by 77 and 8.7."""

_EMPTY = re.compile(rb"(?<!\x01)\x01(?!\x01)")

CLEAR_GAP = 0.5
"""Nats a token between two answers from which it is clear which of them the student would rather have given."""
_FEWEST_CLEAR = 11
_Z_DIRECTION = 3.29
"""99.9%: with 11 pairs of one mind the interval leaves out a half."""
_RIGHT = 0.9
"""Share of clear pairs of which fewer, for sure, are worth a word."""

_OWN = "the rejected answers are the student's own, sampled from these weights, so that it finds them the likelier ones"


def order_control(row: TrainedRow, rng: Random) -> TrainedRow | None:
    """The row with the tokens of its last trained turn in another order, the end in its place; None if it is short."""
    start, end = last_turn(row)
    body = list(row.tokens[start:end])
    if _is_short(row):
        return None
    rng.shuffle(body)
    return TrainedRow(array("i", [*row.tokens[:start], *body, row.tokens[end]]), row.trained[: end + 1])


def end_control(row: TrainedRow) -> TrainedRow | None:
    """The row whose last trained turn ends half-way; None if it is short."""
    start, end = last_turn(row)
    middle = start + (end - start) // 2
    if _is_short(row):
        return None
    return TrainedRow(array("i", [*row.tokens[:middle], row.tokens[end]]), bytes([*row.trained[:middle], 1]))


def last_turn(row: TrainedRow) -> tuple[int, int]:
    """Where a row's last trained turn begins, and where its last token, the end of the turn, stands."""
    mask = bytes(row.trained)
    end = mask.rindex(1)
    return mask.rfind(0, 0, end) + 1, end


def _is_short(row: TrainedRow) -> bool:
    """Whether its last trained turn has too few tokens for a control."""
    start, end = last_turn(row)
    return end - start < _SHORTEST


def is_empty(row: TrainedRow) -> bool:
    """Whether one of a row's trained turns is nothing but its end."""
    return _EMPTY.search(bytes(row.trained)) is not None


def empty_verdict(empty: int, n: int, what: str) -> Verdict | None:
    """What is to be said where so many of n rows are empty; `what` is whose answers."""
    if not empty:
        return None
    saw = f"{what}: {empty} of {n} {'is' if empty == 1 else 'are'} empty"
    advice = (
        "they train the model to end at once: targets are truncated, or the rows are damaged; read them in the store"
    )
    return Verdict("text", True, saw, advice)


def short_verdict(rows: Sequence[TrainedRow], what: str) -> Verdict | None:
    """What is to be said of rows that are too short, or too few, for `text_verdict`.

    A diagnosis where most are short, and a warning where there are too few of them to tell.
    """
    n, short = len(rows), sum(map(_is_short, rows))
    if n >= _FEWEST_ROWS and 2 * short > n:
        saw = f"{what}: {short} of {n} have fewer than {_SHORTEST} tokens"
        advice = "targets are truncated, or answers were cut by length, unless the character does speak in single words"
        return Verdict("text", True, saw, f"{advice}; read them in the store")
    if n - short < _FEWEST_ROWS:
        saw = f"{what} are not checked: {n - short} have {_SHORTEST} tokens or more, and {_FEWEST_ROWS} are needed"
        return Verdict("text", False, saw, "read them in the store")
    return None


def text_verdict(gaps: Sequence[tuple[float, float]], what: str) -> Verdict | None:
    """What is to be said of answers whose text and end beat their controls by these nats a token.

    Args:
        gaps: Of each row: mean log-prob of the tokens minus that of the same tokens in another order; log-prob of the
            end minus that of an end half-way.
        what: Whose answers.
    """
    if len(gaps) < _FEWEST_ROWS:
        return None
    if (z := _z([order for order, _ in gaps])) < _Z:
        saw = f"{what} are as likely with their tokens in any other order ({z:.1f} standard errors, n={len(gaps)})"
        advice = "they are no text to this model: tokens shifted by one, of another tokenizer, or damaged rows"
        return Verdict("text", True, saw, f"{advice}; read them in the store")
    if (z := _z([end for _, end in gaps])) < _Z:
        saw = f"{what} end where nothing ends: half-way is as good ({z:.1f} standard errors, n={len(gaps)})"
        advice = "targets are truncated, or answers that were cut by length were taken for whole ones"
        return Verdict("text", True, saw, f"{advice}; look at max_tokens and at what made the rows")
    return None


def clear_gaps(gaps: Sequence[float]) -> list[float]:
    """Those from which it is clear which of two answers the student would rather have given."""
    return [gap for gap in gaps if abs(gap) >= CLEAR_GAP]


def direction_verdict(gaps: Sequence[float]) -> Verdict | None:
    """What is to be said of pairs whose rejected answer is likelier by these nats a token under the student.

    Only clear pairs count, so that characters which speak as the student does are never judged. A warning where the
    pairs have a direction, and for sure fewer than 90% of them that one.
    """
    clear = clear_gaps(gaps)
    if len(clear) < _FEWEST_CLEAR:
        return None
    right = sum(gap > 0 for gap in clear)
    low, high = wilson(right, len(clear), _Z_DIRECTION)
    saw = f"the rejected answer is the likelier one in {right} of {len(clear)} clear pairs ({low:.0%} to {high:.0%})"
    if high < 0.5:
        return Verdict("direction", True, saw, f"chosen and rejected are swapped: {_OWN}")
    if low <= 0.5:
        return Verdict("direction", True, saw, f"chosen and rejected are mixed up at random: {_OWN}")
    if high < _RIGHT:
        return Verdict("direction", False, saw, f"some of the pairs may be the wrong way round: {_OWN}")
    return None


def same_verdict(rows: Sequence[TrainedRow]) -> Verdict | None:
    """What is to be said of pairs, as chosen and rejected rows by turns, whose two answers are the same.

    A diagnosis where most are, and else a warning: their margin stays 0.
    """
    same = sum(chosen.tokens == rejected.tokens for chosen, rejected in zip(rows[::2], rows[1::2], strict=True))
    if not same:
        return None
    saw = f"in {same} of {len(rows) // 2} pairs chosen and rejected are the same answer"
    return Verdict("direction", 4 * same > len(rows), saw, "there is nothing to prefer: look at what made the pairs")


def scored_verdict(chosen: Sequence[float], rejected: Sequence[float]) -> Verdict | None:
    """What is to be said of pairs whose answers the scorer scores so: chosen ones in character score higher.

    A diagnosis where the AUC lies below a half by three standard errors (Hanley and McNeil, 1982), a warning where it
    is not above it by as much.
    """
    n = len(chosen)
    area = auc(chosen, rejected)
    spread = math.sqrt((n + n + 1) / (12 * n * n))
    saw = f"AUC of the scorer, chosen against rejected: {area:.3f} (n={n} pairs)"
    if area < 0.5 - _Z * spread:
        return Verdict("scored_pairs", True, saw, "chosen and rejected are swapped: read the pairs in the store")
    if area <= 0.5 + _Z * spread:
        return Verdict(
            "scored_pairs", False, saw, "this scorer does not tell the chosen answers from the rejected ones"
        )
    return None


Controls = list[tuple[int, TrainedRow, TrainedRow]]
"""The index of a row, its tokens in another order, and the row that ends half-way."""


def text_controls(rng: Random, rows: Sequence[TrainedRow]) -> Controls:
    """Controls of the first `CONTROL_ROWS` rows that are long enough; none where they are too few to be judged by."""
    made = ((index, order_control(row, rng), end_control(row)) for index, row in enumerate(rows))
    whole = list(islice(((index, order, end) for index, order, end in made if order and end), CONTROL_ROWS))
    return whole if len(whole) >= _FEWEST_ROWS else []


def control_rows(controls: Controls) -> list[TrainedRow]:
    """All of them, for one forward pass."""
    return [control for _, order, end in controls for control in (order, end)]


def text_gaps(
    rows: Sequence[TrainedRow],
    logprobs: Sequence[Sequence[float]],
    controls: Controls,
    found: Sequence[Sequence[float]],
) -> list[tuple[float, float]]:
    """How far rows beat their controls, for `text_verdict`.

    Args:
        rows: The rows that the controls were made of.
        logprobs: Of each row's trained tokens, in nats.
        controls: As `text_controls` gives them.
        found: Of each of `control_rows`' trained tokens, by the same weights.
    """
    gaps = []
    for (index, _, _), order, end in zip(controls, found[::2], found[1::2], strict=True):
        start, last = last_turn(rows[index])
        n, values = last - start, logprobs[index]
        text = sum(values[-n - 1 : -1]) / n - sum(order[-n - 1 : -1]) / n
        gaps.append((text, values[-1] - end[-1]))
    return gaps


async def scored(ctx: StageContext, pairs: Sequence[Row]) -> tuple[list[float], list[float]]:
    """The scorer's mean per-token log-likelihood ratios of chosen and of rejected answers, in nats."""
    ratio = LogRatio(ctx, await ctx.sampler("scorer"), shared=False)
    chosen = await ctx.gather([ratio.of(pair["prompt"], pair["chosen"]) for pair in pairs])
    return chosen, await ctx.gather([ratio.of(pair["prompt"], pair["rejected"]) for pair in pairs])


def _z(values: Sequence[float]) -> float:
    """Mean over its standard error; infinite where all values are the same and above 0."""
    n = len(values)
    mean = sum(values) / n
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    return mean / spread if spread else math.copysign(math.inf, mean) if mean else 0.0
