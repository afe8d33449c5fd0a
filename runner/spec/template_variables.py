"""Which variables a prompt template mentions. Its tree is only looked at: nothing of it is ever run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_SUFFIX = ".j2"
_OFFERED = ("loop", "self", "super", "caller", "varargs", "kwargs")
"""Names that jinja2 gives within loops, blocks and macros."""


@dataclass(frozen=True)
class Broken:
    """Why a text is no template, and in which line."""

    message: str
    line: int = 1


def variables_of(text: str) -> dict[str, int] | Broken:
    """The variables that a template wants to be given, each with the line of its first use.

    The tree is only looked at: what jinja2 itself offers for this computes constants, and `'x' * 10**9` is one. A name
    that the template sets anywhere counts as its own everywhere.
    """
    from jinja2 import Environment, TemplateSyntaxError, nodes
    from jinja2.defaults import DEFAULT_NAMESPACE

    lines: dict[str, int] = {}
    own = {*DEFAULT_NAMESPACE, *_OFFERED}
    try:
        for node in Environment().parse(text).find_all((nodes.Name, nodes.Macro, nodes.Import, nodes.FromImport)):
            if isinstance(node, nodes.Name) and node.ctx == "load":
                lines[node.name] = min(lines.get(node.name, node.lineno), node.lineno)
            elif isinstance(node, nodes.FromImport):
                own |= {each if isinstance(each, str) else each[1] for each in node.names}
            elif isinstance(node, nodes.Import):
                own.add(node.target)
            elif isinstance(node, nodes.Name | nodes.Macro):
                own.add(node.name)
    except TemplateSyntaxError as error:
        message = " ".join((error.message or "").split()).rstrip(".")
        return Broken(message[:1].lower() + message[1:], error.lineno)
    except RecursionError:
        return Broken("it is nested too deeply")
    except ValueError:
        return Broken("it holds a number that is too long")
    return {name: line for name, line in lines.items() if name not in own}


def mentions(name: str, texts: Mapping[str, str], seen: frozenset[str] = frozenset()) -> set[str] | None:
    """The variables that a template mentions, or one that it includes or extends.

    Args:
        name: The template.
        texts: All templates by name.
        seen: Those that include it.

    Returns:
        None where nobody can tell: it computes the name of what it includes, or is no template.
    """
    used = variables_of(texts[name])
    taken_in = _taken_in(texts[name])
    if isinstance(used, Broken) or taken_in is None or not taken_in <= set(texts):
        return None
    found = set(used)
    for other in taken_in - seen - {name}:
        further = mentions(other, texts, seen | {name})
        if further is None:
            return None
        found |= further
    return found


def _taken_in(text: str) -> set[str] | None:
    """The templates that see the variables of this one; None where it computes a name."""
    from jinja2 import Environment, TemplateError, nodes

    found: set[str] = set()
    try:
        tree = Environment().parse(text)
    except (TemplateError, RecursionError, ValueError):
        return None
    for node in tree.find_all((nodes.Include, nodes.Extends, nodes.Import, nodes.FromImport)):
        if not getattr(node, "with_context", True):
            continue
        template = getattr(node, "template", None)
        named = template.value if isinstance(template, nodes.Const) else None
        if not isinstance(named, str):
            return None
        found.add(named.removesuffix(_SUFFIX))
    return found
