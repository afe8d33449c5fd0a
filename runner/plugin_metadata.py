"""What installed distributions say that they offer: entry points, read from metadata without importing anything."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions

PLUGINS = "charrun"
COMMANDS = "charrun.commands"
LOAD_VARIABLE = "CHARRUN_LOAD_PLUGINS"


@dataclass(frozen=True)
class Offer:
    """One entry point of an installed distribution.

    Attributes:
        group: `charrun` for a plugin, `charrun.commands` for a command.
        name: Its name within the group.
        value: The module or attribute that it names.
        distribution: Name of the distribution.
        version: Version of the distribution; empty where its metadata has none.
        location: Folder that it is installed in.
        point: For importing it.
    """

    group: str
    name: str
    value: str
    distribution: str
    version: str
    location: str
    point: EntryPoint

    @property
    def owner(self) -> str:
        """Name and version of the distribution."""
        return f"{self.distribution} {self.version}".rstrip()


def offers(group: str) -> list[Offer]:
    """Every entry point of a group, by name; a distribution that is found twice on the path counts once."""
    found = [offer for distribution in _distributions() for offer in _offers_of(distribution, group)]
    return sorted(found, key=lambda offer: (offer.name, offer.distribution))


def wanted(all_offers: Sequence[Offer]) -> tuple[list[Offer], list[str]]:
    """What `CHARRUN_LOAD_PLUGINS` lets through (without it: everything), and which of its names fit nothing.

    The variable lists distributions or entry points, separated by commas; empty, it lets nothing through.
    """
    written = os.environ.get(LOAD_VARIABLE)
    if written is None:
        return list(all_offers), []
    names = {_normal(name): name.strip() for name in written.split(",") if name.strip()}
    kept = [offer for offer in all_offers if {_normal(offer.name), _normal(offer.distribution)} & names.keys()]
    matched = {_normal(name) for offer in kept for name in (offer.name, offer.distribution)}
    return kept, sorted(name for normal, name in names.items() if normal not in matched)


def _distributions() -> Iterator[Distribution]:
    seen = set()
    for distribution in distributions():
        name = _name(distribution)
        if name and _normal(name) not in seen:
            seen.add(_normal(name))
            yield distribution


def _name(distribution: Distribution) -> str:
    """The name by the folder's own name, which costs no reading; by the metadata where there is no folder."""
    stem = os.path.basename(_folder(distribution)).rpartition(".")[0].split("-")[0]
    return stem or str(distribution.metadata["Name"] or "")


def _folder(distribution: Distribution) -> str:
    return str(getattr(distribution, "_path", ""))


def _offers_of(distribution: Distribution, group: str) -> Iterator[Offer]:
    try:
        points = [point for point in distribution.entry_points if point.group == group]
    except Exception:  # a stranger's entry_points.txt that cannot be parsed offers nothing
        return
    for point in points:
        metadata = distribution.metadata
        yield Offer(
            group,
            point.name,
            point.value,
            str(metadata["Name"] or _name(distribution)),
            str(metadata["Version"] or ""),
            os.path.dirname(_folder(distribution)),
            point,
        )


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
