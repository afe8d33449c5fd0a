"""What `charrun gc` would delete, and what it has: for a terminal and for programs."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from charrun.pipeline.adapters import KIND
from charrun.pipeline.engine_garbage import Alone
from charrun.pipeline.garbage import Collected, Survey
from charrun.report.columns import age, moment, short, table
from charrun.report.text import safe
from charrun.service.engine import StoredCheckpoint
from charrun.store.garbage import Garbage

_WHY = {
    "folder": "no run refers to it",
    "set aside": "set aside: made again since",
    "left over": "its writer is gone",
    "half deleted": "an earlier collection had begun to delete it",
}
_MOST_ALONE = 20
_FINALS = (
    "Left alone: final checkpoints that nothing here names. Another folder of runs may use them; once it is known that "
    "nobody does, each can be deleted:"
)


def survey_lines(found: Survey, width: int) -> list[str]:
    """What is kept, what is garbage, what is left alone, and what could not be looked at."""
    lines = _kept_lines(found)
    rows = [
        (_bytes(each.size), _age(each.changed), _WHY[each.kind], _place(each.path, found)) for each in _items(found)
    ]
    if rows:
        lines += ["", "Nothing refers to:", *_table(("size", "age", "why", "what"), rows)]
    for at in found.engines:
        mine = [_row(each.checkpoint, each.why) for each in found.unneeded if each.at is at]
        if mine:
            lines += [
                "",
                f"Checkpoints at the engine {at.name}:",
                *_table(("size", "age", "expires", "why", "path"), mine),
            ]
    lines += _alone_lines(found.alone, width)
    lines += [
        f"note: the engine {safe(at.name)} was not looked at: {safe(at.unseen)}" for at in found.engines if at.unseen
    ]
    if not found.count:
        return [*lines, "", "Nothing is to be deleted."]
    lines += [f"note: {safe(run)} goes on; what it has not come to yet counts as unused" for run in found.running]
    entries = "entry" if found.count == 1 else "entries"
    return [*lines, "", f"{found.count:,} {entries}, {_bytes(found.size)}"]


def collected_lines(done: Collected) -> list[str]:
    """What is gone and what is not."""
    entries = "entry" if len(done.deleted) == 1 else "entries"
    lines = [f"left alone: {safe(path)}: {safe(reason)}" for path, reason in done.left]
    lines += [f"not deleted: {safe(path)}: {safe(reason)}" for path, reason in done.failed]
    return [*lines, f"deleted {len(done.deleted):,} {entries}, {_bytes(done.size)}"]


def survey_document(found: Survey, done: Collected | None) -> dict[str, Any]:
    """What `charrun gc --json` prints; `done` is None in a dry run."""
    used = found.store.used
    return {
        "runs_dir": str(found.runs_dir),
        "kept": [
            {"folder": str(path), "size": size, "runs": list(used[path.name])}
            for path, size in found.store.kept.items()
        ],
        "garbage": [
            {"path": str(each.path), "kind": each.kind, "size": each.size, "changed": round(each.changed, 3)}
            for each in found.store.garbage
        ],
        "checkpoints": [{**_checkpoint(each.checkpoint, each.at.name), "why": each.why} for each in found.unneeded],
        "left_alone": [{**_checkpoint(each.checkpoint, each.at.name), "command": each.command} for each in found.alone],
        "running": list(found.running),
        "not_looked_at": [{"engine": at.name, "why": at.unseen} for at in found.engines if at.unseen],
        "size": found.size,
        "dry_run": done is None,
        "deleted": done.deleted if done else [],
        "deleted_size": done.size if done else 0,
        "not_deleted": [{"path": path, "why": why} for path, why in (*done.left, *done.failed)] if done else [],
    }


def _kept_lines(found: Survey) -> list[str]:
    kept, used = found.store.kept, found.store.used
    runs = {run for path in kept for run in used[path.name]}
    folders = "folder is" if len(kept) == 1 else "folders are"
    size = _bytes(sum(kept.values()))
    lines = [f"{len(kept):,} {folders} kept, {size}, used by {len(runs):,} run{'' if len(runs) == 1 else 's'}."]
    shared = [path.name for path in kept if len(used[path.name]) > 1]
    for name in shared:
        lines.append(f"  {name} by {len(used[name])}: {safe(', '.join(used[name]))}")
    return lines


def _items(found: Survey) -> Sequence[Garbage]:
    return sorted(found.store.garbage, key=lambda each: (list(_WHY).index(each.kind), each.path))


def _alone_lines(alone: Sequence[Alone], width: int) -> list[str]:
    finals = [each for each in alone if each.command]
    expiring = [_row(each.checkpoint, "not recorded here") for each in alone if not each.command]
    lines = []
    if finals:
        lines = ["", *textwrap.wrap(_FINALS, width)]
        lines += [f"  {_of(each.checkpoint)}\n    {safe(each.command)}" for each in finals[:_MOST_ALONE]]
        lines += _more(finals)
    if expiring:
        rows = expiring[:_MOST_ALONE]
        lines += [
            "",
            "Left alone, they expire by themselves:",
            *_table(("size", "age", "expires", "why", "path"), rows),
        ]
        lines += _more(expiring)
    return lines


def _more(found: Sequence[object]) -> list[str]:
    return [f"  and {len(found) - _MOST_ALONE} more (--json has all)"] if len(found) > _MOST_ALONE else []


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned lines, none cut: a path is for copying."""
    return table([head, *rows], ">>" + "<" * (len(head) - 2), width=10**6)


def _of(checkpoint: StoredCheckpoint) -> str:
    note = checkpoint.note
    whose = f"{note.get('stage', '?')} in {note.get('run', '?')}, {note.get('cell', '?')}"
    return safe(f"{whose}: {_bytes(checkpoint.size)}, {_age(checkpoint.created)} old")


def _row(checkpoint: StoredCheckpoint, why: str) -> tuple[str, ...]:
    expires = moment(checkpoint.expires, precise=False) if checkpoint.expires else "never"
    return _bytes(checkpoint.size), _age(checkpoint.created), expires, why, checkpoint.path


def _checkpoint(checkpoint: StoredCheckpoint, engine: str) -> dict[str, Any]:
    return {
        "path": checkpoint.path,
        "engine": engine,
        "kind": checkpoint.note.get(KIND, "copy"),
        "note": dict(checkpoint.note),
        "size": checkpoint.size,
        "created": round(checkpoint.created, 3),
        "expires": checkpoint.expires,
    }


def _place(path: Path, found: Survey) -> str:
    return str(path.relative_to(found.runs_dir)) if path.is_relative_to(found.runs_dir) else str(path)


def _age(at: float) -> str:
    return age(time.time() - at)


def _bytes(size: int | None) -> str:
    return "?" if size is None else f"{short(size)}B"
