"""The formats of the Open Character Training repository: a JSON list of traits, and JSON lines of them.

JSON is read as YAML, of which it is a part: so every value has its place, and trailing commas and comments that begin
with `#` do no harm.
"""

from __future__ import annotations

import re

from charrun.errors import SpecError
from charrun.spec.compose import Composer
from charrun.spec.document import Mark, Node, Source
from charrun.spec.foreign import Foreign, ForeignTrait
from charrun.spec.words import shown
from charrun.spec.yaml import compose

_QUESTIONS = ("questions", "additional_questions")
_SURROGATES = re.compile(r"(?<!\\)((?:\\\\)*)\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})", re.IGNORECASE)
_MOST_ROWS = 1000


def read_list(text: str, source: Source) -> Foreign:
    """A JSON list of `{trait, questions}`, such as the paper's `hand-written/*.txt`.

    Raises:
        SpecError: It is no JSON.
    """
    found = Foreign()
    composer = Composer(source)
    root = compose(composer, _paired(text))
    found.problems += composer.problems
    if root is None or not isinstance(root.value, list):
        node = root or Node(None, Mark(1, 1), source)
        found.problems.append(node.problem("IMPORT003", "expected a list", "write [{trait: ..., questions: [...]}]"))
        return found
    for item in root.value:
        _item(found, item)
    return found


def read_rows(text: str, source: Source) -> Foreign:
    """One `{trait, questions, additional_questions}` in each line, such as the paper's `few-shot/*.jsonl`.

    Blank lines do no harm. A line that is no JSON is told, and the others are read.
    """
    found = Foreign()
    lines = [line.rstrip("\r") for line in text.split("\n")]
    for number, line in enumerate(lines[:_MOST_ROWS]):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        composer = Composer(source, line=number)
        try:
            root = compose(composer, _paired(line.rstrip().rstrip(",")))
        except SpecError as error:
            found.problems += error.problems
            continue
        found.problems += composer.problems
        if root is not None:
            _item(found, root)
    if len(lines) > _MOST_ROWS and any(line.strip() for line in lines[_MOST_ROWS:]):
        told = f"more than {_MOST_ROWS:,} lines", "split the file: a character has few traits"
        found.problems.append(source.problem(Mark(_MOST_ROWS + 1, 1), "IMPORT011", *told))
    return found


def _paired(text: str) -> str:
    """JSON writes what is beyond 16 bits as two escapes, which YAML does not know."""

    def one(found: re.Match[str]) -> str:
        pair = f"{found.group(2)}{found.group(3)}"
        return found.group(1) + bytes.fromhex(pair).decode("utf-16-be")

    return _SURROGATES.sub(one, text)


def _item(found: Foreign, node: Node) -> None:
    if not isinstance(node.value, dict):
        hint = "write {trait: ..., questions: [...]}"
        found.problems.append(node.problem("IMPORT014", f"expected a mapping, got {shown(node.value)}", hint))
        return
    trait = _trait(found, node)
    for name, (key, value) in node.value.items():
        if name in _QUESTIONS:
            _questions(found, trait, name, value)
        elif name != "trait":
            hint = "it is left out: only trait, questions and additional_questions are read"
            found.problems.append(key.problem("IMPORT021", f"unknown key {shown(name)}", hint, "warning"))


def _trait(found: Foreign, node: Node) -> ForeignTrait | None:
    if "trait" not in node.value:
        found.problems.append(node.problem("IMPORT015", "missing key 'trait'", "give it a first-person sentence"))
        return None
    value = node.value["trait"][1]
    if not isinstance(value.value, str):
        message = f"expected text, got {shown(value.value)}"
        found.problems.append(value.problem("IMPORT014", message, "write the trait in quotes"))
        return None
    return found.add_trait(value.value, value.mark, value.source)


def _questions(found: Foreign, trait: ForeignTrait | None, name: str, node: Node) -> None:
    if node.value is None:
        return
    if not isinstance(node.value, list):
        message = f"expected a list for {name!r}, got {shown(node.value)}"
        found.problems.append(node.problem("IMPORT014", message, "write [question, question]"))
        return
    for item in node.value:
        if not isinstance(item.value, str):
            message = f"expected text, got {shown(item.value)}"
            found.problems.append(item.problem("IMPORT014", message, "write the question in quotes"))
        elif trait is not None:
            found.add_question(trait, item.value, item.mark, item.source)
