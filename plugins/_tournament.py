"""Which traits are compared, before which prompt: one seeded schedule for every model, so that models are paired."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Comparison:
    """Two traits that a model may choose between, and the message that it answers."""

    first: str
    second: str
    prompt: str


def schedule(traits: Sequence[str], prompts: Sequence[str], rounds: int, rng: random.Random) -> list[Comparison]:
    """Rounds of a tournament in which each trait meets another one; no two traits meet twice.

    Every trait is in exactly as many comparisons as there are rounds (of an odd number one sits out each round). More
    rounds begin with the same comparisons.

    Raises:
        ValueError: There are more rounds than opponents.
    """
    ring: list[str | None] = [*traits, *([None] if len(traits) % 2 else [])]
    rng.shuffle(ring)
    turns = len(ring) - 1
    if rounds > turns:
        raise ValueError(
            f"{len(traits)} traits have {turns} rounds in which no two meet twice, and {rounds} are wanted"
        )
    texts, order = list(prompts), list(range(turns))
    rng.shuffle(texts)
    rng.shuffle(order)
    found: list[Comparison] = []
    for turn in order[:rounds]:
        for pair in _met(ring, turn):
            first, second = pair if rng.random() < 0.5 else pair[::-1]
            if first is not None and second is not None:
                found.append(Comparison(first, second, texts[len(found) % len(texts)]))
    return found


def _met(ring: Sequence[str | None], turn: int) -> list[tuple[str | None, str | None]]:
    """The pairs of one round: the last one stays, the others go round (the circle method)."""
    turns = len(ring) - 1
    pairs = [(ring[-1], ring[turn])]
    return pairs + [(ring[(turn + i) % turns], ring[(turn - i) % turns]) for i in range(1, len(ring) // 2)]
