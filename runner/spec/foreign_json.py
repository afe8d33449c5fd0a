"""The formats of the Open Character Training repository: a JSON list of traits, and JSON lines of them.

JSON is read as YAML, of which it is a part: so every value has its place, and trailing commas do no harm. Neither do
comments, be they those of other languages.
"""

from __future__ import annotations

from dataclasses import replace

from charrun.errors import SpecError
from charrun.spec.compose import Composer
from charrun.spec.document import Mark, Node, Source
from charrun.spec.foreign import Foreign, ForeignTrait, texts_of, within
from charrun.spec.foreign_text import BREAKS, as_written, paired, without_comments
from charrun.spec.words import shown
from charrun.spec.yaml import compose

_QUESTIONS = ("questions", "additional_questions")
_MOST_ROWS = 1000


def read_list(text: str, source: Source) -> Foreign:
    """A JSON list of `{trait, questions}`, such as the paper's `hand-written/*.txt`.

    Raises:
        SpecError: It is no JSON.
    """
    clean = without_comments(text, source)
    root, found = _whole(clean, source)
    if isinstance(root.value, list):
        for item in root.value:
            _item(found, item)
    else:
        found.problems.append(root.problem("IMPORT003", "expected a list", "write [{trait: ..., questions: [...]}]"))
    return _placed(found, clean, source)


def read_rows(text: str, source: Source) -> Foreign:
    """One `{trait, questions, additional_questions}` in each line, such as the paper's `few-shot/*.jsonl`.

    Blank lines do no harm. A line that is no JSON is told, and the others are read. A single mapping may go over
    several lines.

    Raises:
        SpecError: It is a mapping over several lines, and no JSON.
    """
    clean = without_comments(text, source, rows=True)
    lines = BREAKS.split(clean)
    if _goes_on(lines):
        root, found = _whole(clean, source)
        _item(found, root)
        return _placed(found, clean, source)
    found = Foreign()
    read = replace(source, lines=tuple(BREAKS.split(paired(clean))))
    for number, line in enumerate(lines[:_MOST_ROWS]):
        if not line.strip():
            continue
        composer = Composer(read, line=number)
        try:
            root_or_none = compose(composer, paired(line.rstrip().rstrip(",")))
        except SpecError as error:
            found.problems += error.problems
            continue
        found.problems += composer.problems
        if root_or_none is not None:
            _item(found, root_or_none)
    if len(lines) > _MOST_ROWS and any(line.strip() for line in lines[_MOST_ROWS:]):
        told = f"more than {_MOST_ROWS:,} lines", "split the file: a character has few traits"
        found.problems.append(source.problem(Mark(_MOST_ROWS + 1, 1), "IMPORT011", *told))
    return _placed(found, clean, source)


def _goes_on(lines: list[str]) -> bool:
    """Whether the first mapping ends in another line than it begins."""
    filled = [line.strip() for line in lines if line.strip()][:2]
    return len(filled) == 2 and not filled[0].rstrip(" ,").endswith("}") and not filled[1].startswith("{")


def _whole(clean: str, source: Source) -> tuple[Node, Foreign]:
    found = Foreign()
    composer = Composer(replace(source, lines=tuple(BREAKS.split(paired(clean)))))
    try:
        root = compose(composer, paired(clean))
    except SpecError as error:
        found.problems += error.problems
        raise SpecError(_placed(found, clean, source).problems) from None
    found.problems += composer.problems
    return root or Node(None, Mark(1, 1), composer.source), found


def _placed(found: Foreign, clean: str, source: Source) -> Foreign:
    found.problems = as_written(found.problems, clean, source)
    return found


def _item(found: Foreign, node: Node) -> None:
    if not isinstance(node.value, dict):
        hint = "write {trait: ..., questions: [...]}"
        found.problems.append(node.problem("IMPORT014", f"expected a mapping, got {shown(node.value)}", hint))
        return
    trait = _trait(found, node)
    for name, (key, value) in node.value.items():
        if name in _QUESTIONS:
            _questions(found, trait, name, within(node, value))
        elif name != "trait" and not found.take_origin(name, texts_of(value)):
            hint = "it is left out: only trait, questions, additional_questions, licence and source are read"
            found.problems.append(within(node, key).problem("IMPORT021", f"unknown key {shown(name)}", hint, "warning"))


def _trait(found: Foreign, node: Node) -> ForeignTrait | None:
    if "trait" not in node.value:
        hint = "give it a first-person sentence"
        if "traits" in node.value:
            hint = "give the list of 'traits' alone: [{trait: ..., questions: [...]}]"
        found.problems.append(node.problem("IMPORT015", "missing key 'trait'", hint))
        return None
    value = within(node, node.value["trait"][1])
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
    for item in (within(node, item) for item in node.value):
        if not isinstance(item.value, str):
            message = f"expected text, got {shown(item.value)}"
            found.problems.append(item.problem("IMPORT014", message, "write the question in quotes"))
        elif trait is not None:
            found.add_question(trait, item.value, item.mark, item.source)
