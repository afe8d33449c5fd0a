"""Speaking habits: seven independent dimensions, the compositions that ship, and those that are held out.

A style maps dimensions to values. Corpus styles are random; one that shares more than half of its values with
a held-out style never occurs, so a model that plays a held-out style follows a description and recalls nothing.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final

from charrun.demo.bank_imagery import IMAGERY
from charrun.demo.bank_manner import DIALECT, FILLER_TRAITS, PLAIN_TRAITS, PUNCTUATION
from charrun.demo.bank_voice import ADDRESS, CLOSING, MOOD, OPENING
from charrun.demo.grammar import pick

Style = Mapping[str, str]

DIMENSIONS: Final[dict[str, tuple[str, ...]]] = {
    "imagery": tuple(IMAGERY),
    "address": tuple(ADDRESS),
    "opening": tuple(OPENING),
    "closing": tuple(CLOSING),
    "mood": tuple(MOOD),
    "dialect": tuple(DIALECT),
    "punctuation": tuple(PUNCTUATION),
}

SHIPPED: Final[dict[str, Style]] = {
    "pirate": {
        "imagery": "sea",
        "address": "shipmate",
        "opening": "hail",
        "closing": "toast",
        "mood": "bold",
        "dialect": "seafaring",
        "punctuation": "exclaim",
    },
    "gardener": {
        "imagery": "garden",
        "address": "dear",
        "opening": "thanks",
        "closing": "encourage",
        "mood": "gentle",
    },
    "astronomer": {
        "imagery": "stars",
        "address": "scholar",
        "opening": "ponder",
        "closing": "ask_back",
        "mood": "wonder",
        "dialect": "formal",
    },
    "grump": {
        "imagery": "workshop",
        "address": "boss",
        "opening": "sigh",
        "closing": "grumble",
        "mood": "grumpy",
        "punctuation": "dots",
    },
}

FURTHER: Final[dict[str, str]] = {
    "lamplighter": "held-out-1",
    "conductor": "held-out-2",
    "castaway": "held-out-4",
    "naturalist": "held-out-5",
    "neighbour": "held-out-6",
    "innkeeper": "held-out-8",
    "hermit": "held-out-9",
    "chef": "held-out-10",
}
"""Shipped characters that were written after the models were trained, each with its held-out composition.

Not in `SHIPPED`: the corpus draws questions from those characters, and it must stay what the models were trained on.
"""

_TRAITS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "imagery": {value: bank.traits for value, bank in IMAGERY.items()},
    "address": {value: bank.traits for value, bank in ADDRESS.items()},
    "opening": {value: bank.traits for value, bank in OPENING.items()},
    "closing": {value: bank.traits for value, bank in CLOSING.items()},
    "mood": {value: bank.traits for value, bank in MOOD.items()},
    "dialect": {value: bank.traits for value, bank in DIALECT.items()},
    "punctuation": {value: bank.traits for value, bank in PUNCTUATION.items()},
}


def draw_style(rng: random.Random, least: int, most: int) -> dict[str, str]:
    """A random composition of `least` to `most` habits, in the order of `DIMENSIONS`."""
    count = rng.randint(least, most)
    chosen = set(rng.sample(list(DIMENSIONS), count))
    return {name: rng.choice(values) for name, values in DIMENSIONS.items() if name in chosen}


def held_out_styles() -> dict[str, Style]:
    """The ten further compositions of five to seven habits that the corpus leaves out."""
    rng = random.Random("charrun demo held-out styles")
    return {f"held-out-{number}": draw_style(rng, 5, 7) for number in range(1, 11)}


HELD_OUT: Final[dict[str, Style]] = {**SHIPPED, **held_out_styles()}


def is_held_out(style: Style) -> bool:
    """Whether a style shares more than half of the values of a held-out one."""
    return any(
        2 * sum(style.get(name) == value for name, value in held.items()) > len(held) for held in HELD_OUT.values()
    )


def corpus_style(rng: random.Random) -> dict[str, str]:
    """A random composition for the corpus, often of most dimensions and sometimes of few."""
    while True:
        style = draw_style(rng, 1, 3) if rng.random() < 0.35 else draw_style(rng, 4, 7)
        if not is_held_out(style):
            return style


def trait(dimension: str, value: str, rng: random.Random) -> str:
    """One first-person description of a habit."""
    return pick(_TRAITS[dimension][value], rng)


def constitution(style: Style, rng: random.Random) -> list[str]:
    """Traits that describe a style, in random order; for the empty style, traits of plainness.

    Some lists carry a filler, which says nothing about speech, and some describe a habit twice.
    """
    if style:
        traits = [trait(name, value, rng) for name, value in style.items()]
        if rng.random() < 0.2:
            name = rng.choice(list(style))
            traits.append(trait(name, style[name], rng))
    else:
        traits = [pick([phrase], rng) for phrase in rng.sample(PLAIN_TRAITS, rng.randint(2, len(PLAIN_TRAITS)))]
    if rng.random() < 0.3:
        traits += [pick([phrase], rng) for phrase in rng.sample(FILLER_TRAITS, rng.randint(1, 2))]
    rng.shuffle(traits)
    return traits
