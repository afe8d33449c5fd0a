"""Checkpoints that no training needs any more, at the engines that a folder of runs has used.

A checkpoint is charrun's by its note, or by its name where it is a copy that was fetched. At a hosted service only such
count as unneeded as this store has a record of: others may belong to another folder of runs, and expire by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from charrun.errors import CharrunError
from charrun.pipeline.adapters import FINAL, INTERMEDIATE, KIND, copied_for
from charrun.pipeline.checkpoints import engine_options
from charrun.pipeline.defects import asking
from charrun.plugin_manager import Registry
from charrun.secrets import HIDDEN
from charrun.service.engine import Engine, EngineRequest, StoredCheckpoint
from charrun.store.canonical import canonical
from charrun.store.garbage import StoreSurvey
from charrun.store.items import RECORDS, USAGE
from charrun.store.runs import Run
from charrun.store.tickets import PUBLISHED, read_ticket, tickets
from charrun.store.training import REFERENCE, TRAINING, recorded

_PATH = re.compile(rb"tinker://[A-Za-z0-9:/._-]+")
_NOT_PUBLISHED = (*RECORDS, TRAINING, REFERENCE, USAGE)


@dataclass(frozen=True)
class EngineView:
    """An engine that a run used or may have used, and the checkpoints that it keeps.

    Attributes:
        name: Its name.
        engine: The engine; None where it cannot be had.
        request: How it was asked.
        checkpoints: All of them, other programs' included.
        unseen: Why it was not looked at; empty where it was.
    """

    name: str
    engine: Engine | None
    request: EngineRequest
    checkpoints: tuple[StoredCheckpoint, ...] = ()
    unseen: str = ""


@dataclass(frozen=True)
class Unneeded:
    """A checkpoint that can be deleted.

    Attributes:
        checkpoint: Which.
        at: Where.
        why: Why nobody needs it.
        folder: The store folder that it was trained for, whose lock is taken first; None where there is none.
    """

    checkpoint: StoredCheckpoint
    at: EngineView
    why: str
    folder: Path | None


@dataclass(frozen=True)
class Alone:
    """A checkpoint of charrun's that nothing here names and that is left alone.

    Attributes:
        checkpoint: Which.
        at: Where.
        command: What a person may run; empty where it expires by itself.
    """

    checkpoint: StoredCheckpoint
    at: EngineView
    command: str = ""


def engines_of(runs: Iterable[Run], runs_dir: Path, registry: Registry) -> Iterator[EngineView]:
    """The engines of runs; those of this machine also where no run is left that used them.

    Args:
        runs: The runs.
        runs_dir: Their folder, absolute.
        registry: The plugins.
    """
    wanted = {(run.engine, canonical(engine_options(run))): engine_options(run) for run in runs}
    wanted |= {(name, "{}"): {} for name, engine in registry.engines.items() if not engine.hosted}
    seen: set[str] = set()
    for (name, _), options in sorted(wanted.items(), key=lambda item: item[0]):
        engine = registry.engines[name]() if name in registry.engines else None
        if not name or (engine is not None and not engine.hosted and name in seen):
            continue  # whatever its options, what it keeps lies in one folder
        seen.add(name)
        request = EngineRequest((), options, runs_dir / "engine", runs_dir / "engine.log")
        if engine is None:
            yield EngineView(name, None, request, unseen="it is not installed")
        elif HIDDEN in str(options):
            yield EngineView(name, None, request, unseen="its address held a secret, which is kept nowhere")
        else:
            yield _view(name, engine, request)


def _view(name: str, engine: Engine, request: EngineRequest) -> EngineView:
    try:
        with asking(type(engine)):
            return EngineView(name, engine, request, tuple(engine.stored(request)))
    except CharrunError as error:
        return EngineView(name, engine, request, unseen=error.message)


def sorted_out(found: StoreSurvey, engines: tuple[EngineView, ...]) -> tuple[list[Unneeded], list[Alone]]:
    """The checkpoints that nobody needs, and those that look like it and are left alone.

    Args:
        found: The store.
        engines: What was found at the engines.
    """
    if not any(at.checkpoints for at in engines):
        return [], []
    records = _Records(found)
    unneeded: list[Unneeded] = []
    alone: list[Alone] = []
    for at in engines:
        for checkpoint in at.checkpoints:
            path, kind = checkpoint.path, checkpoint.note.get(KIND)
            if kind == FINAL or path in records.published:
                if path not in records.named:
                    alone.append(Alone(checkpoint, at, _command(checkpoint)))
                continue
            if path in records.trained:
                folder, why = records.trained[path]
                unneeded += [Unneeded(checkpoint, at, why, folder)] if why else []
            elif kind == INTERMEDIATE or copied_for(path):
                if at.engine is None or at.engine.hosted:
                    alone.append(Alone(checkpoint, at))
                    continue
                name = copied_for(path) or checkpoint.note.get("folder", "")
                why = "a copy that was fetched" if copied_for(path) else "no training has recorded it"
                unneeded.append(Unneeded(checkpoint, at, why, records.folders.get(name)))
    return unneeded, alone


class _Records:
    """What the folders of a store say of checkpoints.

    Attributes:
        folders: The store folders by name.
        published: Paths that published rows name, also those of folders that nothing refers to.
        named: Of these the ones in folders that are kept, where --force has not replaced them, and final ones that a
            training has recorded.
        trained: By path of an intermediate checkpoint its store folder, and why nobody needs it; empty where a
            training may go on from it.
    """

    def __init__(self, found: StoreSurvey) -> None:
        gone = [each.path for each in found.garbage if each.kind == "folder"]
        self.folders = {folder.name: folder for folder in [*gone, *found.kept]}
        self.published: set[str] = set()
        self.named: set[str] = set()
        self.trained: dict[str, tuple[Path, str]] = {}
        for folder in self.folders.values():
            is_kept = folder in found.kept
            done = {
                out.path.name for each in map(read_ticket, tickets(folder)) if each for out in each.outputs.values()
            }
            for path in sorted(folder.glob("*.jsonl*")):
                name, aside, _ = path.name.partition(".aside-")
                if name == TRAINING:
                    self._add_training(path, folder, "" if is_kept else "no run refers to its store folder", aside)
                elif name not in _NOT_PUBLISHED:
                    with path.open("rb") as file:
                        paths = {match.decode() for line in file for match in _PATH.findall(line)}
                    self.published |= paths
                    replaced = PUBLISHED.fullmatch(path.name) and path.name not in done
                    self.named |= paths if is_kept and not replaced else set()

    def _add_training(self, path: Path, folder: Path, why: str, aside: str) -> None:
        saved = recorded(path)
        why = why or ("its work was set aside" if aside else "")
        ends: dict[str, int] = {}
        for name, each in saved:
            if each.is_final:
                ends[name] = max(ends.get(name, 0), each.next_step)
                self.named |= set() if why else {each.state, each.sampler}
        done = [ticket for ticket in map(read_ticket, tickets(folder)) if ticket and not ticket.damage(folder)]
        for name, each in saved:
            if not each.is_final:
                is_done = bool(done) and each.next_step <= ends.get(name, -1)
                self.trained[each.state] = folder, why or ("its training is done" if is_done else "")


def _command(checkpoint: StoredCheckpoint) -> str:
    return f"rm -r {checkpoint.folder}" if checkpoint.folder else f"tinker checkpoint delete {checkpoint.path}"
