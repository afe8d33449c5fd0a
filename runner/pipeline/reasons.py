"""Why a stage is to be done: what of it differs from the nearest work of its kind in the store."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrun.errors import CharrunError
from charrun.store.files import read_json
from charrun.store.items import ITEMS
from charrun.store.replay import mapping_of
from charrun.store.runs import read_run
from charrun.store.tickets import DONE, read_ticket

if TYPE_CHECKING:
    from charrun.pipeline.shared import Shared
    from charrun.pipeline.stage_run import StageRun

_NEAREST = 40
"""Folders of a stage that are compared, the newest first, where no earlier run of the spec tells which it was."""
_LONGEST = 48


class History:
    """What the store and the earlier runs of a spec hold, read once and only as far as it is asked for."""

    def __init__(self, shared: Shared) -> None:
        self._store = shared.store
        self._home = shared.runs_dir / shared.spec.name
        self._described: dict[Path, Mapping[str, Any]] = {}

    def changes(self, run: StageRun, described: Mapping[str, Any]) -> list[str]:
        """What is different from the nearest earlier work, in the words of a person; nothing where there is none."""
        used = self._used.get((run.cell.name, run.item.id))
        if used is not None and (found := self._read(self._store / used)):
            return list(differences(found, described))
        best: list[str] | None = None
        for folder in self._folders.get(run.item.uses, ())[:_NEAREST]:
            found = self._read(folder)
            told = list(differences(found, described)) if found else None
            if told is not None and (best is None or len(told) < len(best)):
                best = told
        return best or []

    def knows(self, run: StageRun) -> bool:
        """Whether the store holds any work of this stage."""
        return bool(self._folders.get(run.item.uses))

    @cached_property
    def _folders(self) -> Mapping[str, list[Path]]:
        """Store folders by stage, the newest first."""
        found: defaultdict[str, list[tuple[float, Path]]] = defaultdict(list)
        paths = self._store.iterdir() if self._store.is_dir() else ()
        for path in paths:
            if (path / "stage.json").is_file():
                found[path.name.rpartition("-")[0]].append(((path / "stage.json").stat().st_mtime, path))
        return {uses: [path for _, path in sorted(folders, reverse=True)] for uses, folders in found.items()}

    @cached_property
    def _used(self) -> Mapping[tuple[str, str], str]:
        """The folder that the latest run of this spec's name used, by cell and stage item."""
        used: dict[tuple[str, str], str] = {}
        numbers = [path for path in self._home.iterdir() if path.name.isdigit()] if self._home.is_dir() else []
        for folder in sorted(numbers, key=lambda path: int(path.name)):
            try:
                cells = read_run(folder).cells
            except (CharrunError, OSError):
                continue
            used |= {
                (cell.name, stage.id): stage.folder.name for cell in cells for stage in cell.stages if stage.folder
            }
        return used

    def _read(self, folder: Path) -> Mapping[str, Any]:
        if folder not in self._described:
            self._described[folder] = read_json(folder / "stage.json") or {}
        return self._described[folder]


def unfinished(run: StageRun) -> str:
    """Why work of this very fingerprint is not done, where its folder is there; empty where it is not."""
    if not run.fingerprint or not run.folder.is_dir():
        return ""
    ticket = read_ticket(run.ticket)
    if ticket is not None and (damage := ticket.damage(run.folder)):
        return f"damaged: {', '.join(Path(path).name for path in damage)}"
    if run.ticket.exists() and ticket is None:
        return f"damaged: {run.ticket.name}"
    stored = _lines(run.folder / ITEMS)
    done = any((run.folder / DONE).glob("*.json"))
    what = "more rows" if done else "not finished"
    return f"{what}: {stored:,} responses are in the store" if stored else f"{what}"


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What changed from one description to another; `inputs` only where both have them."""
    yield from _mapping("option {}", mapping_of(before, "options"), mapping_of(now, "options"))
    for name, (old, new) in _changed(before, now, "models"):
        yield _model(name, old, new)
    for name, (old, new) in _changed(before, now, "character"):
        yield f"the character's name: {_short(old)} -> {_short(new)}" if name == "name" else f"other {name}"
    for name, _ in _changed(before, now, "templates"):
        yield f"template {name}"
    if before.get("seed") != now.get("seed"):
        yield f"seed: {before.get('seed')} -> {now.get('seed')}"
    if before.get("code") != now.get("code"):
        yield "the code of its file"
    if before.get("further") != now.get("further"):
        yield "what it reads beside its inputs"
    if before.get("cache_version") != now.get("cache_version"):
        yield f"cache_version: {before.get('cache_version')} -> {now.get('cache_version')}"
    if before.get("fingerprint_version") != now.get("fingerprint_version"):
        yield "made by a charrun that made fingerprints in another way"
    if "inputs" in before and "inputs" in now:
        kinds = dict.fromkeys(name.split(" ")[0] for name, _ in _changed(before, now, "inputs"))
        if kinds:
            yield f"other {', '.join(kinds)}"


def _changed(before: Mapping[str, Any], now: Mapping[str, Any], field: str) -> Iterator[tuple[str, tuple[Any, Any]]]:
    old, new = mapping_of(before, field), mapping_of(now, field)
    for name in dict.fromkeys([*new, *old]):
        if old.get(name) != new.get(name):
            yield name, (old.get(name), new.get(name))


def _mapping(what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys([*new, *old]):
        if name not in old:
            yield f"{what.format(name)} is new: {_short(new[name])}"
        elif name not in new:
            yield f"{what.format(name)} is gone"
        elif old[name] != new[name]:
            yield f"{what.format(name)}: {_short(old[name])} -> {_short(new[name])}"


def _model(role: str, old: Any, new: Any) -> str:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return f"the {role}"
    if old.get("model") != new.get("model"):
        before, now = (str(each.get("model")).partition("@")[0] for each in (old, new))
        return f"the {role}: {before} -> {now}" if before != now else f"the files of the {role} {now}"
    return f"chat options of the {role}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return 0
