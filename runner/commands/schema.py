"""`charrun schema`: the JSON Schema of specs for the plugins that are installed, for editors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from charrun.commands.loading import open_registry
from charrun.commands.options import no_plugins_option
from charrun.commands.words import stage_names
from charrun.errors import EnvironmentProblem, PluginError, SpecError, UsageProblem
from charrun.plugin_manager import Registry
from charrun.spec import builtin_specs, load_yaml
from charrun.spec.arms import shipped_arms
from charrun.spec.editor import DOCUMENTS, Choice, Vocabulary, options_schema, published
from charrun.spec.presets import shipped_presets
from charrun.spec.words import suggest

_WIDTH = 110


@click.command()
@click.option("--stage", metavar="NAME", shell_complete=stage_names, help="Only the schema of one stage's options.")
@click.option(
    "--for",
    "document",
    type=click.Choice(DOCUMENTS),
    default="spec",
    show_default=True,
    help="The kind of file that is described.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write it there.")
@click.option(
    "--check",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write nothing; exit code 1 if FILE does not hold it.",
)
@click.option("--all", "folder", type=click.Path(path_type=Path), metavar="FOLDER", help="Write all three there.")
@no_plugins_option
@click.pass_context
def schema(
    ctx: click.Context,
    stage: str | None,
    document: str,
    output: Path | None,
    check: Path | None,
    folder: Path | None,
    plugins: bool,
) -> None:
    """Write the JSON Schema of specs, for editors.

    It completes, explains and checks what the installed plugins offer, and refers to no other file. Without -o it goes
    to the terminal.
    """
    given = [name for name, value in (("-o", output), ("--check", check), ("--all", folder)) if value is not None]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} exclude each other.")
    if folder is not None and (stage is not None or document != "spec"):
        raise click.UsageError("--all writes every schema; leave --stage and --for out.")
    registry = open_registry(plugins)
    if folder is not None:
        for name, text in every_schema(registry).items():
            _write(folder / name, text)
        return
    text = _stage_text(registry, stage) if stage is not None else schema_text(registry, document)
    if check is not None:
        ctx.exit(_compare(check, text, plugins))
    if output is not None:
        _write(output, text)
    else:
        click.echo(text, nl=False)


def every_schema(registry: Registry) -> dict[str, str]:
    """The text of each schema file, by the file's name."""
    return {f"{document}.schema.json": schema_text(registry, document) for document in DOCUMENTS}


def schema_text(registry: Registry, document: str = "spec") -> str:
    """The schema of one kind of file, as it is written.

    Raises:
        PluginError: A plugin's schema cannot be part of it.
    """
    return _dumped(published(document, vocabulary(registry)))


def vocabulary(registry: Registry) -> Vocabulary:
    """What a spec may name, in the words that an editor shows."""
    users: dict[str, list[str]] = {}
    for stage in registry.stages.values():
        for template in stage.templates:
            users.setdefault(template, []).append(stage.name)
    return Vocabulary(
        stages={name: Choice(stage.summary, stage.options_schema) for name, stage in registry.stages.items()},
        engines={name: Choice(engine.summary, engine.options_schema) for name, engine in registry.engines.items()},
        characters={id: _description(path) for id, path in registry.characters.items()},
        scales={
            name: f"{scale.pairs:,} pairs, {scale.reflections:,} reflections, "
            f"{scale.interactions:,} conversations of {scale.turns} turns"
            for name, scale in registry.scales.items()
        },
        templates={name: f"prompt template of {', '.join(users[name])}" for name in registry.templates},
        specs=[f"builtin:{name}" for name in builtin_specs()],
        presets={name: _told(path) for name, path in shipped_presets().items()},
        arms={name: _told(path) for name, path in shipped_arms().items()},
    )


def _description(path: Path) -> str:
    """A character's own, empty where its file is not sound: that is for `charrun characters` to tell."""
    from charrun.spec import load_character

    try:
        return load_character(path).description
    except SpecError:
        return ""


def _told(path: Path) -> str:
    return str(load_yaml(path).data["description"])


def _stage_text(registry: Registry, name: str) -> str:
    if name not in registry.stages:
        raise UsageProblem(f"no stage is called {name!r}", suggest(name, registry.stages, "stages"))
    return _dumped(options_schema(name, registry.stages[name].options_schema))


def _dumped(schema: Any) -> str:
    """JSON whose lists and mappings stand in one line where they fit, so that a change to it is read with ease."""
    try:
        return _lines(schema, "") + "\n"
    except (TypeError, ValueError) as error:
        raise PluginError(f"an options schema is not JSON: {error}") from None


def _lines(value: Any, indent: str) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not value or not isinstance(value, dict | list) or len(indent) + len(text) <= _WIDTH:
        return text
    within = indent + "  "
    if isinstance(value, list):
        return "[\n" + ",\n".join(within + _lines(item, within) for item in value) + f"\n{indent}]"
    keys = ((json.dumps(key, ensure_ascii=False), item) for key, item in value.items())
    return "{\n" + ",\n".join(f"{within}{key}: {_lines(item, within)}" for key, item in keys) + f"\n{indent}}}"


def _write(path: Path, text: str) -> None:
    from charrun.store.files import write_atomic

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {path}: {error.strerror or error}") from error
    click.echo(f"wrote {path}", err=True)


def _compare(path: Path, text: str, plugins: bool) -> int:
    """0 if the file holds the text, else 1 with a word about what to do."""
    command = f"charrun schema{'' if plugins else ' --no-plugins'} -o {path}"
    try:
        found = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        click.echo(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}; run: {command}", err=True)
        return 1
    if found != text:
        click.echo(f"{path} is not what this charrun and its plugins write; run: {command}", err=True)
        return 1
    return 0
