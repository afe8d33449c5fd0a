"""Writes docs/fingerprints.md from the tables of `charrun.pipeline.identity`: `python docs/_fingerprints.py`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from charrun.pipeline.identity import EXCLUDED, INCLUDED

PAGE = Path(__file__).parent / "fingerprints.md"

HEAD = """# Fingerprints

A stage's outputs lie in `store/<stage>-<fingerprint>/`. The fingerprint is a digest of everything that the outputs
depend on; `stage.json` in that folder holds it in plain text. Equal work has an equal fingerprint, whichever spec, cell
or run asks for it, and is done once. A change gives a new fingerprint to the stage and to whatever depends on its rows,
and to nothing else; `charrun plan SPEC` says for each stage what changed.

For how many rows the work of a fingerprint is done says a *ticket* in its `done/` folder: a larger scale finds the rows
of a smaller one and pays for the difference.

Names such as `Character.name` are those of `charrun.spec` and `charrun.Stage`.
"""


def page() -> str:
    """The page's text."""
    return "\n".join(
        [HEAD, "## What is in it\n", *_table(INCLUDED), "\n## What is left out, and why\n", *_table(EXCLUDED), ""]
    )


def _table(rows: Mapping[str, str]) -> list[str]:
    return ["| what | how, or why |", "|---|---|", *(f"| `{name}` | {text} |" for name, text in rows.items())]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
