"""What a stage has published: artifacts, and the ticket that makes them count.

Contract:
1. Nothing looks done that is not: a ticket is written after everything that it names.
2. A ticket names the digest of every file of its work.
3. A missing or damaged file makes the ticket void, and the file is named.
4. An artifact is read only if its bytes are those that were published.
5. Whether work is done is decided without reading rows.
6. A ticket that was written for other work is void.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from charrun.errors import EnvironmentProblem
from charrun.store.canonical import digest_rows
from charrun.store.files import file_digest, read_json, read_rows, write_json, write_rows

DONE = "done"
"""Folder of a store folder's tickets."""
PUBLISHED = re.compile(r".+-(?P<digest>[0-9a-f]{16})\.jsonl")
"""Names of published files."""
_LENGTH = 16
_PLACE = "ticket"


@dataclass(frozen=True)
class Artifact:
    """Published rows of one kind.

    Attributes:
        path: The JSON-lines file that holds them.
        rows: How many.
        sha256: SHA-256 of the file.
        content: Digest of what of the rows counts as their content, for fingerprints of later stages.
    """

    path: Path
    rows: int
    sha256: str
    content: str

    def read(self) -> list[dict[str, Any]]:
        """The rows.

        Raises:
            EnvironmentProblem: The file is missing or damaged.
        """
        rows = read_rows(self.path, self.sha256)
        if rows is None:
            raise EnvironmentProblem(
                f"{self.path} is missing or damaged", "run the same command again: it is made again"
            )
        return rows


Outputs = Mapping[str, Artifact]


@dataclass(frozen=True)
class Ticket:
    """One piece of work that is done.

    Attributes:
        outputs: Published rows by kind.
        files: Further files of the work by path within the folder, with their SHA-256.
        sizes: Bytes of the files of records that it uses when it was done, by path from the folder: they only grow.
        asked_for: Rows asked of earlier stages beyond their scale's number, by stage id.
        seconds: Wall time of the work.
        usage: Counts of requests, tokens and steps by name.
        shared: Further store folders whose records it uses.
        made: For which scale, from which rows and by which versions it was done, for `charrun plan`.
    """

    outputs: Outputs
    files: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    asked_for: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    usage: Mapping[str, int] = field(default_factory=dict)
    shared: Sequence[str] = ()
    made: Mapping[str, Any] = field(default_factory=dict)

    def damage(self, folder: Path) -> list[str]:
        """Paths of its files that are missing or damaged; what later work in the folder wrote again is neither."""
        wrong = [str(a.path) for a in self.outputs.values() if file_digest(a.path) != a.sha256]
        changed = {name: found for name, sha in self.files.items() if (found := file_digest(folder / name)) != sha}
        others = [ticket.files for ticket in map(read_ticket, tickets(folder)) if ticket] if changed else []
        later = {name for name, found in changed.items() if found and any(each.get(name) == found for each in others)}
        return wrong + [str(folder / name) for name in changed if name not in later]

    def shortened(self, folder: Path) -> list[str]:
        """Paths of record files that are shorter than they were: what is lost there was used already."""
        return [os.path.normpath(folder / name) for name, size in self.sizes.items() if _size(folder / name) < size]


def publish(folder: Path, kind: str, rows: Sequence[Any], content: Callable[[Any], Any]) -> Artifact:
    """Write rows of a kind, unless this file is there already, whole.

    Args:
        folder: The store folder.
        kind: What the rows are.
        rows: JSON types.
        content: What of a row counts as its content.
    """
    sha = digest_rows(rows)
    path = folder / f"{kind}-{sha[:_LENGTH]}.jsonl"
    if file_digest(path) != sha:
        sha = write_rows(path, rows)
    return Artifact(path, len(rows), sha, digest_rows(map(content, rows)))


def write_ticket(path: Path, ticket: Ticket) -> None:
    """Make work count as done."""
    value = {**asdict(ticket), "outputs": {kind: _plain(each) for kind, each in ticket.outputs.items()}}
    write_json(path, {_PLACE: _place(path), **value})


def read_ticket(path: Path) -> Ticket | None:
    """A ticket; None where it is missing, damaged or another's, so that the work is done again."""
    value = read_json(path)
    if value is None or value.pop(_PLACE, None) != _place(path):
        return None
    try:
        folder = path.parent.parent
        return Ticket(**{**value, "outputs": {kind: _artifact(folder, out) for kind, out in value["outputs"].items()}})
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def tickets(folder: Path) -> Iterable[Path]:
    """The tickets of a store folder."""
    return sorted(path for path in (folder / DONE).glob("*.json") if not path.name.startswith("."))


def described(outputs: Outputs) -> dict[str, dict[str, Any]]:
    """Outputs as the journal tells them."""
    return {kind: _plain(artifact) for kind, artifact in outputs.items()}


def _plain(artifact: Artifact) -> dict[str, Any]:
    return {
        "file": artifact.path.name,
        "rows": artifact.rows,
        "sha256": artifact.sha256,
        "content": artifact.content,
    }


def _artifact(folder: Path, out: Mapping[str, Any]) -> Artifact:
    return Artifact(folder / Path(out["file"]).name, int(out["rows"]), str(out["sha256"]), str(out["content"]))


def _place(path: Path) -> str:
    """What a ticket is for: its folder's name and its own."""
    return f"{path.parent.parent.name}/{path.stem}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
