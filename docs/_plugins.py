"""Writes docs/plugins.md from the hooks, events and contracts in the code: `python docs/_plugins.py`; tested."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

from charrun import events, hookspecs
from charrun.pipeline.adapters import Adapter
from charrun.pipeline.context import StageContext
from charrun.pipeline.reference import Reference
from charrun.pipeline.training import batches_of, train_steps
from charrun.plugin_manager import load_registry
from charrun.report.console import ConsoleWatcher
from charrun.service.engine import Billed, Connection, Engine, EngineRequest, StoredCheckpoint
from charrun.spec import Scale
from charrun.stage import Estimate, Stage

HERE = Path(__file__).parent
PAGE = HERE / "plugins.md"
_WIDTH = 120


def page() -> str:
    """The page's text."""
    text = (HERE / "_plugins.template.md").read_text(encoding="utf-8")
    parts: dict[str, Callable[[], str]] = {
        "hooks to register": lambda: "\n\n".join(_hook(name) for name in _hooks("charrun_register_")),
        "hooks to observe": lambda: "\n\n".join(_hook(name) for name in _hooks("charrun_") if "register" not in name),
        "events": lambda: "\n\n".join(_class(event, 4) for event in get_args(events.Event)),
        "stage": lambda: _class(Stage, 3) + "\n\n" + _methods(Stage) + "\n\n" + _class(Estimate, 4),
        "context": _context,
        "engine": lambda: "\n\n".join(
            [
                _class(Engine, 3),
                _methods(Engine),
                _class(EngineRequest, 4),
                _class(Connection, 4),
                _class(StoredCheckpoint, 4),
                _class(Billed, 4),
            ]
        ),
        "scale": lambda: _table(Scale),
        "installed example": lambda: _code("tests/plugin_package/charrun_wordcount.py"),
        "local example": lambda: _code("specs/stages/lexicon.py"),
    }
    for name, part in parts.items():
        text = text.replace(f"@@{name}@@", part())
    assert "@@" not in text, "every part of the template is filled"
    return text


def _hooks(prefix: str) -> Iterator[str]:
    return (name for name in vars(hookspecs) if name.startswith(prefix))


def _hook(name: str) -> str:
    """Exact signature, docstring, and who uses it here."""
    function = getattr(hookspecs, name)
    parameters = ", ".join(f"{key}: {kind}" for key, kind in function.__annotations__.items() if key != "return")
    signature = f"def {name}({parameters}) -> {function.__annotations__['return']}: ..."
    return f"```python\n{signature}\n```\n\n{inspect.getdoc(function)} Used here by {_users(name)}."


def _users(hook: str) -> str:
    kind = hook.removeprefix("charrun_register_").removesuffix("s")
    plugins = load_registry(third_party=False).plugins
    users = [p.name for p in plugins if hook in p.observers or any(found == kind for found, _, _ in p.items())]
    names = [f"`{name}`" for name in users[:2]] + (["and others"] if len(users) > 2 else [])
    if hasattr(ConsoleWatcher, hook):
        names.append("the progress on the terminal")
    return ", ".join(names)


def _class(described: type, level: int) -> str:
    """Heading, first paragraph of the docstring, and the table of attributes."""
    summary = (inspect.getdoc(described) or "").split("\n\n")[0].replace("\n", " ")
    table = _table(described)
    return f"{'#' * level} {described.__name__}\n\n{summary}" + (f"\n\n{table}" if table else "")


def _table(described: type) -> str:
    """Attributes with types and what the docstring says of each."""
    told = _told(described)
    rows = []
    for name, annotation in inspect.get_annotations(described).items():
        kind = re.sub(r"^ClassVar\[(.*)\]$", r"\1", str(annotation)).replace("|", "\\|")
        rows.append(f"| `{name}` | `{kind}` | {told.get(name, '')} |")
    return "\n".join(["| attribute | type | what |", "|---|---|---|", *rows]) if rows else ""


def _told(described: type) -> dict[str, str]:
    """The docstring's section of attributes, one line each."""
    section = (inspect.getdoc(described) or "").partition("Attributes:\n")[2].split("\n\n")[0]
    items = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in items}


def _methods(described: type) -> str:
    """Own public methods with their signatures and docstrings."""
    return "\n\n".join(_function(found) for name, found in _public(described) if inspect.isfunction(found))


def _public(described: type) -> Iterator[tuple[str, Any]]:
    """What a class offers, and what it has from charrun's own base classes, those first."""
    for base in reversed([base for base in described.__mro__ if base.__module__.startswith("charrun")]):
        yield from ((name, found) for name, found in vars(base).items() if not name.startswith("_"))


def _function(function: Callable[..., Any]) -> str:
    """Signature and docstring."""
    return f"```python\n{_signature(function)}: ...\n```\n\n{_prose(function)}"


def _signature(function: Callable[..., Any]) -> str:
    """As ruff would lay it out."""
    keyword = "async def" if inspect.iscoroutinefunction(function) else "def"
    told = inspect.signature(function)
    parameters = [_plain(str(parameter)) for parameter in told.parameters.values()]
    kinds = [parameter.kind for parameter in told.parameters.values()]
    if inspect.Parameter.KEYWORD_ONLY in kinds:
        parameters.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    if inspect.Parameter.POSITIONAL_ONLY in kinds:
        parameters.insert(kinds.count(inspect.Parameter.POSITIONAL_ONLY), "/")
    begin, end = f"{keyword} {function.__name__}(", f") -> {told.return_annotation}"
    for joined in (", ".join(parameters), f"\n    {', '.join(parameters)}\n"):
        if max(map(len, f"{begin}{joined}{end}: ...".splitlines())) <= _WIDTH:
            return f"{begin}{joined}{end}"
    return begin + "".join(f"\n    {parameter}," for parameter in parameters) + f"\n{end}"


def _plain(parameter: str) -> str:
    """A parameter without the quotes around its annotation, which is a text, and with double ones elsewhere."""
    return re.sub(r": '([^']*)'", r": \1", parameter).replace("'", '"')


def _context() -> str:
    """What a stage works with, and the loop of those that train."""
    rows = [
        f"| `{name}` | `{found.fget.__annotations__['return']}` | {' '.join((inspect.getdoc(found) or '').split())} |"
        for name, found in _public(StageContext)
        if isinstance(found, property)
    ]
    table = "\n".join(["| attribute | type | what |", "|---|---|---|", *rows])
    parts = [_class(StageContext, 3), table, _methods(StageContext), _class(Adapter, 4)]
    parts += [_class(Reference, 4), _methods(Reference), "#### The loop of a training"]
    return "\n\n".join([*parts, _function(batches_of), _function(train_steps)])


def _prose(described: Any) -> str:
    """A docstring as paragraphs; its sections as lists."""
    text, *sections = re.split(r"\n\n(Args|Returns|Raises):\n", inspect.getdoc(described) or "")
    parts = [text]
    for title, section in zip(sections[::2], sections[1::2], strict=True):
        items = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
        told = [f"- `{name}`: {' '.join(words.split())}" for name, words in items]
        parts.append(f"{title}\n\n" + ("\n".join(told) if told else f"- {' '.join(section.split())}"))
    return "\n\n".join(parts)


def _code(path: str) -> str:
    return f"```python\n{(HERE.parent / path).read_text(encoding='utf-8')}```"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
