"""Tinker's published list of models: fetched, and read whatever else is in it."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from charrun.errors import EnvironmentProblem
from charrun.spec.prices import CACHED_SHARE, Price, PricedModel

PUBLISHED = "https://tinker-docs.thinkingmachines.ai/tinker/models.json"
_SECONDS = 20
_MOST_BYTES = 4 << 20
_CONTEXT = re.compile(r"\s*([\d.,_]+)\s*([kKmM]?)")
_FACTORS = {"": 1, "k": 1024, "m": 1024 * 1024}


def fetch(place: str = PUBLISHED) -> bytes:
    """The list's bytes, from an address or a file.

    Raises:
        EnvironmentProblem: Nothing answers there, or it cannot be read.
    """
    kept = "the book stays as it is; charrun prices shows it"
    try:
        if not re.match(r"https?://", place):
            return Path(place).read_bytes()[:_MOST_BYTES]
        asked = urllib.request.Request(place, headers={"User-Agent": "charrun", "Accept": "application/json"})
        with urllib.request.urlopen(asked, timeout=_SECONDS) as answer:
            return bytes(answer.read(_MOST_BYTES))
    except urllib.error.HTTPError as error:
        raise EnvironmentProblem(f"{place} answers {error.code} {error.reason}", kept) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise EnvironmentProblem(f"{place} cannot be read: {reason}", kept) from error


def read_list(data: bytes, source: str, date: str) -> tuple[dict[str, PricedModel], list[str]]:
    """The models of a list, and what of it could not be understood, one sentence each.

    An entry has `tinker_id` (or `name`) and, as "$0.33" or a number, `prefill`, `cached_prefill`, `sample` and `train`
    per million tokens, and `context` as "64K" or a number. Whatever else is there is not looked at.

    Args:
        data: The list.
        source: Where it is from.
        date: The day on which it was fetched.

    Raises:
        EnvironmentProblem: It is no list of models.
    """
    try:
        found = json.loads(data)
    except ValueError as error:
        raise EnvironmentProblem(f"{source} is not JSON: {error}", "the book stays as it is") from error
    entries = found.get("models") if isinstance(found, dict) else found
    if isinstance(entries, dict):
        entries = [{"tinker_id": name, **entry} for name, entry in entries.items() if isinstance(entry, dict)]
    listed: dict[str, PricedModel] = {}
    strange = []
    for number, entry in enumerate(entries if isinstance(entries, list) else [], 1):
        name = entry.get("tinker_id") or entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name.isprintable():
            strange.append(f"entry {number} names no model")
            continue
        try:
            listed[name] = _model(name, entry, source, date)
        except ValueError as error:
            strange.append(f"{name}: {error}")
    if not listed:
        raise EnvironmentProblem(f"{source} lists no models", "the book stays as it is")
    return listed, strange


def _model(name: str, entry: Mapping[str, Any], source: str, date: str) -> PricedModel:
    prefill, sample = _dollars(entry, "prefill"), _dollars(entry, "sample")
    context = _tokens(entry.get("context"))
    if prefill is None or sample is None:
        return PricedModel(name, None, context)
    cached = _dollars(entry, "cached_prefill")
    derived = () if cached is not None else ("cached_prefill",)
    cached = round(CACHED_SHARE * prefill, 6) if cached is None else cached
    return PricedModel(name, Price(prefill, cached, sample, _dollars(entry, "train"), derived, source, date), context)


def _dollars(entry: Mapping[str, Any], key: str) -> float | None:
    """A price in US dollars; None where there is none.

    Raises:
        ValueError: It is something else.
    """
    value = entry.get(key)
    text = str(value).strip().removeprefix("$").replace(",", "") if value is not None else ""
    if text.lower() in ("", "-", "—", "n/a", "none"):
        return None
    try:
        price = float(text)
    except ValueError:
        raise ValueError(f"its {key} is {value!r}, which is no price") from None
    if not 0 <= price < 1e6:
        raise ValueError(f"its {key} is {value!r}, which is no price")
    return price


def _tokens(value: Any) -> int | None:
    found = _CONTEXT.match(str(value)) if value is not None else None
    try:
        size = float(found.group(1).replace(",", "").replace("_", "")) if found else 0.0
    except ValueError:
        return None
    return int(size * _FACTORS[found.group(2).lower()]) if found and 0 < size < 1e9 else None
