"""Log-probs of trained rows under the weights that a training begins with: computed once, kept in the store."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from charrun.chat import TrainedRow
from charrun.errors import Interrupted
from charrun.pipeline.adapters import Adapter
from charrun.service.explained import explained
from charrun.store.canonical import digest
from charrun.store.training import ReferenceLog

if TYPE_CHECKING:
    import tinker

    from charrun.pipeline.stage_run import StageRun

_CHUNK_ROWS = 64
_AHEAD = 16
"""Forward passes that are submitted before the first is awaited."""


class Reference:
    """Stored log-probs, in nats, by the adapter's name and the tokens and the mask of a row."""

    def __init__(self, log: ReferenceLog, adapter: str) -> None:
        self._log = log
        self._adapter = adapter

    def sum(self, row: TrainedRow) -> float:
        """Sum over the row's trained tokens."""
        return self._log.sum(row_key(self._adapter, row))

    def values(self, row: TrainedRow) -> Sequence[float]:
        """One a trained token, shape [n]."""
        return self._log.values(row_key(self._adapter, row))


def row_key(adapter: str, row: TrainedRow) -> str:
    """What a row's stored log-probs are found by: adapters of one stage may begin with different weights."""
    return digest([adapter, list(row.tokens), [int(on) for on in row.trained]])


async def stored_reference(run: StageRun, adapter: Adapter, rows: Sequence[TrainedRow]) -> Reference:
    """See `StageContext.reference`."""
    log = run.attempt.work.reference
    missing = {key: row for row in rows if (key := row_key(adapter.name, row)) not in log}
    if missing:
        client = adapter.client if adapter.next_step == 0 else await adapter.fresh()
        run.attempt.progress(done=len(rows) - len(missing))
        items = list(missing.items())
        chunks = [items[start : start + _CHUNK_ROWS] for start in range(0, len(items), _CHUNK_ROWS)]
        async for chunk, logprobs in _forward(run, client, chunks):
            log.add(zip([key for key, _ in chunk], logprobs, strict=True))
            run.attempt.progress(done=len(chunk))
    else:
        run.attempt.progress(done=len(rows))
    log.sync()
    return Reference(log, adapter.name)


_Chunk = list[tuple[str, TrainedRow]]


async def _forward(run: StageRun, client: tinker.TrainingClient, chunks: Sequence[_Chunk]) -> Any:
    """Each chunk with its log-probs, a few passes ahead."""
    pending: deque[tuple[_Chunk, Any]] = deque()
    upcoming: Iterator[_Chunk] = iter(chunks)
    while True:
        if run.cell.shared.stopping:
            upcoming = iter(())
        while len(pending) < _AHEAD and (chunk := next(upcoming, None)) is not None:
            data = [row.datum() for _, row in chunk]
            try:
                send = partial(client.forward, data, "cross_entropy")
                pending.append((chunk, await run.cell.shared.spending.when_it_fits(send)))
            except Interrupted:
                upcoming = iter(())
        if not pending:
            run.cell.shared.go_on()
            return
        chunk, future = pending.popleft()
        with explained():
            outputs = (await future).loss_fn_outputs
        yield (
            chunk,
            [
                [float(v) for v, on in zip(output["logprobs"].data, row.trained[1:], strict=True) if on]
                for (_, row), output in zip(chunk, outputs, strict=True)
            ],
        )
