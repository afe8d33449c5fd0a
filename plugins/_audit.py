"""The audit of a set of pairs: lengths, openers, and whether markers of the character last to an answer's end."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from charrun import StageFailed

if TYPE_CHECKING:
    from charrun import StageContext

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_OPENER = 3
_MARKERS = 20
_FEWEST_ROWS_WITH = 3
_SMOOTHING = 0.5
_MEASURES = {
    "length_ratio": (2.0, "median length of chosen / rejected answers in words, or its inverse"),
    "top_opener": (0.3, "share of chosen answers that begin with the commonest three words"),
    "marker_decay": (3.0, "markers per word in the first third of the chosen answers / in the last third"),
}
AUDIT: dict[str, Any] = {
    "type": "object",
    "default": {},
    "description": "Measures of the whole set: above `warn` a line says so, above `stop` the stage stops; 0 is never.",
    "properties": {
        f"{name}_{act}": {
            "type": "number",
            "minimum": 0,
            "default": at if act == "warn" else 0,
            "description": f"{act.capitalize()} above this: {what}.",
        }
        for name, (at, what) in _MEASURES.items()
        for act in ("warn", "stop")
    },
    "additionalProperties": False,
}
"""The option `audit`."""


def audit(chosen: Sequence[str], rejected: Sequence[str]) -> dict[str, Any]:
    """Measures of a set of pairs, each with what it is made of.

    Markers are the words whose smoothed log-odds of being in a chosen rather than a rejected answer are largest, among
    those in three chosen answers or more; counted once a row, so that one talkative row makes none.
    """
    sides = [[_words(text) for text in texts] for texts in (chosen, rejected)]
    lengths = [median(len(words) for words in side) if side else 0 for side in sides]
    ratio = max(lengths) / max(1, min(lengths)) if rejected else 1.0
    openers = Counter(" ".join(words[:_OPENER]) for words in sides[0])
    markers = _markers(*sides)
    early, late = _thirds(sides[0], {marker["word"] for marker in markers})
    return {
        "n": len(chosen),
        "length_ratio": ratio,
        "median_words": {"chosen": lengths[0], "rejected": lengths[1]},
        "top_opener": max(openers.values(), default=0) / max(1, len(chosen)),
        "distinct_openers": len(openers),
        "openers": dict(openers.most_common(5)),
        "marker_decay": early / late if late else (math.inf if early else 1.0),
        "markers_per_100_words": {"first third": 100 * early, "last third": 100 * late},
        "markers": markers,
    }


def audited(ctx: StageContext, chosen: Sequence[str], rejected: Sequence[str]) -> None:
    """Write `audit.json` and one line; warn or stop as the option says.

    Raises:
        StageFailed: A measure is above its `stop`.
    """
    found = audit(chosen, rejected)
    shown = {**found, "marker_decay": found["marker_decay"] if math.isfinite(found["marker_decay"]) else None}
    ctx.write("audit.json", shown)
    if ctx.dry_run:
        return
    over = {act: [name for name in _MEASURES if _over(ctx, found, name, act)] for act in ("warn", "stop")}
    line = (
        f"audit of {found['n']}: length ratio {found['length_ratio']:.2f}, {found['top_opener']:.0%} with one opener "
        f"({found['distinct_openers']} distinct), markers early/late {found['marker_decay']:.2f}"
    )
    told = [f"{name} is above {ctx.options['audit'][f'{name}_warn']:g}" for name in over["warn"]]
    ctx.log(line + ("; warning: " + ", ".join(told) if told else ""))
    if over["stop"]:
        limits = ", ".join(f"{name} above {ctx.options['audit'][f'{name}_stop']:g}" for name in over["stop"])
        raise StageFailed(f"{line}: {limits}", f"read {ctx.folder}/audit.json, or raise pairs.audit")


def _over(ctx: StageContext, found: dict[str, Any], name: str, act: str) -> bool:
    limit = ctx.options["audit"][f"{name}_{act}"]
    return bool(limit and found[name] > limit)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _markers(chosen: Sequence[Sequence[str]], rejected: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    having = [Counter(word for words in side for word in set(words)) for side in (chosen, rejected)]

    def odds(word: str, side: int) -> float:
        rows = len((chosen, rejected)[side])
        return math.log((having[side][word] + _SMOOTHING) / (rows - having[side][word] + _SMOOTHING))

    scored: list[dict[str, Any]] = [
        {"word": word, "log_odds": odds(word, 0) - odds(word, 1), "chosen": n, "rejected": having[1][word]}
        for word, n in having[0].items()
        if n >= _FEWEST_ROWS_WITH
    ]
    scored.sort(key=lambda each: (-each["log_odds"], each["word"]))
    return [each for each in scored[:_MARKERS] if each["log_odds"] > 1]


def _thirds(rows: Sequence[Sequence[str]], markers: set[str]) -> tuple[float, float]:
    """Markers per word in the first and in the last third, over all rows."""
    first = [word for words in rows for word in words[: -(-len(words) // 3)]]
    last = [word for words in rows for word in words[len(words) - len(words) // 3 :]]
    return tuple(sum(word in markers for word in words) / max(1, len(words)) for words in (first, last))  # type: ignore[return-value]
