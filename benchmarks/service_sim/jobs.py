"""What the service has done, job by job, with what shows which job needs which: texts, checkpoints, rows."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

_ROLES = ("assistant\n", "user\n", "system\n")


class JobLog:
    """Appends to `jobs.jsonl`; times are seconds since it was opened.

    Args:
        path: The file.
        note: What a session carries.
    """

    def __init__(self, path: Path, note: Callable[[str], Mapping[str, Any]]) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._note = note
        self._lock = threading.Lock()
        self._opened = time.monotonic()

    def now(self) -> float:
        """The time."""
        return time.monotonic() - self._opened

    def done(self, session: str, arrived: float, **fields: Any) -> None:
        """A job is done.

        Args:
            session: Whose it was.
            arrived: When it came.
            **fields: `kind`; `seconds` that it took and `samples` (of sampling); `queue` (of training); `texts` that
                it was given and has `made`; `path` of the checkpoint that it wrote or began from; `data` that a pass
                was over.
        """
        stage = self._note(session).get("stage", "")
        line = {"stage": stage, "arrived": round(arrived, 4), "done": round(self.now(), 4), **fields}
        with self._lock:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()


class Texts:
    """Names for the texts between a rendering's special tokens, the same wherever a text stands."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, bytes], str] = {}
        self._tokenizer = cache(_tokenizer)

    def within(self, folder: Path, tokens: Sequence[int] | np.ndarray[Any, Any]) -> list[str]:
        """Of a prompt or a row."""
        tokenizer, special = self._tokenizer(folder)
        whole = np.asarray(tokens, np.int64)
        cuts = np.flatnonzero(np.isin(whole, special))
        found = []
        for start, end in zip([0, *(cuts + 1)], [*cuts, len(whole)], strict=True):
            part = whole[start:end]
            if len(part) > 1:
                key = (folder, part.tobytes())
                if key not in self._known:
                    self._known[key] = named(_plain(tokenizer.decode(part.tolist())))
                found.append(self._known[key])
        return found


def named(text: str) -> str:
    """A text's name."""
    return blake2b(text.strip().encode(), digest_size=8).hexdigest()


def data_name(rows: Iterable[Sequence[int]]) -> str:
    """A name for the rows of a pass."""
    name = blake2b(digest_size=8)
    for row in rows:
        name.update(np.asarray(row, np.int64).tobytes())
    return name.hexdigest()


def _plain(text: str) -> str:
    for role in _ROLES:
        if text.startswith(role):
            return text.removeprefix(role)
    return text


def _tokenizer(folder: Path) -> tuple[Any, np.ndarray[Any, Any]]:
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    return tokenizer, np.array(sorted(tokenizer.added_tokens_decoder), np.int64)
