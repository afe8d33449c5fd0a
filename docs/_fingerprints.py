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

Names such as `Character.name` are those of `charrun.spec` and `charrun.Stage`. A test changes each of them and looks at
the fingerprints.
"""

TAIL = """
## What `charrun plan` says

For a stage that is to do, what differs from the nearest work that is there: from what the latest run of the spec used
for this stage of this cell, or else from whichever of the stage's folders differs in the fewest places.

| reason | what it means |
|---|---|
| `never made` | the store has no work of this stage |
| `option beta: 0.1 -> 0.2`, `seed 7 -> 8`, `template character changed` | the fingerprint is another |
| `pirate's traits changed`, `another character: Pirate -> Grump` | the same, of the character |
| `the student is another model: A -> B`, `the files of the student A changed` | the same, of a model |
| `the code of my_stage.py changed`, `cache_version 1 -> 2 (charrun was updated)` | the same, of a stage's code |
| `other pairs than before` | the rows that it consumes are others |
| `after teacher, student` | rows that it consumes are not there yet; whether it will find its work done shows then |
| `scale: pairs 250 -> 375, 250 responses are in the store` | the fingerprint is the same, for other numbers |
| `interrupted: 120 responses are in the store` | the work was begun and goes on there |
| `failed: ...; 120 responses are in the store` | the latest run ended with this error |
| `its outputs are damaged: pairs-0123456789abcdef.jsonl` | a file is missing or is not what was published |
| `the engine no longer holds its checkpoint` | and a stage that is to do consumes it |
| `forced` | `--force` names it |

A stage that is done says so, and which other version of charrun or of its plugin made it.
"""


def page() -> str:
    """The page's text."""
    return "\n".join(
        [
            HEAD,
            "## What is in it\n",
            *_table("how", INCLUDED),
            "\n## What is left out, and why\n",
            *_table("why", EXCLUDED),
            TAIL,
        ]
    )


def _table(heading: str, rows: Mapping[str, str]) -> list[str]:
    return [f"| what | {heading} |", "|---|---|", *(f"| {_code(name)} | {text} |" for name, text in rows.items())]


def _code(name: str) -> str:
    """Names of fields and options as code, words as words."""
    parts = name.split(", ")
    is_code = all(" " not in part for part in parts) and (parts[0][0].isupper() or parts[0].startswith("--"))
    return ", ".join(f"`{part}`" for part in parts) if is_code else name


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
