"""`charrun stages`: the stages that a spec may use, and the options of one."""

from __future__ import annotations

import json
from typing import Any

import click

from charrun.commands.loading import open_registry
from charrun.commands.options import json_option, no_plugins_option
from charrun.commands.tables import default_words, paragraph, value_words, wrapped_table
from charrun.commands.words import stage_names
from charrun.errors import UsageProblem
from charrun.plugin_manager import Registry
from charrun.stage import Stage


@click.command()
@click.argument("name", required=False, shell_complete=stage_names)
@json_option
@no_plugins_option
def stages(name: str | None, as_json: bool, plugins: bool) -> None:
    """List the stages, or the options of one."""
    registry = open_registry(plugins)
    if name is not None and name not in registry.stages:
        from charrun.spec.words import suggest

        raise UsageProblem(f"no stage is called {name!r}", suggest(name, registry.stages, "stages"))
    chosen = list(registry.stages.values()) if name is None else [registry.stages[name]]
    if as_json:
        told = [_facts(stage, registry) for stage in chosen]
        click.echo(json.dumps(told if name is None else told[0], indent=2, ensure_ascii=False, default=dict))
    elif name is None:
        rows = [(stage.name, stage.summary, _lines(stage.consumes), _lines(stage.produces)) for stage in chosen]
        click.echo("\n".join(wrapped_table([("stage", "what it does", "consumes", "produces"), *rows], (1,))))
        click.echo("\n`charrun stages NAME` shows a stage's options.")
    else:
        _show(chosen[0], registry)


def _facts(stage: type[Stage], registry: Registry) -> dict[str, Any]:
    return {
        "name": stage.name,
        "summary": stage.summary,
        "origin": registry.origins["stage", stage.name],
        "consumes": stage.consumes,
        "instead": dict(stage.instead),
        "optional": stage.optional,
        "produces": stage.produces,
        "roles": stage.roles,
        "trains": stage.trains,
        "templates": {name: str(path) for name, path in stage.templates.items()},
        "cache_version": stage.cache_version,
        "options_schema": stage.options_schema,
    }


def _show(stage: type[Stage], registry: Registry) -> None:
    click.echo(paragraph(f"{stage.name}: {stage.summary}"))
    kinds = {**dict.fromkeys(stage.measures, " (measures)"), **dict.fromkeys(stage.trains, " (trained)")}
    roles = [role + kinds.get(role, "") for role in stage.roles]
    facts = [
        ("consumes", _list(stage.consumes)),
        ("unless given", _list(tuple(f"{kind}: option {option}" for kind, option in stage.instead.items()))),
        ("uses if there", _list(stage.optional)),
        ("produces", _list(stage.produces)),
        ("models", _list(roles)),
        ("templates", _list(tuple(stage.templates))),
        ("registered by", registry.origins["stage", stage.name]),
    ]
    click.echo("\n" + "\n".join(wrapped_table([fact for fact in facts if fact[1] != "-"], (1,))))
    properties = stage.options_schema.get("properties", {})
    if not properties:
        click.echo("\nIt has no options.")
        return
    required = stage.options_schema.get("required", ())
    rows = [
        (name, value_words(schema), default_words(schema, name in required), schema.get("description", ""))
        for name, schema in properties.items()
    ]
    click.echo("\n" + "\n".join(wrapped_table([("option", "value", "default", "what it does"), *rows], (1, 2, 3))))


def _lines(kinds: tuple[str, ...]) -> str:
    return "\n".join(kinds) or "-"


def _list(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names) or "-"
