"""Questions that are for evaluations alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from charrun import seed_from, specs
from charrun.plugins._contamination import plain


def pool() -> list[str]:
    """All of them, in the file's order."""
    return (Path(specs.__file__).parent / "prompts/evaluation.txt").read_text(encoding="utf-8").splitlines()


def unused(seed: int, asked: Iterable[str]) -> list[str]:
    """Those that no user says in training, in the seed's order; one that is left out moves no other.

    Args:
        seed: The cell's seed.
        asked: What users say in training rows.
    """
    taken = {plain(text) for text in asked}
    left = [line for line in pool() if plain(line) not in taken]
    return sorted(left, key=lambda line: seed_from(seed, "evaluation", line))
