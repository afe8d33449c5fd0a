"""What `charrun new` writes: shipped templates with names filled in, never over a file that is there."""

from __future__ import annotations

import keyword
import os
import re
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import click

from charrun.errors import UsageProblem
from charrun.spec.words import as_slug

SCHEMAS = ".charrun"
"""Folder beside a spec for the schemas that its editor reads, written for the plugins that are installed."""

_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,63}\Z")
_DISTRIBUTION = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?\Z", re.IGNORECASE)
_PLAIN = re.compile(r"[A-Za-z./][\w./-]*\Z")
_COMMENT_COLUMN = 44
_WIDTH = 80
_PREFIX = "charrun-"


def rendered(template: str, variables: Mapping[str, object]) -> str:
    """The text of a shipped template, whose variables stand in `<<` and `>>`: YAML and Python have braces too."""
    import jinja2

    environment = jinja2.Environment(
        variable_start_string="<<",
        variable_end_string=">>",
        block_start_string="<%",
        block_end_string="%>",
        comment_start_string="<#",
        comment_end_string="#>",
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["beside"] = lambda text, comment: f"{text:<{_COMMENT_COLUMN - 1}} # {comment}"
    text = files("charrun").joinpath(f"templates/{template}.j2").read_text(encoding="utf-8")
    return environment.from_string(text).render(**variables)


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet.

    Raises:
        UsageProblem: It is there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageProblem(f"{path} is there already", "choose another name, or another place with -o") from None


def told(made: str, commands: Mapping[str, str]) -> None:
    """Say what was made, then the next commands with what each does, below it where that is too wide."""
    click.echo(f"made {made}")
    width = max(map(len, commands))
    table = [f"  {command:<{width}}  {does}".rstrip() for command, does in commands.items()]
    if max(map(len, table)) > _WIDTH:
        table = [f"  {command}\n      {does}".rstrip() for command, does in commands.items()]
    click.echo("\n".join(table))


def checked_slug(name: str, what: str) -> str:
    """A name that a spec or a character may have.

    Raises:
        UsageProblem: It is none; the hint has one that is near.
    """
    if _SLUG.match(name):
        return name
    near = as_slug(re.sub(r"\.ya?ml$", "", name))
    raise UsageProblem(
        f"{name!r} cannot name a {what}: a name is at most 64 lower-case letters, digits and hyphens",
        f"try {near}" if near else "",
    )


def scalar(text: str) -> str:
    """Text as YAML writes it, in quotes where it must be."""
    import json

    plain = _PLAIN.match(text) and text.lower() not in ("true", "false", "null")
    return text if plain else json.dumps(text, ensure_ascii=False)


def schema_beside(path: Path, document: str) -> str:
    """The schema of a file for its editor: this repository's own within it, else one that is written beside the file.

    Args:
        path: The file that will be written.
        document: `spec` or `character`.

    Returns:
        Its path relative to the file.
    """
    from charrun.commands.loading import open_registry
    from charrun.commands.schema import every_schema
    from charrun.store.files import make_folder, write_atomic

    folder = path.absolute().parent
    shipped = Path(str(files("charrun.schemas"))).absolute()
    repository = shipped.parent
    if (repository / "pyproject.toml").exists() and folder.is_relative_to(repository):
        return f"{os.path.relpath(shipped, folder)}/{document}.schema.json"
    texts = every_schema(open_registry())
    home = make_folder(folder / SCHEMAS)
    for name, text in texts.items():
        write_atomic(home / name, text)
    return f"{SCHEMAS}/{document}.schema.json"


def relative(written: str, folder: Path) -> str:
    """A path that a user gave, as a file in a folder names it: relative to that folder.

    Raises:
        UsageProblem: There is nothing at the path.
    """
    path = Path(written).expanduser()
    if not path.exists():
        raise UsageProblem(f"there is no {written}")
    found = Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
    return found if found.startswith("../") else f"./{found}"


def plugin_names(name: str) -> dict[str, str]:
    """What a new plugin's package, module, stage and class are called.

    Raises:
        UsageProblem: The name is none that a package can have, or one that is taken; the hint has another.
    """
    if not _DISTRIBUTION.match(name):
        hint = "letters, digits, '.', '_' and '-', with a letter or digit at both ends"
        raise UsageProblem(f"{name!r} cannot name a package", hint)
    plain = re.sub(r"[-_.]+", "-", name).lower()
    module = plain.replace("-", "_")
    stage = plain.removeprefix(_PREFIX)
    if not module.isidentifier() or keyword.iskeyword(module):
        raise UsageProblem(f"{name!r} gives a module {module!r}, which Python cannot import", f"try {_PREFIX}{plain}")
    if module == "charrun" or module in sys.stdlib_module_names:
        raise UsageProblem(f"{name!r} is the name of a module that exists", f"try {_PREFIX}my-{plain}")
    _check_stage_name(name, stage)
    return {
        "name": name,
        "module": module,
        "stage": stage,
        "cls": "".join(word.capitalize() for word in stage.split("-")),
    }


def _check_stage_name(name: str, stage: str) -> None:
    from charrun.plugin_manager import load_registry

    if stage in load_registry(third_party=False).stages:
        raise UsageProblem(
            f"{name!r} gives a stage {stage!r}, which is built in",
            f"try {_PREFIX}my-{stage}, whose stage is called 'my-{stage}'",
        )
    if not _SLUG.match(stage):
        raise UsageProblem(f"{name!r} gives a stage {stage!r}: a name has at most 64 characters", "try a shorter one")
