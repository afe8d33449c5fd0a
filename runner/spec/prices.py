"""What models cost at the hosted service: the book that ships with charrun, and a newer list where one was fetched."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from charrun.home import home
from charrun.spec.facts import Retired, model_table, retired_models
from charrun.usage import Usage

FIGURES = ("prefill", "cached_prefill", "sample", "train")
"""What is paid for, in the order of tables."""
CACHED_SHARE = 0.2
"""Cached prefill to prefill, by Tinker's documentation (2026)."""
STORAGE_USD = 0.10
"""Of a gigabyte of checkpoints for a month, by Tinker's documentation (2026)."""
_VERSION = 1


@dataclass(frozen=True)
class Price:
    """One model's prices, in US dollars per million tokens.

    Attributes:
        prefill: Prompt tokens that go through the model.
        cached_prefill: Prompt tokens that the service has in its cache.
        sample: Sampled tokens.
        train: Tokens through a training pass; None where no source says.
        derived: Which of these follow by a rule from the others.
        source: Where the figures are from.
        date: On which day they were that, as YYYY-MM-DD.
    """

    prefill: float
    cached_prefill: float
    sample: float
    train: float | None
    derived: tuple[str, ...]
    source: str
    date: str

    def figures(self) -> dict[str, float | None]:
        """The prices by name."""
        return {name: getattr(self, name) for name in FIGURES}


@dataclass(frozen=True)
class PricedModel:
    """A model of the book.

    Attributes:
        name: As the service calls it.
        price: None where no source says.
        context: Longest prompt plus answer in tokens, where known.
        retired: Since when it is not served any more, and what is; None where it is served.
        unlisted: Since when a fetched list lacks it, as YYYY-MM-DD; empty where it does not.
    """

    name: str
    price: Price | None
    context: int | None
    retired: Retired | None = None
    unlisted: str = ""


@dataclass(frozen=True)
class PriceBook:
    """All models whose prices or retirement are known.

    Attributes:
        models: By name, in the book's order.
        date: The day of the newest figure.
        fetched: The day on which a list was fetched that is laid over the shipped book; empty where none was.
    """

    models: Mapping[str, PricedModel]
    date: str
    fetched: str = ""

    def price(self, name: str) -> Price | None:
        """A model's price, if it is known."""
        found = self.models.get(name)
        return found.price if found else None

    def is_served(self, name: str) -> bool:
        """Whether a model is known to be served."""
        found = self.models.get(name)
        return found is not None and found.retired is None and not found.unlisted


def fetched_file() -> Path:
    """`$XDG_CONFIG_HOME/charrun/prices.json`, by default under `~/.config`: what `charrun prices --refresh` wrote."""
    place = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(place) if os.path.isabs(place) else home() / ".config") / "charrun" / "prices.json"


def shipped_book() -> PriceBook:
    """The book that ships with this version."""
    table = model_table()
    retired = retired_models()
    models = {
        name: PricedModel(name, _price(entry, table), entry.get("context")) for name, entry in table["models"].items()
    }
    for name, since in retired.items():
        models[name] = replace(models.get(name, PricedModel(name, None, None)), retired=since)
    return PriceBook(models, max(each.price.date for each in models.values() if each.price))


def price_book(fetched: Path | None = None) -> PriceBook:
    """The shipped book with the list laid over it that was fetched last, where one was and can be read.

    Args:
        fetched: The fetched list's file; by default `fetched_file()`.
    """
    book = shipped_book()
    try:
        kept = json.loads((fetched or fetched_file()).read_text(encoding="utf-8"))
        listed = {name: _listed(name, entry) for name, entry in kept["models"].items()}
        return laid_over(book, listed, str(kept["date"])) if kept["version"] == _VERSION else book
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return book


def completed(book: PriceBook, listed: Mapping[str, PricedModel]) -> dict[str, PricedModel]:
    """A list's models, with the price and the context that the book knows where the list says nothing that is one."""
    found = {}
    for name, each in listed.items():
        known = book.models.get(name, each)
        found[name] = replace(each, price=each.price or known.price, context=each.context or known.context)
    return found


def laid_over(book: PriceBook, listed: Mapping[str, PricedModel], date: str) -> PriceBook:
    """A book with a newer list laid over it: what is listed is served, and what is not is told as not listed.

    A price that is known stays where the list has none.
    """
    listed = completed(book, listed)
    rest = {
        name: each if each.retired else replace(each, unlisted=each.unlisted or date)
        for name, each in book.models.items()
        if name not in listed
    }
    return PriceBook({**listed, **rest}, date, date)


def fetched_text(listed: Mapping[str, PricedModel], date: str) -> str:
    """The text of the file that `price_book` reads."""
    models = {name: {"context": each.context, **_plain(each.price)} for name, each in listed.items()}
    return json.dumps({"version": _VERSION, "date": date, "models": models}, indent=2) + "\n"


def _plain(price: Price | None) -> dict[str, Any]:
    return {} if price is None else asdict(price)


def _listed(name: str, entry: Mapping[str, Any]) -> PricedModel:
    fields = dict(entry)
    context = fields.pop("context")
    if not (context is None or isinstance(context, int)):
        raise ValueError(f"the context of {name} is no number")
    if "prefill" not in fields:
        return PricedModel(name, None, context)
    price = Price(**{**fields, "derived": tuple(fields["derived"])})
    figures = [value for key, value in price.figures().items() if key != "train" or value is not None]
    is_price = all(map(_is_figure, figures)) and price.cached_prefill <= price.prefill
    if not is_price or not isinstance(price.source, str) or not isinstance(price.date, str):
        raise ValueError(f"the price of {name} is none")
    return PricedModel(name, price, context)


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _price(entry: Mapping[str, Any], table: Mapping[str, Any]) -> Price:
    source = table["sources"][entry["source"]]
    return Price(
        prefill=entry["prefill"],
        cached_prefill=entry["cached_prefill"],
        sample=entry["sample"],
        train=entry.get("train"),
        derived=tuple(entry.get("derived", ())),
        source=source["what"],
        date=source["date"],
    )


@dataclass(frozen=True)
class Rates:
    """What a model's tokens cost, in picodollars each: whole numbers, so that sums are exact.

    Attributes:
        prefill: Prompt tokens.
        cached: Prompt tokens that are billed as cache hits.
        sample: Sampled tokens.
        train: Trained tokens; None where no source says.
    """

    prefill: int
    cached: int
    sample: int
    train: int | None

    @classmethod
    def of(cls, rates: Mapping[str, int | None]) -> Rates:
        """From what `asdict` makes of them."""
        return cls(rates.get("prefill") or 0, rates.get("cached") or 0, rates.get("sample") or 0, rates.get("train"))

    def cost(self, usage: Usage) -> Cost | None:
        """What it costs; None where something was trained, and no price of that is known.

        How forward passes are billed is documented nowhere: at least as prefill, at most as training.
        """
        if self.train is None and (usage.trained_tokens or usage.forward_tokens):
            return None
        train = self.train or 0
        sum_ = (
            usage.prefill_tokens * self.prefill
            + usage.cached_tokens * self.cached
            + usage.sampled_tokens * self.sample
            + usage.trained_tokens * train
        )
        forward = usage.forward_tokens
        return Cost(sum_ + forward * min(self.prefill, train), sum_ + forward * max(self.prefill, train))


FREE = Rates(0, 0, 0, 0)
"""On this machine."""


def told_rates(told: Mapping[str, Mapping[str, int | None] | None]) -> dict[str, Rates | None]:
    """Rates by model, as a run's journal has them; None where nobody knew."""
    return {model: None if rates is None else Rates.of(rates) for model, rates in told.items()}


def cost_of(rates: Mapping[str, Rates | None], model: str, usage: Usage) -> Cost | None:
    """What a model's usage costs; None where nobody knows."""
    found = rates.get(model)
    return None if found is None else found.cost(usage)


def cost_of_all(rates: Mapping[str, Rates | None], usages: Mapping[str, Usage]) -> Cost | None:
    """What the usage of several models costs; None where nobody knows one of them."""
    return cost_sum(cost_of(rates, model, usage) for model, usage in usages.items())


def cost_sum(costs: Iterable[Cost | None]) -> Cost | None:
    """Their sum; None where one is not known."""
    total = Cost()
    for each in costs:
        if each is None:
            return None
        total += each
    return total


@dataclass(frozen=True)
class Cost:
    """A sum of money, in picodollars: the least and the most that it can be."""

    low: int = 0
    high: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.low + other.low, self.high + other.high)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.low - other.low, self.high - other.high)


def picodollars(usd: float) -> int:
    """A sum of money as a whole number, rounded down to the picodollar."""
    return int(Decimal(str(usd)) * 10**12)


def dollars(pico: int) -> float:
    """A sum of money in US dollars."""
    return pico / 10**12


def usd(pico: int) -> str:
    """A sum of money as text: dollars to a hundredth of a cent, of less than that two digits."""
    return in_dollars(dollars(pico))


def in_dollars(value: float, digits: int = 4) -> str:
    """Dollars as text: to so many digits, by default a hundredth of a cent; of less than that two digits."""
    if 0 < abs(value) < 10**-digits:
        digits = 1 - math.floor(math.log10(abs(value)))
    return f"{value:,.{digits}f}"


def rates_of(price: Price) -> Rates:
    """A price per million tokens as rates per token."""
    figures = {name: None if usd is None else _per_token(usd) for name, usd in price.figures().items()}
    return Rates(figures["prefill"] or 0, figures["cached_prefill"] or 0, figures["sample"] or 0, figures["train"])


def own_rates(figures: Mapping[str, float]) -> Rates:
    """Rates from a spec's own `prices`."""
    cached = figures.get("cached_prefill", figures["prefill"] * CACHED_SHARE)
    train = figures.get("train")
    return Rates(
        _per_token(figures["prefill"]),
        _per_token(cached),
        _per_token(figures["sample"]),
        None if train is None else _per_token(train),
    )


def _per_token(usd: float) -> int:
    """US dollars per million tokens in picodollars per token, rounded up: a budget holds all the more."""
    return math.ceil(Decimal(str(round(usd, 9))) * 10**6)
