"""`charrun gc`: what neither a run nor a training needs any more, looked for and deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from charrun.errors import CharrunError
from charrun.pipeline.defects import asking
from charrun.pipeline.engine_garbage import Alone, EngineView, Unneeded, engines_of, sorted_out
from charrun.plugin_manager import Registry
from charrun.store.garbage import Garbage, StoreSurvey, delete, locked, survey
from charrun.store.replay import RUNNING
from charrun.store.runs import find_runs

_USED_NOW = "it is needed by now"
_AT_ONCE = 200
"""Store folders whose locks are held at once: each takes an open file."""


@dataclass(frozen=True)
class Survey:
    """What is garbage, and what looks like it and is not.

    Attributes:
        runs_dir: The folder of runs, absolute.
        store: What its runs refer to, and what of the store nothing does.
        engines: The engines of its runs.
        unneeded: Checkpoints that nobody needs.
        alone: Checkpoints that nothing here names and that are left alone.
        running: Runs that go on, and may come to use what nothing refers to yet.
    """

    runs_dir: Path
    store: StoreSurvey
    engines: tuple[EngineView, ...]
    unneeded: tuple[Unneeded, ...]
    alone: tuple[Alone, ...]
    running: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of what would be deleted, as far as they are known."""
        return sum(each.size for each in self.store.garbage) + sum(each.checkpoint.size or 0 for each in self.unneeded)

    @property
    def count(self) -> int:
        """Files, folders and checkpoints that would be deleted."""
        return len(self.store.garbage) + len(self.unneeded)

    def before(self, time: float) -> Survey:
        """Only what has not changed since a time, in seconds since 1970."""
        garbage = tuple(each for each in self.store.garbage if each.changed <= time)
        unneeded = tuple(each for each in self.unneeded if each.checkpoint.created <= time)
        return replace(self, store=replace(self.store, garbage=garbage), unneeded=unneeded)


@dataclass
class Collected:
    """What a collection has done.

    Attributes:
        deleted: What is gone: paths of files, folders and checkpoints.
        size: Bytes of it.
        left: What was left alone after all, with the reason.
        failed: What could not be deleted, with the reason.
    """

    deleted: list[str] = field(default_factory=list)
    size: int = 0
    left: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)


def look(runs_dir: Path, registry: Registry) -> Survey:
    """Look at a folder of runs and at its engines; nothing is locked, written, started or paid for.

    Raises:
        EnvironmentProblem: A journal can't be read, so that it is not known what its run refers to.
    """
    runs_dir = runs_dir.absolute()
    store, runs = survey(runs_dir), find_runs(runs_dir).runs
    engines = tuple(engines_of(runs, runs_dir, registry))
    unneeded, alone = sorted_out(store, engines)
    running = tuple(run.id for run in runs if run.status == RUNNING)
    return Survey(runs_dir, store, engines, tuple(unneeded), tuple(alone), running)


def collect(shown: Survey) -> Collected:
    """Delete what was shown and is still garbage once the locks of all folders in it are held.

    Raises:
        EnvironmentProblem: A journal can't be read any more.
    """
    done = Collected()
    folders = {each.folder for each in shown.store.garbage} | {each.folder for each in shown.unneeded}
    known = sorted(folder for folder in folders if folder)
    for start in range(0, max(1, len(known)), _AT_ONCE):
        batch = {*known[start : start + _AT_ONCE], *([None] if start == 0 else [])}
        garbage = [each for each in shown.store.garbage if each.folder in batch]
        unneeded = [each for each in shown.unneeded if each.folder in batch]
        _collect(shown, garbage, unneeded, done)
    return done


def _collect(shown: Survey, garbage: Sequence[Garbage], unneeded: Sequence[Unneeded], done: Collected) -> None:
    folders = {each.folder for each in garbage} | {each.folder for each in unneeded}
    with locked(filter(None, folders)) as reasons:
        store = survey(shown.runs_dir)
        needless = {each.checkpoint.path for each in sorted_out(store, shown.engines)[0]}
        for checkpoint in unneeded:
            _discard(checkpoint, checkpoint.checkpoint.path in needless, reasons, done)
        failed = dict(done.failed)
        recorded = {each.folder for each in unneeded if each.checkpoint.path in failed}
        waste = {each.path for each in store.garbage}
        for each in garbage:
            if each.kind == "folder" and each.path in recorded:
                done.left.append((str(each.path), "it records a checkpoint that could not be deleted"))
            else:
                _delete(each, each.path in waste, reasons, shown.runs_dir / "store", done)


def _discard(each: Unneeded, needless: bool, reasons: Mapping[Path, str], done: Collected) -> None:
    path, engine = each.checkpoint.path, each.at.engine
    if each.folder in reasons or not needless:
        done.left.append((path, reasons.get(each.folder or Path(), _USED_NOW)))
    elif engine is not None:
        try:
            with asking(type(engine)):
                engine.discard([path], each.at.request)
        except CharrunError as error:
            done.failed.append((path, error.message))
        else:
            done.deleted.append(path)
            done.size += each.checkpoint.size or 0


def _delete(garbage: Garbage, needless: bool, reasons: Mapping[Path, str], store: Path, done: Collected) -> None:
    path = str(garbage.path)
    if garbage.folder in reasons or (not needless and garbage.path.exists()):
        done.left.append((path, reasons.get(garbage.folder or Path(), _USED_NOW)))
    elif needless:
        try:
            delete(garbage, store)
        except OSError as error:
            done.failed.append((path, error.strerror or str(error)))
        else:
            done.deleted.append(path)
            done.size += garbage.size
