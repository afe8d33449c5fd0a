"""Templates that are lists: a text in each line, or `name: text` for each kind of prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from charrun import StageContext

ALL = "all"
PLAIN = "plain question"
TAKEN = (ALL, PLAIN)
_NONE = "template '{}' has no lines"


@dataclass(frozen=True)
class NamedLines:
    """What a template lists.

    Attributes:
        lines: Texts by name, in order.
        problems: What is wrong with it, one sentence each.
    """

    lines: dict[str, str]
    problems: list[str]


def named_lines(ctx: StageContext, template: str) -> NamedLines:
    """The lines of a template."""
    return parse_lines(ctx.render(template), template)


def lines_of(ctx: StageContext, template: str) -> list[str]:
    """The texts of a template, one in each line; empty lines are left out."""
    return texts_of(ctx.render(template))


def empty_lists(ctx: StageContext, templates: Iterable[str]) -> list[str]:
    """A sentence for each of the templates that lists nothing."""
    return [_NONE.format(template) for template in templates if not lines_of(ctx, template)]


def texts_of(text: str) -> list[str]:
    """One in each line; empty lines are left out."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def parse_lines(text: str, template: str) -> NamedLines:
    """Lines `name: text`; empty ones are left out."""
    written = texts_of(text)
    parts = [[part.strip() for part in line.partition(":")] for line in written]
    names = Counter(name for name, _, _ in parts)
    problems = [
        f"template '{template}': {line!r} is no line `name: text`"
        for line, (name, _, said) in zip(written, parts, strict=True)
        if not name or not said
    ]
    problems += [f"template '{template}': two lines are called '{name}'" for name, n in names.items() if n > 1]
    problems += [f"template '{template}': no line can be called '{name}'" for name in names if name in TAKEN]
    if not written:
        problems.append(_NONE.format(template))
    return NamedLines({name: said for name, _, said in parts}, problems)
