"""A store folder's files against their checksums: sealed lines, tickets, and what tickets name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from charrun.store.cells import Output
from charrun.store.checked import Checked
from charrun.store.files import ASIDE, file_digest
from charrun.store.items import ITEMS, SCORES, USAGE
from charrun.store.lock import HOLDER, LOCK
from charrun.store.tickets import DONE, PUBLISHED, Ticket, read_ticket
from charrun.store.training import REFERENCE, TRAINING

STAGE = "stage.json"
_LINES = {
    ITEMS: "asked for again where it is needed",
    SCORES: "asked for again where it is needed",
    TRAINING: "trained again from the checkpoint before, unless the training is done",
    REFERENCE: "computed again from fresh weights, unless the training is done",
    USAGE: "not counted any more",
}
_MADE_AGAIN = "made again from what is recorded"


def verify_folder(folder: Path, outputs: Iterable[Output], found: Checked, *, written: bool) -> None:
    """Check a store folder.

    Args:
        folder: The folder.
        outputs: What a run's journal says that it published there.
        found: Is added to.
        written: Whether a living run may be writing it.

    Raises:
        OSError: A file is there and can't be read.
    """
    done: list[Ticket] = []
    rest: list[Path] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        inside = path.relative_to(folder)
        if path.name in (LOCK, HOLDER) or any(".aside-" in part or part.startswith(ASIDE) for part in inside.parts):
            found.uncovered.append(path)
        elif path.parent == folder and path.name in _LINES:
            for _ in found.lines(path, _LINES[path.name], written=written):
                pass
        elif inside == Path(STAGE):
            found.whole(path, "written anew when the stage is made again; plan and diff do without it")
        elif inside.parts[0] == DONE and path.suffix == ".json":
            if found.whole(path, _MADE_AGAIN) is None:
                continue
            if ticket := read_ticket(path):
                done.append(ticket)
            else:
                found.add(path, "was written for other work", _MADE_AGAIN)
        else:
            rest.append(path)
    _check_named(folder, done, outputs, rest, found)
    named = {each.file for each in found.damage}
    for path in sorted({Path(path) for ticket in done for path in ticket.shortened(folder)} - named):
        what = "is shorter than it was" if path.exists() else "is missing"
        found.add(path, what, _LINES.get(path.name, _MADE_AGAIN))


def _check_named(
    folder: Path, done: Iterable[Ticket], outputs: Iterable[Output], rest: Iterable[Path], found: Checked
) -> None:
    """Files that tickets, the journal, or their own names hold to a digest."""
    wanted: dict[Path, set[str]] = {}
    for ticket in done:
        for artifact in ticket.outputs.values():
            wanted.setdefault(artifact.path, set()).add(artifact.sha256)
        for name, sha256 in ticket.files.items():
            wanted.setdefault(folder / name, set()).add(sha256)
    for out in outputs:
        wanted.setdefault(out.file, set()).add(out.sha256)
    for path in sorted({*wanted, *rest}):
        by_name = PUBLISHED.fullmatch(path.name) if path.parent == folder else None
        if path not in wanted and by_name is None:
            found.uncovered.append(path)
            continue
        found.covered.append(path)
        sha256 = file_digest(path) or ""
        if not any(sha256.startswith(each) for each in wanted.get(path, ()) or [by_name["digest"] if by_name else "-"]):
            found.add(path, "is damaged" if path.exists() else "is missing", _MADE_AGAIN)
