"""Writes docs/plugins.md from the hooks, events and contracts in the code: `python docs/_plugins.py`; tested."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

from charrun import events, hookspecs
from charrun.plugin_manager import load_registry
from charrun.report.console import ConsoleWatcher
from charrun.service.engine import Connection, Engine, EngineRequest
from charrun.spec import Scale
from charrun.stage import Estimate, Stage

HERE = Path(__file__).parent
PAGE = HERE / "plugins.md"


def page() -> str:
    """The page's text."""
    text = (HERE / "_plugins.template.md").read_text(encoding="utf-8")
    parts: dict[str, Callable[[], str]] = {
        "hooks to register": lambda: "\n\n".join(_hook(name) for name in _hooks("charrun_register_")),
        "hooks to observe": lambda: "\n\n".join(_hook(name) for name in _hooks("charrun_") if "register" not in name),
        "events": lambda: "\n\n".join(_class(event, 4) for event in get_args(events.Event)),
        "stage": lambda: _class(Stage, 3) + "\n\n" + _methods(Stage) + "\n\n" + _class(Estimate, 4),
        "engine": lambda: "\n\n".join(
            [_class(Engine, 3), _methods(Engine), _class(EngineRequest, 4), _class(Connection, 4)]
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
    blocks = []
    for name, method in vars(described).items():
        if not inspect.isfunction(method) or name.startswith("_"):
            continue
        annotations = dict(method.__annotations__)
        result = annotations.pop("return")
        parameters = ", ".join(["self", *(f"{key}: {kind}" for key, kind in annotations.items())])
        keyword = "async def" if inspect.iscoroutinefunction(method) else "def"
        signature = f"{keyword} {name}({parameters}) -> {result}: ..."
        blocks.append(f"```python\n{signature}\n```\n\n{_prose(method)}")
    return "\n\n".join(blocks)


def _prose(method: Any) -> str:
    """A docstring as paragraphs; what it raises as a list."""
    text, _, raises = (inspect.getdoc(method) or "").partition("\n\nRaises:\n")
    items = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", raises, re.MULTILINE)
    lines = [f"- `{name}`: {' '.join(told.split())}" for name, told in items]
    return text + ("\n\nRaises\n\n" + "\n".join(lines) if lines else "")


def _code(path: str) -> str:
    return f"```python\n{(HERE.parent / path).read_text(encoding='utf-8')}```"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
