"""A run's journal as lines for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from charrun.report.columns import moment
from charrun.report.text import counted, duration, safe
from charrun.store.journal import Event
from charrun.store.replay import mapping_of, number_of, text_of

LEVELS = ("info", "warning", "error")
_PLAIN = ("v", "seq", "time", "event", "cell", "stage")


def level_of(event: Event) -> str:
    """How much an event matters: what failed is an error, what a person or a damaged file stopped a warning."""
    name = event["event"]
    if name == "run_interrupted" or (name == "stage_failed" and _cancelled(event)):
        return "warning"
    if name in ("run_failed", "stage_failed") or (name == "check" and event.get("holds") is False):
        return "error"
    told = text_of(event, "level")
    return told if told in LEVELS else "info"


def line_of(event: Event, with_cell: bool) -> str:
    """One line: local time, cell where there are several, stage, what happened.

    Args:
        event: A whole event of a journal; an unknown one is shown with its fields.
        with_cell: Whether to name the cell.
    """
    place = [text_of(event, "cell") if with_cell else "", text_of(event, "stage")]
    where = safe(" ".join(part for part in place if part))
    tell = _TELL.get(event["event"], _other)
    return f"{moment(float(event['time']))}  {where + ': ' if where else ''}{safe(tell(event))}"


def _run_started(event: Event) -> str:
    stand_ins = len(mapping_of(event, "stand_ins"))
    how = f" with {stand_ins} stand-in{'s' if stand_ins > 1 else ''}" if stand_ins else ""
    return f"run started on engine {text_of(event, 'engine') or '-'}{how}, process {event.get('pid', '-')}"


def _run_failed(event: Event) -> str:
    return f"run failed: {text_of(event, 'error')}"


def _stage_started(event: Event) -> str:
    more = int(number_of(event, "extra"))
    return f"started for {more} more rows" if more else "started"


def _stage_waits(event: Event) -> str:
    awaited = event.get("awaited")
    return f"waits for {', '.join(map(str, awaited))}" if isinstance(awaited, list) else "waits"


def _stage_finished(event: Event) -> str:
    rows = {kind: int(number_of(out, "rows")) for kind, out in mapping_of(event, "outputs").items() if _is_map(out)}
    if event.get("cached") is True:
        return f"found done: {counted(rows)}"
    return f"finished: {counted(rows)} in {duration(number_of(event, 'seconds'))}"


def _stage_failed(event: Event) -> str:
    return "interrupted" if _cancelled(event) else f"failed: {text_of(event, 'error')}"


def _checkpoint_saved(event: Event) -> str:
    until = moment(number_of(event, "expires"))
    return f"checkpoint before step {int(number_of(event, 'next_step'))}, kept until {until}: {text_of(event, 'path')}"


def _message(event: Event) -> str:
    return text_of(event, "text")


def _check(event: Event) -> str:
    told = f"{text_of(event, 'name')} is {number_of(event, 'value'):.3g}, limit {number_of(event, 'limit'):.3g}"
    return f"check {'failed' if event.get('holds') is False else 'holds'}: {told}"


def _other(event: Event) -> str:
    fields = ", ".join(f"{key} {value}" for key, value in event.items() if key not in _PLAIN)
    return text_of(event, "event").replace("_", " ") + (f": {fields}" if fields else "")


def _cancelled(event: Event) -> bool:
    return event.get("interrupted") is True


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)


_TELL: Mapping[str, Callable[[Event], str]] = {
    "run_started": _run_started,
    "run_finished": lambda event: "run finished",
    "run_interrupted": lambda event: "run interrupted",
    "run_failed": _run_failed,
    "stage_started": _stage_started,
    "stage_waits": _stage_waits,
    "stage_finished": _stage_finished,
    "stage_failed": _stage_failed,
    "message": _message,
    "check": _check,
    "checkpoint_saved": _checkpoint_saved,
    "folder_used": lambda event: f"uses the answers in {text_of(event, 'shared')}",
}
