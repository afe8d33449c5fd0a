"""Tinker's published list of models: fetched, and read whatever else is in it."""

from __future__ import annotations

import http.client
import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from charrun.errors import EnvironmentProblem
from charrun.secrets import hide_message, learn_address, shown_address
from charrun.spec.prices import CACHED_SHARE, Price, PriceBook, PricedModel
from charrun.spec.words import shown

PUBLISHED = "https://tinker-docs.thinkingmachines.ai/tinker/models.json"
_SECONDS = 20
"""Of silence."""
_ALL_SECONDS = 60
_MOST_BYTES = 4 << 20
_LONGEST_NAME = 200
_KEPT = "the book stays as it is; charrun prices shows it"
_ADDRESS = re.compile(r"https?://", re.IGNORECASE)
_CONTEXT = re.compile(r"\s*([\d.,_]+)\s*([kKmM]?)")
_PAID = "prefill", "sample"
_FAR = 10
_FACTORS = {"": 1, "k": 1024, "m": 1024 * 1024}


def fetch(place: str = PUBLISHED) -> bytes:
    """The list's bytes, from an address or a file.

    Raises:
        EnvironmentProblem: Nothing answers there, it cannot be read within a minute, or it is larger than 4 MiB.
    """
    told = shown_place(place)
    try:
        data = _within(_ALL_SECONDS, _reader(place))
    except urllib.error.HTTPError as error:
        raise EnvironmentProblem(f"{told} answers {error.code} {_line(error.reason)}".rstrip(), _KEPT) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise EnvironmentProblem(f"{told} cannot be read: {_line(_in_words(error))}", _KEPT) from error
    if len(data) > _MOST_BYTES:
        raise EnvironmentProblem(f"{told} is larger than {_MOST_BYTES >> 20} MiB, which is no list of models", _KEPT)
    return data


def shown_place(place: str) -> str:
    """An address without user, password and query; a file as it is."""
    return shown_address(place) if _ADDRESS.match(place) else place or "''"


def _reader(place: str) -> Callable[[], bytes]:
    """What reads a place, at most one byte more than a list may have."""

    def of_file() -> bytes:
        with Path(place).open("rb") as stream:
            return stream.read(_MOST_BYTES + 1)

    def of_address() -> bytes:
        asked = urllib.request.Request(place, headers={"User-Agent": "charrun", "Accept": "application/json"})
        with urllib.request.urlopen(asked, timeout=_SECONDS) as answer:
            return bytes(answer.read(_MOST_BYTES + 1))

    if not _ADDRESS.match(place):
        return of_file
    learn_address(place)
    return of_address


def _within(seconds: float, read: Callable[[], bytes]) -> bytes:
    """What `read` returns: in a thread, since a server that sends a byte now and then is never silent.

    Raises:
        TimeoutError: It takes longer.
        Exception: What `read` raises.
    """
    found: list[bytes | Exception] = []

    def work() -> None:
        try:
            found.append(read())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        raise TimeoutError(f"it has not come to an end within {seconds:g} s")
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


def _in_words(error: Exception) -> object:
    if isinstance(error, UnicodeError):
        return "an address is of ASCII characters alone"
    if isinstance(error, http.client.BadStatusLine):
        return "what answers there does not speak HTTP"
    if isinstance(error, http.client.IncompleteRead):
        return "the answer breaks off"
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
    return reason or str(error) or type(error).__name__


def _line(reason: object) -> str:
    """In one line that nothing acts in on a terminal, and without secrets of the address."""
    text = " ".join(hide_message(str(reason)).split())
    text = text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 200 else text[:199] + "…"


def read_list(data: bytes, source: str, date: str) -> tuple[dict[str, PricedModel], list[str]]:
    """The models of a list, and what of it could not be understood, one sentence each.

    An entry has `tinker_id` (or `name`) and, as "$0.33" or a number, `prefill`, `cached_prefill`, `sample` and `train`
    per million tokens, and `context` as "64K" or a number. Whatever else is there is not looked at. A model whose
    prices cannot be read is in the list without any.

    Args:
        data: The list.
        source: Where it is from.
        date: The day on which it was fetched.

    Raises:
        EnvironmentProblem: It is no list of models, or of most entries no price can be read.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else _line(error)
        raise EnvironmentProblem(f"{source} is not JSON: {reason}", _KEPT) from error
    entries = found.get("models") if isinstance(found, dict) else found
    if isinstance(entries, dict):
        entries = [{"tinker_id": name, **entry} for name, entry in entries.items() if isinstance(entry, dict)]
    entries = entries if isinstance(entries, list) else []
    listed: dict[str, PricedModel] = {}
    strange = []
    for number, entry in enumerate(entries, 1):
        name = entry.get("tinker_id") or entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name.isprintable() or not name.strip() or len(name) > _LONGEST_NAME:
            strange.append(f"entry {number} names no model")
            continue
        try:
            model = _model(name, entry, source, date)
        except ValueError as error:
            strange.append(f"{name}: {error}")
            model = PricedModel(name, None, _tokens(entry.get("context")))
        if name not in listed:
            listed[name] = model
        elif listed[name] != model:
            strange.append(f"{name} is listed twice, and not the same: the first counts")
    if not listed:
        raise EnvironmentProblem(f"{source} lists no models", _KEPT)
    priced = sum(each.price is not None for each in listed.values())
    if priced * 2 < len(entries):
        first = strange[0] if strange else next(f"{name} has none" for name, each in listed.items() if not each.price)
        message = f"{source} gives a price that can be read of {priced:,} of its {len(entries):,} entries: {first}"
        raise EnvironmentProblem(message, _KEPT)
    return listed, strange


def require_most(book: PriceBook, listed: Mapping[str, PricedModel], source: str) -> None:
    """Check that a list has at least half of the models that are served as far as the book knows.

    Raises:
        EnvironmentProblem: It has fewer: it was cut off, or is a list of something else.
    """
    served = [name for name, each in book.models.items() if not each.retired and not each.unlisted]
    there = sum(name in listed for name in served)
    if there * 2 < len(served):
        message = f"{source} lists {there:,} of {len(served):,} models that were served so far: is it damaged?"
        raise EnvironmentProblem(message, "the book stays as it is; --anyway takes the list as it is")


def require_alike(book: PriceBook, listed: Mapping[str, PricedModel], source: str) -> None:
    """Check that a list changes less than half of the prices that the book knows by more than a factor of ten.

    Raises:
        EnvironmentProblem: It changes more: it counts in another unit, or is damaged.
    """
    pairs = [(old, new.price) for name, new in listed.items() if new.price and (old := book.price(name))]
    far = [new for old, new in pairs if any(_is_far(getattr(old, key), getattr(new, key)) for key in _PAID)]
    if len(far) * 2 > len(pairs):
        message = f"{source} changes {len(far):,} of {len(pairs):,} known prices more than {_FAR}-fold: is it damaged?"
        raise EnvironmentProblem(message, "the book stays as it is; --anyway takes the list as it is")


def _is_far(old: float, new: float) -> bool:
    return max(old, new) > _FAR * min(old, new)


def _model(name: str, entry: Mapping[str, Any], source: str, date: str) -> PricedModel:
    """A model of a list, without a price where neither its prefill nor its sample is given.

    Raises:
        ValueError: A price is none, one of these is lacking, or a cached prompt costs more than one that is not.
    """
    figures = {key: _dollars(entry, key) for key in ("prefill", "cached_prefill", "sample", "train")}
    prefill, cached, sample = figures["prefill"], figures["cached_prefill"], figures["sample"]
    context = _tokens(entry.get("context"))
    if prefill is None and sample is None:
        return PricedModel(name, None, context)
    if prefill is None or sample is None:
        raise ValueError(f"its {'prefill' if prefill is None else 'sample'} is not given")
    if cached is not None and cached > prefill:  # a budget reserves prompts as prefill
        raise ValueError("its cached_prefill is more than its prefill")
    derived = () if cached is not None else ("cached_prefill",)
    cached = round(CACHED_SHARE * prefill, 6) if cached is None else cached
    return PricedModel(name, Price(prefill, cached, sample, figures["train"], derived, source, date), context)


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
        raise ValueError(f"its {key} is {shown(value)}, which is no price") from None
    if not 0 <= price < 1e6:
        raise ValueError(f"its {key} is {shown(value)}, which is no price")
    return price


def _tokens(value: Any) -> int | None:
    found = _CONTEXT.match(str(value)) if value is not None else None
    try:
        size = float(found.group(1).replace(",", "").replace("_", "")) if found else 0.0
    except ValueError:
        return None
    return int(size * _FACTORS[found.group(2).lower()]) if found and 0 < size < 1e9 else None
