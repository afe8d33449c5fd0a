"""`charrun new`: a spec, a character or a plugin to begin with, commented and sound."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import click

from charrun.commands.scaffold import (
    checked_slug,
    plugin_names,
    relative,
    rendered,
    scalar,
    schema_beside,
    told,
    write_new,
)
from charrun.commands.words import character_names, scale_names
from charrun.errors import CharrunError, UsageProblem

TEACHER = "Qwen/Qwen3.5-397B-A17B"
STUDENT = "Qwen/Qwen3.6-35B-A3B"
"""Models that the hosted service lists today; a test holds them to specs/pirate-mini-current.yaml."""

_STAND_INS = {"teacher": "charrun/demo-teacher", "student": "charrun/demo-student"}
_PLUGIN_FILES = {
    ".gitignore": "gitignore",
    "README.md": "README.md",
    "pyproject.toml": "pyproject.toml",
    "{module}/__init__.py": "init.py",
    "{module}/py.typed": "",
    "{module}/stage.py": "stage.py",
    "{module}/templates/{stage}.j2": "prompt.j2",
    "specs/{stage}.yaml": "spec.yaml",
    "tests/conftest.py": "conftest.py",
    "tests/test_{module}.py": "test_stage.py",
}
"""Files of a new plugin with their templates; an empty name is an empty file."""


@click.group()
def new() -> None:
    """Start a spec, a character or a plugin."""


@new.command()
@click.argument("name")
@click.option(
    "--character",
    default="pirate",
    show_default=True,
    shell_complete=character_names,
    help="A character's name, or its file.",
)
@click.option(
    "--scale", default="mini", show_default=True, shell_complete=scale_names, help="How much of everything to make."
)
@click.option("--teacher", default=TEACHER, show_default=True, help="Who answers in character: a name or a folder.")
@click.option("--student", default=STUDENT, show_default=True, help="Who is trained: a name or a folder.")
@click.option("-o", "output", type=click.Path(path_type=Path), metavar="FILE", help="Where to write it; NAME.yaml.")
def spec(name: str, character: str, scale: str, teacher: str, student: str, output: Path | None) -> None:
    """Write a spec that runs at once.

    Where no Tinker credentials are found, demo models stand in for the hosted ones.
    """
    from charrun.commands.loading import open_registry, resolve

    checked_slug(name, "spec")
    path = output or Path(f"{name}.yaml")
    _check_absent(path)
    registry = open_registry()
    _check_known("scale", scale, registry.scales)
    if character not in registry.characters:
        if not _is_path(character):
            _check_known("character", character, registry.characters)
        character = relative(character, path.parent)
    text = _spec_text(path, name, character, scale, teacher, student)
    write_new(path, text)
    try:
        resolve(str(path), (), registry)
    except CharrunError:
        path.unlink()  # what cannot be right, such as a folder without a model, is told and leaves nothing behind
        raise
    told(
        str(path),
        {
            f"charrun validate {path}": "every problem at once",
            f"charrun plan {path}": "what a run would do",
            f"charrun {path}": "run it, or continue its run",
        },
    )


@new.command()
@click.argument("name")
@click.option("-o", "output", type=click.Path(path_type=Path), metavar="FILE", help="Where to write it; NAME.yaml.")
def character(name: str, output: Path | None) -> None:
    """Write a character to begin with.

    It has three traits with their questions, and says what makes good ones.
    """
    from charrun.commands.loading import open_registry

    checked_slug(name, "character")
    if name in open_registry().characters:
        raise UsageProblem(f"there is a character {name!r} already", f"try my-{name}")
    path = output or Path(f"{name}.yaml")
    _check_absent(path)
    variables = {
        "id": scalar(name),
        "name": scalar(name.replace("-", " ").title()),
        "schema": schema_beside(path, "character"),
    }
    write_new(path, rendered("character.yaml", variables))
    written = str(path) if path.is_absolute() else f"./{path.as_posix()}"
    told(
        str(path),
        {
            f"charrun new spec {name}-mini --character {written}": "a spec that uses it",
            f"characters: [./{path.name}]": "in a spec beside it",
        },
    )


@new.command()
@click.argument("name")
@click.option(
    "--path",
    "parent",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    metavar="DIR",
    help="Where to make the folder NAME; here by default.",
)
def plugin(name: str, parent: Path) -> None:
    """Make a package with a stage of your own.

    Its test runs the stage on the local engine; a spec and a README show its use.
    """
    names = plugin_names(name)
    folder = parent / name
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageProblem(f"{folder} is there already", "choose another name, or another place with --path")
    for target, template in _PLUGIN_FILES.items():
        text = rendered(f"plugin/{template}", names) if template else ""
        write_new(folder / target.format(**names), text)
    told(
        f"{folder}, a package with the stage '{names['stage']}'",
        {
            f"cd {folder}": "",
            "pip install -e '.[dev]'": "charrun knows the stage from now on",
            "pytest": "its tests, on the local engine",
            f"charrun specs/{names['stage']}.yaml": "a spec that uses it",
        },
    )


def _spec_text(path: Path, name: str, character: str, scale: str, teacher: str, student: str) -> str:
    models = {role: _model(written, path.parent) for role, written in (("teacher", teacher), ("student", student))}
    hosted = {role: model for role, model in models.items() if not _is_path(model) and not model.startswith("charrun/")}
    demo = models["student"].startswith("charrun/")
    return rendered(
        "spec.yaml",
        {
            "schema": schema_beside(path, "spec"),
            "file": path,
            "name": scalar(name),
            "engine": "auto" if hosted else "local",
            "character": scalar(character),
            "scale": scale,
            "chat": bool(hosted),
            **{role: _reference(model, role in hosted) for role, model in models.items()},
            "dpo_rate": "5e-3" if demo else "1e-4",
            "sft_rate": "1.25e-3" if demo else "2.5e-5",
            "stand_ins": {scalar(model): _STAND_INS[role] for role, model in hosted.items()},
            "small": "student" in hosted,
        },
    )


def _model(written: str, folder: Path) -> str:
    return relative(written, folder) if written.startswith((".", "/", "~")) else written


def _reference(model: str, hosted: bool) -> str:
    name = scalar(model)
    return f"{{name: {name}, chat: {{enable_thinking: false}}}}" if hosted else name


def _is_path(word: str) -> bool:
    return word.startswith((".", "/", "~")) or word.endswith((".yaml", ".yml")) or Path(word).is_file()


def _check_known(what: str, word: str, known: Collection[str]) -> None:
    from charrun.spec.words import suggest

    if word not in known:
        raise UsageProblem(f"no {what} is called {word!r}", suggest(word, known, f"{what}s"))


def _check_absent(path: Path) -> None:
    if path.exists():
        raise UsageProblem(f"{path} is there already", "choose another name, or another place with -o")
