"""Commands of plugins: entry points of the group `charrun.commands`, listed from metadata, imported when they run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from charrun.errors import PluginError
from charrun.plugin_metadata import COMMANDS, Offer, offers


def further_commands() -> list[Offer]:
    """The commands that installed plugins offer, by name."""
    return offers(COMMANDS)


def load_command(name: str, found: Sequence[Offer]) -> click.Command:
    """Import the command that a plugin offers under a name.

    Args:
        name: The command's name.
        found: What is offered under it, at least one.

    Raises:
        PluginError: It cannot be imported or is no click command, or two plugins offer it.
    """
    from charrun.plugin_loading import strange_code

    if len(found) > 1:
        owners = " and by ".join(offer.owner for offer in found)
        removals = " or ".join(f"pip uninstall {offer.distribution}" for offer in found)
        raise PluginError(f"the command {name!r} is registered by {owners}", f"keep one of them: {removals}")
    (offer,) = found
    advice = f"pip uninstall {offer.distribution}, or update it"
    try:
        with strange_code():
            loaded: Any = offer.point.load()
    except PluginError as error:
        raise PluginError(f"the command {name!r} of {offer.owner} cannot be loaded: {error.message}", advice) from error
    if not isinstance(loaded, click.Command):
        what = f"{offer.value} is a {type(loaded).__name__}, not a click command"
        raise PluginError(f"the command {name!r} of {offer.owner} cannot be loaded: {what}", advice)
    return loaded
