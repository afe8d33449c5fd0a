"""What the store and earlier runs of a spec tell about work that is to be done: what is new about it, or what broke.

All is read once, as far as it is asked for, and nothing is written.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrun.errors import CharrunError
from charrun.pipeline.identity import numbers
from charrun.pipeline.reasons import SCALE, Now, differences, distance, other_rows, other_scale
from charrun.plugin_loading import OWN
from charrun.store.canonical import digest
from charrun.store.cells import StageView
from charrun.store.files import read_json
from charrun.store.items import ANSWERS, RECORDS
from charrun.store.replay import FAILED, RUNNING
from charrun.store.runs import read_run
from charrun.store.tickets import Ticket, read_ticket, tickets
from charrun.store.training import TRAINING, recorded

if TYPE_CHECKING:
    from charrun.pipeline.shared import Shared
    from charrun.pipeline.stage_run import StageRun

_FOLDERS = 40
"""Folders of a stage that are compared, the newest first, where no earlier run of the spec tells which it was."""
_RUNS = 8
"""Earlier runs of the spec that are read, the newest first."""
_LONGEST = 80


class History:
    """The work that is there already, to compare with."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._store = shared.store
        self._home = shared.runs_dir / shared.spec.name
        self._described = cache(lambda folder: read_json(folder / "stage.json") or {})
        self._told: dict[tuple[str, str], list[str]] = {}

    # -- another fingerprint --------------------------------------------------------------------------------------

    def changes(self, run: StageRun, described: Mapping[str, Any]) -> list[str]:
        """What is different from the nearest earlier work, in the words of a person; nothing where there is none.

        That is what the latest run of this spec used for this stage of this cell; else, of the stage's newest folders,
        the one with the fewest differences.

        Args:
            run: The stage.
            described: What its fingerprint is made of, as far as it is known.
        """
        used = self._used.get(run.place)
        if used is not None and used.folder and (found := self._described(used.folder)):
            return list(differences(found, described, self._now(run)))
        key = (run.item.uses, digest(described))
        if key not in self._told:
            self._told[key] = self._nearest(run, described)
        return self._told[key]

    def _nearest(self, run: StageRun, described: Mapping[str, Any]) -> list[str]:
        found = [self._described(folder) for folder in self._folders.get(run.item.uses, ())[:_FOLDERS]]
        best = min((each for each in found if each), key=lambda each: distance(each, described), default=None)
        return list(differences(best, described, self._now(run, same_cell=False))) if best else []

    def _now(self, run: StageRun, *, same_cell: bool = True) -> Now:
        code = self._shared.registry.code.get(run.item.uses, "")
        owner = self._shared.registry.origins.get(("stage", run.item.uses), OWN)
        return Now(
            character=run.cell.character.id if same_cell else "",
            file=next((file.path.name for file in self._shared.spec.plugins if file.sha256 == code), ""),
            updated="" if code else "charrun" if owner == OWN else owner.partition(" ")[0],
        )

    # -- the same fingerprint -------------------------------------------------------------------------------------

    def unfinished(self, run: StageRun) -> tuple[str, tuple[str, ...]]:
        """Why work of this very fingerprint is not done, and what is new about it; empty where its folder is not there.

        It was damaged, is wanted for another scale or from other rows, failed, or was interrupted.
        """
        if not run.fingerprint or not run.folder.is_dir():
            return "", ()
        if run.ticket.exists():
            ticket = read_ticket(run.ticket)
            damage = ticket.damage(run.folder) if ticket else [str(run.ticket)]
            names = ", ".join(str(Path(path).relative_to(run.folder)) for path in damage)
            return f"its outputs are damaged: {names}" if names else "it produces further kinds now", ()
        changes = _nearest_ticket(run)
        told, between = (changes[0], ", ") if changes else self._end(run)
        left = ", ".join(_left(run.folder, self._store))
        return f"{told}{between}{left}" if left else told, changes

    def _end(self, run: StageRun) -> tuple[str, str]:
        """How the latest try to make it came to its end, and what to put between that and what is left of it."""
        view = self._used.get(run.place)
        if view is not None and view.folder == run.folder and view.state == RUNNING:
            return "being made now", ": "
        if view is None or view.folder != run.folder or view.state != FAILED:
            return "interrupted", ": "
        text = view.error.partition(": ")[2] or view.error
        return f"failed: {text if len(text) <= _LONGEST else text[: _LONGEST - 1] + '…'}", "; "

    # -- reading --------------------------------------------------------------------------------------------------

    @cached_property
    def _folders(self) -> Mapping[str, list[Path]]:
        """Store folders by stage, the newest first."""
        found: defaultdict[str, list[tuple[float, Path]]] = defaultdict(list)
        for path in self._store.iterdir() if self._store.is_dir() else ():
            try:
                found[path.name.rpartition("-")[0]].append(((path / "stage.json").stat().st_mtime, path))
            except OSError:
                continue
        return {uses: [path for _, path in sorted(folders, reverse=True)] for uses, folders in found.items()}

    @cached_property
    def _used(self) -> Mapping[tuple[str, str], StageView]:
        """What the latest run of this spec's name used, by cell and stage item."""
        used: dict[tuple[str, str], StageView] = {}
        folders = [path for path in self._home.iterdir() if path.name.isdigit()] if self._home.is_dir() else []
        for folder in sorted(folders, key=lambda path: int(path.name))[-_RUNS:]:
            try:
                cells = read_run(folder).cells
            except (CharrunError, OSError):
                continue
            used |= {(cell.name, stage.id): stage for cell in cells for stage in cell.stages if stage.folder}
        return used


def _nearest_ticket(run: StageRun) -> tuple[str, ...]:
    """What is new about work that the same folder holds for another scale or from other rows."""
    told = [_compared(ticket, run) for path in tickets(run.folder) if (ticket := read_ticket(path))]
    # Other rows at the same scale are nearer than another scale, and fewer other numbers than more.
    return min(filter(None, told), key=lambda each: (each[0].startswith(SCALE), len(each[0])), default=())


def _compared(ticket: Ticket, run: StageRun) -> tuple[str, ...]:
    made = ticket.made
    if not made:
        return ()
    now = numbers(run.cell.scale)
    return tuple(other_scale(made["scale"], now)) or tuple(other_rows(made["inputs"], run.consumed))


def _left(folder: Path, store: Path) -> Iterator[str]:
    """What of unfinished work is kept."""
    stored = sum(_lines(folder / name) for name in RECORDS)
    mark = f'"work":"{folder.name}/'.encode()
    stored += sum(_lines(shared / name, mark) for shared in store.glob(f"{ANSWERS}*") for name in RECORDS)
    if stored:
        yield f"{stored:,} {'responses are' if stored > 1 else 'response is'} in the store"
    kept = [each for _, each in recorded(folder / TRAINING) if not each.expires or each.expires > time.time()]
    if kept and not kept[-1].is_final:
        yield f"{kept[-1].next_step:,} optimiser step{'s are' if kept[-1].next_step > 1 else ' is'} saved"


def _lines(path: Path, mark: bytes = b"") -> int:
    try:
        with path.open("rb") as file:
            return sum(mark in line for line in file)
    except OSError:
        return 0
