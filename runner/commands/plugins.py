"""`charrun plugins`: what is installed beside charrun's own plugins, read from metadata alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from charrun import __version__
from charrun.commands.options import json_option
from charrun.commands.tables import paragraph, wrapped_table
from charrun.errors import PluginError
from charrun.plugin_manager import BUILT_IN, load_registry
from charrun.plugin_metadata import COMMANDS, LOAD_VARIABLE, PLUGINS, Offer, offers, wanted


@dataclass(frozen=True)
class _State:
    """What became of one entry point: whether it does its work, and the reason or what it registers."""

    works: bool
    text: str


@click.command()
@click.option("--check", is_flag=True, help="Import them, and say which fail; exit code 4 if any does.")
@json_option
def plugins(check: bool, as_json: bool) -> None:
    """List the plugins; nothing of them is imported."""
    found = [*offers(PLUGINS), *offers(COMMANDS)]
    chosen = wanted(offers(PLUGINS))[0]
    states = _check(found, chosen) if check else {}
    if as_json:
        rows = [_facts(offer, offer.group == COMMANDS or offer in chosen, states.get(offer)) for offer in found]
        built_in = {"version": __version__, "modules": list(BUILT_IN)}
        click.echo(json.dumps({"built_in": built_in, "installed": rows}, indent=2, ensure_ascii=False))
    else:
        names = ", ".join(module.rpartition(".")[2] for module in BUILT_IN)
        click.echo(paragraph(f"charrun {__version__} has built in: {names}"))
        click.echo("\n" + ("\n".join(_table(found, chosen, states)) if found else "No others are installed."))
    if broken := [offer for offer, state in states.items() if not state.works]:
        count = f"{len(broken)} of {len(found)} entry points" if len(found) > 1 else "the entry point"
        removals = ", ".join(sorted({f"pip uninstall {offer.distribution}" for offer in broken}))
        raise PluginError(f"{count} cannot be used", f"{removals}; {LOAD_VARIABLE}= and --no-plugins load none")


def _check(found: Sequence[Offer], chosen: Sequence[Offer]) -> dict[Offer, _State]:
    registry = load_registry()
    registered = {plugin.name: plugin for plugin in registry.plugins}
    states = {}
    for offer in found:
        if offer.group == COMMANDS:
            states[offer] = _check_command(offer, found)
        elif offer.name in registry.left_out:
            states[offer] = _State(False, registry.left_out[offer.name])
        elif offer in chosen:
            plugin = registered[offer.name]
            named = [f"{kind} {name}" for kind, name, _ in plugin.items()]
            states[offer] = _State(True, ", ".join([*named, *plugin.observers]) or "nothing")
    return states


def _check_command(offer: Offer, found: Sequence[Offer]) -> _State:
    from charrun.commands.further import load_command

    try:
        load_command(offer.name, [other for other in found if (other.group, other.name) == (COMMANDS, offer.name)])
    except PluginError as error:
        return _State(False, error.message)
    return _State(True, f"command {offer.name}")


def _table(found: Sequence[Offer], chosen: Sequence[Offer], states: dict[Offer, _State]) -> list[str]:
    kinds = {PLUGINS: "plugin", COMMANDS: "command"}
    rows = [("name", "kind", "of", "module", "check" if states else "installed in")]
    for offer in found:
        state = states.get(offer)
        last = offer.location
        if offer.group == PLUGINS and offer not in chosen:
            last = f"left out by {LOAD_VARIABLE}"
        elif state is not None:
            last = f"registers {state.text}" if state.works else f"fails: {state.text}"
        rows.append((offer.name, kinds[offer.group], offer.owner, offer.value, last))
    return wrapped_table(rows, (4,))


def _facts(offer: Offer, chosen: bool, state: _State | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": offer.name,
        "group": offer.group,
        "value": offer.value,
        "distribution": offer.distribution,
        "version": offer.version,
        "location": offer.location,
        "chosen": chosen,
    }
    if state is not None:
        facts |= {"works": state.works, "reason" if not state.works else "registers": state.text}
    return facts
