"""`charrun characters`: the characters that a spec may name, and the traits of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charrun.commands.loading import open_registry
from charrun.commands.options import json_option, no_plugins_option
from charrun.commands.tables import paragraph, wrapped_table
from charrun.commands.words import character_names
from charrun.errors import SpecError, UsageProblem

if TYPE_CHECKING:
    from charrun.plugin_manager import Registry
    from charrun.spec import Character


@click.command()
@click.argument("name", required=False, shell_complete=character_names)
@json_option
@no_plugins_option
def characters(name: str | None, as_json: bool, plugins: bool) -> None:
    """List the characters, or the traits of one.

    NAME is a character that a plugin brings along, or a file that ends in .yaml.
    """
    registry = open_registry(plugins)
    if name is not None:
        _one(name, registry, as_json)
        return
    found, broken = _all(registry)
    if as_json:
        rows = [{"id": id, "name": one.name, "description": one.description} for id, one in found.items()]
        told = [{**row, "origin": registry.origins["character", row["id"]]} for row in rows]
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        table = [("character", "description"), *((id, one.description) for id, one in found.items())]
        click.echo("\n".join(wrapped_table(table, (1,))))
        click.echo("\n`charrun characters NAME` shows a character's traits.")
    if broken:
        raise SpecError([problem for error in broken for problem in error.problems])


def _all(registry: Registry) -> tuple[dict[str, Character], list[SpecError]]:
    """The characters by id, and what is wrong with those that cannot be read."""
    from charrun.spec import load_character

    found: dict[str, Character] = {}
    broken = []
    for id, path in registry.characters.items():
        try:
            found[id] = load_character(path)
        except SpecError as error:
            broken.append(error)
    return found, broken


def _one(name: str, registry: Registry, as_json: bool) -> None:
    from charrun.spec import load_character
    from charrun.spec.words import suggest

    if name in registry.characters:
        path, told, origin = registry.characters[name], "", registry.origins["character", name]
    elif name.endswith((".yaml", ".yml")):
        path, told, origin = Path(name), name, "a file"
    else:
        hint = suggest(name, registry.characters, "characters")
        raise UsageProblem(f"no character is called {name!r}", f"{hint} (a file's name ends in .yaml)")
    character = load_character(path, told)
    if as_json:
        click.echo(json.dumps(_facts(character, path, origin), indent=2, ensure_ascii=False))
        return
    questions = sum(len(trait.questions) for trait in character.traits)
    click.echo(paragraph(f"{character.id}: {character.description}"))
    facts = [
        ("speaks as", character.name),
        ("traits", f"{len(character.traits)}, with {questions} questions"),
        *((label, text) for label, text in (("licence", character.licence), ("source", character.source)) if text),
        ("file", str(path)),
        ("registered by", origin),
    ]
    click.echo("\n" + "\n".join(wrapped_table(facts, (1,))))
    rows = [(trait.trait, str(len(trait.questions))) for trait in character.traits]
    click.echo("\n" + "\n".join(wrapped_table([("trait", "questions"), *rows], (0,))))


def _facts(character: Character, path: Path, origin: str) -> dict[str, Any]:
    return {
        "id": character.id,
        "name": character.name,
        "description": character.description,
        "licence": character.licence or None,
        "source": character.source or None,
        "origin": origin,
        "file": str(path),
        "traits": [{"trait": trait.trait, "questions": list(trait.questions)} for trait in character.traits],
    }
