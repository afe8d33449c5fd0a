"""`charrun show`: the spec that is run, in one piece, and where each of its values comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import click

from charrun.commands.loading import load
from charrun.commands.options import json_option, plugin_options, set_option
from charrun.commands.words import spec_files
from charrun.errors import render_problems
from charrun.spec import read_spec
from charrun.spec.document import KeyPath
from charrun.spec.emit import emit
from charrun.spec.shown import as_written
from charrun.spec.shown import origins as origins_of


@click.command()
@click.argument("spec", type=click.Path(path_type=str), shell_complete=spec_files)
@click.option("--origins", is_flag=True, help="Say of each value where it comes from.")
@set_option
@plugin_options
@json_option
def show(spec: str, origins: bool, sets: Sequence[str], plugins: bool, trust: bool, as_json: bool) -> None:
    """Print SPEC as it is run, and where its values come from.

    Bases, --set and variables are filled in, and defaults added. What is printed is a spec itself: the same one, if it
    is kept in the same folder.
    """
    resolved = load(spec, sets, plugins=plugins, trust=trust).spec
    read = read_spec(spec, sets)
    data, origin = as_written(resolved, read), origins_of(resolved, read)
    if as_json:
        told = {".".join(map(str, path)): origin(path) for path in _leaves(data, ())}
        document = {
            "spec": data,
            "cells": [cell.name for cell in resolved.cells],
            **({"origins": told} if origins else {}),
        }
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        click.echo(emit(data, origin if origins else None), nl=False)
    if resolved.warnings:
        click.echo(render_problems(resolved.warnings), err=True)


def _leaves(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    """The paths of all scalars, and of what is empty."""
    if isinstance(value, dict | list) and value:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(item, (*path, key))
    else:
        yield path
