"""Writes docs/durability.md: `python docs/_durability.py`.

The promises are the contracts at the tops of modules, sentence by sentence; each is the name of a test. A test holds
the page to what this writes, and each sentence to its test. The table of faults is what `pytest -m faults` counted
last; it stays as it is.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

DOCS = Path(__file__).parent
PAGE = DOCS / "durability.md"
TEMPLATE = DOCS / "_durability.template.md"
MODULES = {
    "How a run ends and goes on": "runner/pipeline/run.py",
    "Training": "runner/pipeline/training.py",
    "Files that are whole or absent": "runner/store/files.py",
    "Lines that only grow": "runner/store/lines.py",
    "Syncing in the background": "runner/store/sync.py",
    "Responses": "runner/store/items.py",
    "Steps, checkpoints, reference log-probs": "runner/store/training.py",
    "Outputs and their tickets": "runner/store/tickets.py",
    "A run's own folder": "runner/store/run.py",
    "The ledger": "runner/store/ledger.py",
    "Budgets": "runner/pipeline/spending.py",
    "Locks": "runner/store/lock.py",
    "What nothing refers to": "runner/store/garbage.py",
    "Checksums looked at": "runner/store/verify.py",
    "Secrets": "runner/secrets.py",
    "Named instants for tests": "runner/faults.py",
}
BEGIN, END = "<!-- faults:begin -->", "<!-- faults:end -->"


def sentences(path: Path) -> list[str]:
    """The contract at the top of a module, sentence by sentence."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    _, _, contract = text.partition("Contract:\n")
    found = re.split(r"(?m)^\d+\. ", contract.split("\n\n")[0])[1:]
    return [" ".join(sentence.split()) for sentence in found]


def test_name(sentence: str) -> str:
    """The name of the test that holds a sentence."""
    words = re.sub(r"[^a-z0-9_.]+", "_", sentence.lower().replace("'", "").replace("`", ""))
    return "test_" + words.replace(".", "_").strip("_").replace("__", "_")


def page(before: str) -> str:
    """The page's text, with the table of faults of the page before."""
    parts = []
    for title, name in MODULES.items():
        parts.append(f"### {title}\n\n`{name}`\n")
        parts += [f"{number}. {sentence}" for number, sentence in enumerate(sentences(DOCS.parent / name), 1)]
        parts.append("")
    table = before[before.index(BEGIN) : before.index(END)] if BEGIN in before else f"{BEGIN}\n"
    text = TEMPLATE.read_text(encoding="utf-8")
    return text.replace("{contracts}", "\n".join(parts)).replace("{faults}", f"{table}{END}")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""), encoding="utf-8")
