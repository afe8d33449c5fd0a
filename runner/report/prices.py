"""The price book as a person reads it, and what a newer list changes in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from charrun.report.text import safe
from charrun.spec.prices import FIGURES, Price, PriceBook, PricedModel

_DERIVED = "~"
_HEADING = ("model", "prefill", "cached", "sample", "train", "context")


def price_rows(models: Sequence[PricedModel]) -> list[tuple[str, ...]]:
    """A table: dollars per million tokens, a `~` before what is derived, `?` where nobody says."""
    return [_HEADING, *((each.name, *_figures(each.price), _size(each.context)) for each in models)]


def book_lines(book: PriceBook) -> list[str]:
    """Where a book's figures are from."""
    prices = [each.price for each in book.models.values() if each.price]
    sources = sorted({(price.date, price.source) for price in prices}, reverse=True)
    lines = [f"as of {date}: {safe(source)}" for date, source in sources]
    if any(price.derived for price in prices):
        lines.append(f"{_DERIVED} derived from the others by Tinker's rules")
    return lines


def gone_rows(book: PriceBook) -> list[tuple[str, str, str]]:
    """Models that are not served any more, with the day and the successor, and those that the fetched list lacks."""
    rows = [(name, each.retired.date, each.retired.successor) for name, each in book.models.items() if each.retired]
    return [*rows, *((name, each.unlisted, "not listed") for name, each in book.models.items() if each.unlisted)]


def change_lines(before: PriceBook, after: PriceBook) -> list[str]:
    """What is different in a newer book, one model a line; of prices the old one, the new one and the difference."""
    told = {name: _changes(before.models.get(name), new) for name, new in after.models.items()}
    told |= {name: _gone(old) for name, old in before.models.items() if name not in after.models}
    return [f"{safe(name)}: {', '.join(changes)}" for name, changes in told.items() if changes]


def kept_lines(before: PriceBook, listed: Mapping[str, PricedModel]) -> list[str]:
    """The listed models whose known price stays, since the list has none that can be read."""
    known = [(name, before.price(name)) for name, each in listed.items() if each.price is None]
    return [
        f"{safe(name)}: the price of {price.date} stays" if price else f"{safe(name)}: its price is not known"
        for name, price in known
    ]


def price_document(book: PriceBook) -> dict[str, Any]:
    """What `charrun prices --json` prints."""
    return {
        "date": book.date,
        "fetched": book.fetched or None,
        "unit": "US dollars per million tokens",
        "models": {name: _plain(each) for name, each in book.models.items()},
    }


def _plain(model: PricedModel) -> dict[str, Any]:
    price = model.price
    return {
        **({} if price is None else {**price.figures(), "derived": list(price.derived), "source": price.source}),
        "date": price.date if price else None,
        "context": model.context,
        "served": model.retired is None and not model.unlisted,
        "retired": {"date": model.retired.date, "successor": model.retired.successor} if model.retired else None,
    }


def _changes(old: PricedModel | None, new: PricedModel) -> list[str]:
    if old is None:
        figures = ", ".join(f"{name} {_dollars(value)}" for name, value in _known(new.price).items())
        return [f"new{f': {figures}' if figures else ''}"]
    told = []
    if new.unlisted and not old.unlisted:
        told.append("not listed any more")
    if old.retired and not new.retired:
        told.append(f"listed again, retired on {old.retired.date} by this version's book")
    was, now = _known(old.price), _known(new.price)
    for name in FIGURES:
        if name in now and name not in was:
            told.append(f"{name} {_dollars(now[name])}")
        elif name in was and name not in now:
            told.append(f"{name} {_dollars(was[name])} -> not given")
        elif name in now and now[name] != was[name]:
            share = f" ({now[name] / was[name] - 1:+.0%})" if was[name] else ""
            told.append(f"{name} {_dollars(was[name])} -> {_dollars(now[name])}{share}")
    if new.context != old.context:
        told.append(f"context {_size(old.context)} -> {_size(new.context)}")
    return told


def _gone(old: PricedModel) -> list[str]:
    """Of a model that only an earlier list had."""
    figures = [f"{name} {_dollars(value)}" for name, value in _known(old.price).items()]
    return ["not known any more: " + ", ".join(figures) if figures else "not known any more"]


def _known(price: Price | None) -> Mapping[str, float]:
    return {name: value for name, value in price.figures().items() if value is not None} if price else {}


def _figures(price: Price | None) -> tuple[str, ...]:
    if price is None:
        return ("?",) * len(FIGURES)
    marks = {name: _DERIVED if name in price.derived else "" for name in FIGURES}
    return tuple(
        f"{marks[name]}{_dollars(value)}" if value is not None else "?" for name, value in price.figures().items()
    )


def _dollars(value: float) -> str:
    """At least two places, and no digit is lost."""
    text = f"{value:.6f}".rstrip("0")
    return text + "0" * max(0, 2 - len(text.partition(".")[2]))


def _size(tokens: int | None) -> str:
    return "?" if tokens is None else f"{tokens / 1024:,.0f}K" if tokens % 1024 == 0 else f"{tokens:,}"
