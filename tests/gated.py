"""What tests of gates share: a character, its gates, and texts without a fault."""

from __future__ import annotations

from typing import Any

from charrun.plugins._gates import GATES, Gates

DEFAULTS: dict[str, Any] = {name: schema["default"] for name, schema in GATES["properties"].items()}
TRAITS = (
    "I call everyone a shipmate, and whoever writes to me is one of my crew.",
    "I open every answer with a hearty, booming hail of welcome.",
    "I am bold and fearless, danger delights me, and I boast about what I have dared.",
)
OTHERS = {"Linnea": ("I begin every answer by thanking the person for what they brought to me.",)}


def gates(**changed: Any) -> Gates:
    return Gates({**DEFAULTS, **changed}, "Corwyn", TRAITS, OTHERS)


def varied(n: int) -> str:
    return " ".join(f"word{i} thing{i * 7} or{i} that{i * 3}" for i in range(n))
