"""Constitutions in the formats of others: what all of them come to, and where each part is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from charrun.errors import Problem
from charrun.spec.document import Mark, Node, Source
from charrun.spec.lint_words import QUOTED, REFUSAL
from charrun.spec.words import shown

LONGEST = 1000
"""Characters of a trait; what is longer was meant to be several."""
_LONGEST_QUESTION = 50_000
"""Characters of a question, which may hold a page of code."""
_MOST_TRAITS = 1000
_LICENCE = ("license", "licence", "spdx-license-identifier")
_SOURCE = ("author", "authors", "source")


@dataclass
class ForeignTrait:
    """One trait as it was found.

    Attributes:
        text: The trait, its blanks made single.
        questions: User messages as they are written; empty where the format has none.
        comments: Lines to put above it.
    """

    text: str
    questions: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)


@dataclass
class Foreign:
    """A constitution from elsewhere.

    Attributes:
        id: What the file calls the character; empty where it says nothing. So are the next ones.
        name: What it calls the assistant.
        description: A sentence about it.
        licence: Its licence.
        source: Who or what it is by.
        traits: The traits in their order.
        left_out: What the file says beside traits and questions, for people to read.
        problems: Errors and warnings, each with its place.
    """

    id: str = ""
    name: str = ""
    description: str = ""
    licence: str = ""
    source: str = ""
    traits: list[ForeignTrait] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    _questions: dict[str, Mark] = field(default_factory=dict)
    _traits: dict[str, Mark] = field(default_factory=dict)

    def take_origin(self, key: str, texts: Iterable[str]) -> bool:
        """Take up the licence, or who or what it is by, where a key tells that; returns whether it does."""
        name = key.strip().casefold()
        if name in _LICENCE:
            self.licence = _joined(self.licence, texts)
        elif name in _SOURCE:
            self.source = _joined(self.source, texts)
        return name in _LICENCE + _SOURCE

    def add_trait(self, text: str, mark: Mark, source: Source) -> ForeignTrait | None:
        """Take up a trait, or find the same one; `None`, with a problem, where there is nothing to take up."""
        said = self._sound(" ".join(text.split()), "trait", LONGEST, mark, source)
        if not said:
            return None
        trait = ForeignTrait(said)
        if (first := self._traits.get(said.casefold())) is not None:
            self._repeated(f"trait {shown(said)}", first, mark, source)
            return next(known for known in self.traits if known.text.casefold() == said.casefold())
        if len(self.traits) == _MOST_TRAITS:
            told = f"more than {_MOST_TRAITS:,} traits", "split the file: a character has few traits"
            self.problems.append(source.problem(mark, "IMPORT011", *told))
        self._traits[said.casefold()] = mark
        for pattern, what in ((REFUSAL, "declines requests"), (QUOTED, "quotes a phrase")):
            if (risk := pattern.search(said)) and " " in risk.group():
                hint = "it is imported; `charrun lint` says why that is a risk"
                message = f"the trait {what}: {shown(risk.group())}"
                self.problems.append(source.problem(mark, "IMPORT024", message, hint, "warning"))
        self.traits.append(trait)
        return trait

    def add_question(self, trait: ForeignTrait, text: str, mark: Mark, source: Source) -> None:
        """Take up a question, once in the whole constitution."""
        if not text.strip():
            hint = "it is left out; write a user message, or remove the entry"
            self.problems.append(source.problem(mark, "IMPORT012", "an empty question", hint, "warning"))
            return
        said = self._sound(text.strip(), "question", _LONGEST_QUESTION, mark, source)
        if not said:
            return
        same = " ".join(said.casefold().split())
        if (first := self._questions.get(same)) is None:
            self._questions[same] = mark
            trait.questions.append(said)
            return
        self._repeated(f"question {shown(' '.join(said.split()))}", first, mark, source)

    def leave_out(self, node: Node, what: str, why: str, texts: list[str]) -> None:
        """Say that a part becomes no trait, and keep its words as comments."""
        self.problems.append(node.problem("IMPORT020", f"{what} not imported", why, "warning"))
        self.left_out += [f"{what}:", *(f"  - {text}" for text in texts)]

    def errors(self) -> Iterator[Problem]:
        """Problems that are no warnings."""
        return (problem for problem in self.problems if problem.severity == "error")

    def _repeated(self, what: str, first: Mark, mark: Mark, source: Source) -> None:
        where = ", earlier in this line" if first.line == mark.line else f" in line {first.line}"
        hint = f"it is left out: it is already there{where}"
        self.problems.append(source.problem(mark, "IMPORT013", f"repeated {what}", hint, "warning"))

    def _sound(self, said: str, what: str, longest: int, mark: Mark, source: Source) -> str:
        if not any(letter.isprintable() and not letter.isspace() for letter in said):
            if all((problem.line, problem.column) != (mark.line, mark.column) for problem in self.errors()):
                hint = f"write the {what}, or remove the entry"
                self.problems.append(source.problem(mark, "IMPORT010", f"an empty {what}", hint))
            return ""  # or it could not be read, which is told
        if len(said) > longest:
            message = f"a {what} of {len(said):,} characters, of at most {longest:,}"
            self.problems.append(source.problem(mark, "IMPORT011", message, f"split it: one sentence for each {what}"))
            return ""
        return said


def _joined(known: str, texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys([*known.split(", "), *texts] if known else texts))


def within(outer: Node, inner: Node) -> Node:
    """A part of `outer`; at the place of `outer` if that is an alias, and the part is written elsewhere."""
    before = (inner.mark.line, inner.mark.column) < (outer.mark.line, outer.mark.column)
    return replace(inner, mark=outer.mark) if before else inner


def texts_of(node: Node) -> Iterator[str]:
    """Every text in a node, in order; keys before their values where those are texts."""
    value: Any = node.value
    if isinstance(value, dict):
        for key, (_, item) in value.items():
            plain = not isinstance(item.value, dict | list)
            yield from (f"{key}: {item.value}",) if plain else (f"{key}: {text}" for text in texts_of(item))
    elif isinstance(value, list):
        for item in value:
            yield from texts_of(item)
    elif value is not None:
        yield " ".join(str(value).split())
