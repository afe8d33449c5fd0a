"""Every file of a run, and of the store folders that it uses, against its checksum.

Contract:
1. A file that was cut or changed anywhere is named.
2. Verifying changes nothing and takes no lock.
3. What a living run is still writing is not called damaged.

What carries no checksum of its own (logs, reports, locks, what was set aside or left over) is told as not covered.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from charrun.store.checked import Checked
from charrun.store.files import file_digest, read_json
from charrun.store.items import ANSWERS
from charrun.store.journal import Event, Journal, folders_in, read_journal
from charrun.store.ledger import LEDGER, lines_told
from charrun.store.replay import RUNNING, STOPPED
from charrun.store.run import JOURNAL, LOCK, SNAPSHOT, SPEC, spec_digest
from charrun.store.runs import Run, read_run
from charrun.store.snapshot import snapshot_of
from charrun.store.verify_folder import verify_folder

_REBUILT = "rebuilt from the journal when the run goes on"
_PLUGINS = "plugins"


def verify_run(run: Run) -> Checked:
    """Check a run's folder and the store folders that it uses.

    Raises:
        OSError: A file is there and can't be read.
    """
    found = verify_own(run)
    store = run.runs_dir / "store"
    events = read_journal(run.folder / JOURNAL).events
    stages = [stage for cell in run.cells for stage in cell.stages if stage.folder]
    now = {stage.folder.name for stage in stages if stage.folder}
    for name in sorted({*now, *folders_in(events)}):
        outputs = [out for stage in stages if stage.folder == store / name for out in stage.outputs.values()]
        if (store / name).is_dir():
            verify_folder(store / name, outputs, found, written=run.status == RUNNING)
        elif name in now or name.startswith(ANSWERS):
            found.add(store / name, "is missing", "made again")
    return found


def verify_own(run: Run, *, ledger: bool = True) -> Checked:
    """Check a run's own folder.

    Args:
        run: The run.
        ledger: Whether its ledger too, which tells of damage itself when it is opened.

    Raises:
        OSError: A file is there and can't be read.
    """
    found = Checked()
    folder, book = run.folder, run.folder / LEDGER
    events = _verify_journal(folder / JOURNAL, found, run.status == RUNNING)
    told = [event["spec"] for event in events if event.get("spec")]
    spec = found.whole(folder / SPEC, "written anew when the same spec is run; charrun resume cannot go on without it")
    if spec is not None and told and spec_digest(spec) not in told:
        found.add(folder / SPEC, "is not the spec that the run was begun with", "running the spec begins another run")
    is_sound = not found.damage
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if (path.name in (SPEC, JOURNAL) and path.parent == folder) or path == book:
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
    if ledger:
        _verify_ledger(book, events, found, run.status == RUNNING)
    if is_sound:
        _compare_snapshots(run, events, found)
    return found


def _verify_journal(path: Path, found: Checked, is_running: bool) -> list[Event]:
    """The journal's lines and the numbers of its events; returns the sound ones."""
    if not path.exists():
        found.add(path, "is missing", "begun anew: what is done is found in the store")
        return []
    if not path.stat().st_size:
        found.add(path, "is empty", "begun anew: what is done is found in the store")
    then = "left out: what it told of a stage is told again when the same command is run"
    sound = list(found.lines(path, then, written=is_running))
    shift = 0
    for number, event in sound:
        missing = event.get("seq", number - 1) - (number - 1) - shift
        if missing:
            found.add(path, f"has event {event['seq']} where {event['seq'] - missing} should be", then, number)
            shift += missing
    return [event for _, event in sound]


def _verify_ledger(path: Path, events: list[Event], found: Checked, is_running: bool) -> None:
    """The ledger's lines, and that there are as many as events tell of."""
    told, lost = lines_told(events)
    then = "what they counted is counted no more: `charrun cost RUN --reconcile` asks the service"
    if lost:
        found.add(path, f"had lost {lost:,} lines when the run went on", then)
    if not path.exists():
        if told:
            found.add(path, f"is missing, with its {told:,} lines", then)
        return
    for _ in found.lines(path, "counted no more; an end without its beginning still counts", written=is_running):
        pass
    with path.open("rb") as file:
        lines = sum(line.endswith(b"\n") for line in file)
    if lines < told:
        found.add(path, f"has {lines:,} lines where the journal tells of {told:,}", then)


def _compare_snapshots(run: Run, events: list[Event], found: Checked) -> None:
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
