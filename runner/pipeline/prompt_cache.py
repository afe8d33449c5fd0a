"""What a service may have in its cache of prompts: what a dry run sends, and what earlier requests sent.

Of the latter a store and ledgers tell. Stored answers tell their prompts. Of scores, and of requests in flight at a
kill, only the number of prompt tokens is known: as many tokens of later prompts may be in the cache as those sent that
were not in it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import cast

from charrun.chat import Chat
from charrun.store.items import ITEMS, SCORES, Record
from charrun.store.ledger import LEDGER, read_ledger
from charrun.store.lines import read_lines, unsealed
from charrun.store.probes import probe_ledgers

_BLOCK = 16
"""Tokens of a prompt that are looked up in the cache together."""
_MOST = 8000
"""Answers of each model whose prompts are rendered, the latest ones; of others the number of tokens counts."""
_RUNS = 8
_Place = tuple[Path, int, int]


class PromptCache:
    """What an engine has in its cache of prompts and answers that it was sent, in whole blocks."""

    def __init__(self) -> None:
        self._known: set[int] = set()

    def hits(self, tokens: Sequence[int]) -> int:
        """How many of a prompt's tokens are in it, the last one never; all of them are from now on."""
        hits = 0
        for end, name in _blocks(tokens[:-1]):
            if name not in self._known:
                break
            hits = end
        self.keep(tokens)
        return hits

    def keep(self, tokens: Sequence[int]) -> None:
        """Put tokens into it."""
        self._known.update(name for _, name in _blocks(tokens))


class SentBefore:
    """Looks it up in a store and in ledgers; nothing is written, and each file is read once.

    Args:
        runs_dir: Where runs and their store are kept.
        spec: Name of the spec whose latest runs' ledgers are read.
    """

    def __init__(self, runs_dir: Path, spec: str) -> None:
        self._store = runs_dir / "store"
        ledgers = [path for path in (runs_dir / spec).glob(f"*/{LEDGER}") if path.parent.name.isdecimal()]
        self._ledgers = sorted(ledgers, key=lambda path: int(path.parent.name))[-_RUNS:]
        self._probes = probe_ledgers(runs_dir)

    def answers(self, model: str, chat: Chat) -> Iterator[tuple[list[int], list[int]]]:
        """Prompts that a model was sent, each with one of its answers, in tokens.

        Args:
            model: Model name or checkpoint path.
            chat: A rendering of it; prompts that have another length by it were made by another one.
        """
        for record in _records(self._answers.get(model, [])[-_MOST:]):
            given = record["input"]
            messages, prefill = json.loads(given["messages"]), str(given.get("prefill", ""))
            prompt = chat.prompt(messages, prefill)
            if len(prompt) == record["prompt_tokens"]:
                yield from ((prompt, sequence["tokens"]) for sequence in record["sequences"])

    def unseen(self, model: str) -> int:
        """Tokens that went through a model, or a checkpoint of this path, of prompts that are not kept."""
        older = _records(self._answers.get(model, [])[:-_MOST])
        tokens = sum(r["prompt_tokens"] - r["cache_hit_tokens"] + r["sampled_tokens"] for r in older)
        return tokens + self._scored[model]

    @cached_property
    def unsure(self) -> Counter[str]:
        """By base model, prompt tokens of requests without a record, to it or to its checkpoints."""
        found: Counter[str] = Counter()
        for path in self._ledgers:
            totals = read_ledger(path)
            for place, usage in totals.used.items():
                if usage.trained_tokens:  # what a training asks a sampler to check itself
                    found[place.model] += usage.prefill_tokens
            for place, most in totals.in_doubt().items():
                found[place.model] += most.prefill_tokens
        for path in self._probes:
            totals = read_ledger(path)
            for place, usage in totals.used.items():
                if not place.stage:  # it scored
                    found[place.model] += usage.prefill_tokens
            for place, most in totals.in_doubt().items():
                found[place.model] += most.prefill_tokens
        return found

    @cached_property
    def _answers(self) -> dict[str, list[_Place]]:
        found: dict[str, list[_Place]] = {}
        for path in sorted(self._store.glob(f"*/{ITEMS}")):
            for line in read_lines(path):
                if "messages" in line.value.get("input", ()):
                    found.setdefault(line.value["model"], []).append((path, line.offset, line.length))
        return found

    @cached_property
    def _scored(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for path in self._store.glob(f"*/{SCORES}"):
            for line in read_lines(path):
                score = line.value
                found[score["model"]] += score["prompt_tokens"] - score["cache_hit_tokens"]
        return found


class WarmCache(PromptCache):
    """A cache that still has what a model or checkpoint was sent before; who knows the prompts keeps them in it.

    Args:
        before: Tells what that was.
        key: Model name or checkpoint path.
        model: The base model.
    """

    def __init__(self, before: SentBefore, key: str, model: str) -> None:
        super().__init__()
        self._before = before
        self._model = model
        self._unseen = before.unseen(key)

    def hits(self, tokens: Sequence[int]) -> int:
        """As an empty one's, and as much as may have been sent before."""
        hits = super().hits(tokens)
        missed = (len(tokens) - 1) // _BLOCK * _BLOCK - hits
        unseen = min(missed, self._unseen)
        self._unseen -= unseen
        unsure = min(missed - unseen, self._before.unsure[self._model])
        self._before.unsure[self._model] -= unsure
        return hits + unseen + unsure


def _blocks(tokens: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where each whole block ends, and a name for all up to there."""
    name = 0
    for end in range(_BLOCK, len(tokens) + 1, _BLOCK):
        name = hash((name, tuple(tokens[end - _BLOCK : end])))
        yield end, name


def _records(places: Sequence[_Place]) -> Iterator[Record]:
    for path, group in groupby(places, lambda place: place[0]):
        with path.open("rb") as file:
            for _, offset, length in group:
                file.seek(offset)
                record = unsealed(file.read(length))
                if record is not None:  # damaged meanwhile
                    yield cast("Record", record)
