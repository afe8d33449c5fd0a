"""Every file of a run, and of the store folders that it uses, against its checksum.

Contract:
1. A file that was cut or changed anywhere is named.
2. Verifying changes nothing and takes no lock.
3. What a living run is still writing is not called damaged.

What carries no checksum of its own (logs, reports, locks, what was set aside or left over) is told as not covered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from charrun.store.canonical import digest
from charrun.store.files import file_digest, indented, read_json
from charrun.store.journal import Event, Journal, folders_in, read_journal
from charrun.store.lines import unsealed
from charrun.store.replay import RUNNING, STOPPED
from charrun.store.run import JOURNAL, LOCK, SNAPSHOT, SPEC
from charrun.store.runs import Run, read_run
from charrun.store.snapshot import snapshot_of

_REBUILT = "rebuilt from the journal when the run goes on"
_PLUGINS = "plugins"
_SUM_LENGTH = 16


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong.

    Attributes:
        file: In which file; one that is missing should be there.
        line: Its line, from 1; 0 where it is about the whole file.
        what: What is wrong, as the end of a sentence about the file.
        then: What the next run does about it.
    """

    file: Path
    line: int
    what: str
    then: str


@dataclass
class Verified:
    """What was found.

    Attributes:
        covered: Files that were checked.
        damage: What is wrong with them, or that they are missing.
        uncovered: Files that carry no checksum.
    """

    covered: list[Path] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)
    uncovered: list[Path] = field(default_factory=list)

    def add(self, path: Path, what: str, then: str, line: int = 0) -> None:
        """Something is wrong with a file."""
        self.damage.append(Damage(path, line, what, then))

    def whole(self, path: Path, then: str) -> dict[str, Any] | None:
        """Check a JSON file to the byte; returns what it says, or None."""
        self.covered.append(path)
        value = read_json(path)
        if value is None or path.read_bytes() != indented({**value, "sum": digest(value)[:_SUM_LENGTH]}).encode():
            self.add(path, "is damaged" if path.exists() else "is missing", then)
            return None
        return value

    def lines(self, path: Path, then: str, *, written: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
        """Check a file of sealed lines; yields the number of each sound one and what it says.

        Args:
            path: The file.
            then: What the next run does about a line that is not.
            written: Whether a living process may be appending to it.
        """
        self.covered.append(path)
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    if not written and path.stat().st_size == file.tell():  # it is nobody's line in the making
                        self.add(path, "ends within a line", f"cut off; {then}", number)
                    return
                value = _value(line)
                if value is None:
                    self.add(path, "is damaged", then, number)
                else:
                    yield number, value


def verify_run(run: Run) -> Verified:
    """Check a run's folder and the store folders that it uses.

    Raises:
        OSError: A file is there and can't be read.
    """
    from charrun.store.verify_folder import verify_folder

    found = Verified()
    is_running = run.status == RUNNING
    _verify_own(run, found, is_running)
    store = run.runs_dir / "store"
    events = read_journal(run.folder / JOURNAL).events
    stages = [stage for cell in run.cells for stage in cell.stages if stage.folder]
    now = {stage.folder.name for stage in stages if stage.folder}
    for name in sorted({*now, *folders_in(events)}):
        outputs = [out for stage in stages if stage.folder == store / name for out in stage.outputs.values()]
        if (store / name).is_dir():
            verify_folder(store / name, outputs, found, written=is_running)
        elif name in now or name.startswith("answers-"):
            found.add(store / name, "is missing", "made again")
    return found


def _verify_own(run: Run, found: Verified, is_running: bool) -> None:
    """The run's own folder."""
    folder = run.folder
    before = len(found.damage)
    events = _verify_journal(folder / JOURNAL, found, is_running)
    told = [event["spec"] for event in events if event.get("spec")]
    spec = found.whole(folder / SPEC, "written anew when the same spec is run; charrun resume cannot go on without it")
    if spec is not None and told and digest(spec) not in told:
        found.add(folder / SPEC, "is not the spec that the run was begun with", "running the spec begins another run")
    is_sound = len(found.damage) == before
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.name in (SPEC, JOURNAL) and path.parent == folder:
            continue
        if path == folder / LOCK:
            found.whole(path, "written anew by the next run")
        elif path.parent == folder and (path.name == SNAPSHOT or path.match("cell-*.json")):
            found.whole(path, _REBUILT)
        elif path.parent == folder / _PLUGINS and path.suffix == ".py":
            found.covered.append(path)
            if not (file_digest(path) or "").startswith(path.stem.rpartition("-")[2]):
                found.add(path, "is damaged", "written anew when the same spec is run; charrun resume refuses it")
        else:
            found.uncovered.append(path)
    if is_sound:
        _compare_snapshots(run, events, found)


def _verify_journal(path: Path, found: Verified, is_running: bool) -> list[Event]:
    """The journal's lines and the numbers of its events; returns the sound ones."""
    if not path.exists():
        found.add(path, "is missing", "begun anew: what is done is found in the store")
        return []
    then = "left out: what it told of a stage is told again when the same command is run"
    sound = list(found.lines(path, then, written=is_running))
    shift = 0
    for number, event in sound:
        missing = event.get("seq", number - 1) - (number - 1) - shift
        if missing:
            found.add(path, f"has event {event['seq']} where {event['seq'] - missing} should be", then, number)
            shift += missing
    return [event for _, event in sound]


def _compare_snapshots(run: Run, events: list[Event], found: Verified) -> None:
    """What snapshots say against what the journal added up to when they were written."""
    snapshot = read_json(run.folder / SNAPSHOT)
    if snapshot is None:
        return  # deleted, or damaged and named already
    ends = [at for at, event in enumerate(events, 1) if event["time"] == snapshot.get("last")]
    if not ends:
        found.add(run.folder / JOURNAL, "lacks its end: run.json tells of a later event", "told again when it goes on")
        return
    wrong: list[str] = []
    for end in ends:
        then = snapshot_of(read_run(run.folder, Journal(tuple(events[:end]))))
        wrong = [name for name, value in then.items() if _differs(read_json(run.folder / name), value)]
        if not wrong:
            return
    for name in wrong:
        found.add(run.folder / name, "does not say what the journal adds up to", _REBUILT)


def _differs(written: Mapping[str, Any] | None, value: Mapping[str, Any]) -> bool:
    return written is not None and _settled(written) != _settled(value)


def _settled(value: Any) -> Any:
    """Without what depends on whether the run's process lives."""
    if isinstance(value, Mapping):
        return {key: _settled(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_settled(each) for each in value]
    return STOPPED if value == RUNNING else value


def _value(line: bytes) -> dict[str, Any] | None:
    try:
        return unsealed(line)
    except (ValueError, RecursionError):
        return None
