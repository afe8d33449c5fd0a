"""The audit of a set of texts: lengths, openers, and whether markers of the character last to an answer's end."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from charrun import StageFailed
from charrun.plugins._words import words_of

if TYPE_CHECKING:
    from charrun import StageContext

_OPENER = 3
_MARKERS = 20
_FEWEST_ROWS_WITH = 3
_SMOOTHING = 0.5


def audit_option(*, stops: bool, **measures: tuple[float, float, str]) -> dict[str, Any]:
    """The option `audit` of a stage.

    Args:
        stops: Whether it may stop the stage. Such a threshold belongs to what the stage makes, and another one makes it
            anew: it is for stages that pay for nothing.
        **measures: Where each measure warns and stops by default (0 is never), and what it is.
    """
    said = "a line says what is above `warn`" + (", the stage stops above `stop`" if stops else "")
    return {
        "type": "object",
        "default": {},
        "description": f"Measures of the whole set: {said}; 0 is never.",
        **({} if stops else {"x-charrun-identity": False}),
        "properties": {
            f"{name}_{act}": {
                "type": "number",
                "minimum": 0,
                "default": at,
                "description": f"{act.capitalize()} above this: {what}.",
            }
            for name, (warn, stop, what) in measures.items()
            for act, at in (("warn", warn), ("stop", stop))[: 1 + stops]
        },
        "additionalProperties": False,
    }


PAIRS_AUDIT = audit_option(
    stops=True,
    length_ratio=(2.0, 0, "median length of chosen / rejected answers in words, or its inverse"),
    top_opener=(0.3, 0.9, "share of chosen answers that begin with the commonest three words"),
    marker_decay=(3.0, 0, "markers per word in the first third of the chosen answers / in the last third"),
)
REFLECTIONS_AUDIT = audit_option(
    stops=False,
    top_opener=(0.3, 0, "share of reflections that begin with the commonest three words"),
)
INTERACTIONS_AUDIT = audit_option(
    stops=False,
    length_ratio=(2.0, 0, "median length of last turns / of first ones in words, or its inverse"),
    top_opener=(0.3, 0, "share of turns that begin with the commonest three words"),
)


def audit_pairs(chosen: Sequence[str], rejected: Sequence[str]) -> dict[str, Any]:
    """Measures of a set of pairs, each with what it is made of.

    Markers are the words whose smoothed log-odds of being in a chosen rather than a rejected answer are largest, among
    those in three chosen answers or more; counted once a row, so that one talkative row makes none.
    """
    sides = [[words_of(text) for text in texts] for texts in (chosen, rejected)]
    markers = _markers(*sides)
    early, late = _thirds(sides[0], {marker["word"] for marker in markers})
    return {
        **_openers(sides[0]),
        **_ratio(chosen=sides[0], rejected=sides[1]),
        "marker_decay": early / late if late else (math.inf if early else 1.0),
        "markers_per_100_words": {"first third": 100 * early, "last third": 100 * late},
        "markers": markers,
    }


def audit_texts(texts: Sequence[str]) -> dict[str, Any]:
    """Measures of a set of texts that nothing is compared with."""
    return _openers([words_of(text) for text in texts])


def audit_turns(talks: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Measures of a set of conversations, given by their turns."""
    turns = [[words_of(turn) for turn in turns] for turns in talks]
    ends = _ratio(first=[words[0] for words in turns], last=[words[-1] for words in turns])
    return {**_openers([words for talk in turns for words in talk]), **ends}


def audited(ctx: StageContext, found: dict[str, Any]) -> None:
    """Write `audit.json` and one line; warn or stop as the stage's option `audit` says.

    Raises:
        StageFailed: A measure is above its `stop`.
    """
    ctx.write("audit.json", {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in found.items()})
    if ctx.dry:
        return
    option = ctx.options["audit"]
    over = {
        act: [
            f"{name} is above {limit:g}"
            for name in found
            if (limit := option.get(f"{name}_{act}", 0)) and found[name] > limit
        ]
        for act in ("warn", "stop")
    }
    parts = [f"{found['top_opener']:.0%} with one opener ({found['distinct_openers']} distinct)"]
    if "length_ratio" in found:
        parts.insert(0, f"length ratio {found['length_ratio']:.2f}")
    if "marker_decay" in found:
        parts.append(f"markers early/late {found['marker_decay']:.2f}")
    line = f"audit of {found['n']}: {', '.join(parts)}"
    ctx.log(line + ("; warning: " + ", ".join(over["warn"]) if over["warn"] else ""))
    if over["stop"]:
        raise StageFailed(f"{line}: {', '.join(over['stop'])}", f"read {ctx.folder}/audit.json, or raise pairs.audit")


def common_opener(texts: Sequence[str]) -> tuple[str, int]:
    """The commonest first three words, and how many begin so; ('', 0) of none."""
    return _counted(words_of(text) for text in texts).most_common(1)[0] if texts else ("", 0)


def _counted(texts: Iterable[Sequence[str]]) -> Counter[str]:
    return Counter(" ".join(words[:_OPENER]) for words in texts)


def _openers(texts: Sequence[Sequence[str]]) -> dict[str, Any]:
    openers = _counted(texts)
    return {
        "n": len(texts),
        "top_opener": max(openers.values(), default=0) / max(1, len(texts)),
        "distinct_openers": len(openers),
        "openers": dict(openers.most_common(5)),
    }


def _ratio(**sides: Sequence[Sequence[str]]) -> dict[str, Any]:
    lengths = {name: median(map(len, side)) if side else 0 for name, side in sides.items()}
    ratio = max(lengths.values()) / max(1, min(lengths.values())) if all(sides.values()) else 1.0
    return {"length_ratio": ratio, "median_words": lengths}


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
