"""One time that a stage is run: its records, its session at the engine, its meters and its progress."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

from charrun import events
from charrun.errors import StageFailed
from charrun.pipeline.checkpoints import CHECKPOINT
from charrun.pipeline.endpoint_requests import MeteredEndpoint
from charrun.pipeline.identity import content
from charrun.pipeline.meter import Meter, MeteredSampler, MeteredTrainer
from charrun.pipeline.work import Work
from charrun.service.endpoint_sampler import ChatClient
from charrun.service.session import Sampler, Session
from charrun.spec.prices import dollars
from charrun.store.ledger import Place
from charrun.usage import Usage

if TYPE_CHECKING:
    import tinker

    from charrun.pipeline.stage_run import StageRun
    from charrun.stage import Row


class Attempt:
    """What is open while a stage runs.

    Attributes:
        work: Its records, and what it has published and used.
        awaited: Stages that it goes ahead of: their checkpoints are not there yet.
    """

    def __init__(self, run: StageRun, awaited: frozenset[StageRun]) -> None:
        self.awaited = awaited
        self._run = run
        self._shared = run.cell.shared
        self.work = Work(self._shared, run.item.id, run.ticket, lambda text: self._shared.message(run, text))
        self._session: Session | None = None
        self._opening = asyncio.Lock()
        self._done = self._total = 0
        self._is_over = False

    async def session(self) -> Session:
        """The stage's own session at the engine, which says whose it is; opened on first use, ended with the stage."""
        service = await self._shared.service()
        async with self._opening:
            if self._session is None:
                cell, stage = self._run.place
                self._session = await service.begin({"cell": cell, "stage": stage})
            return self._session

    def publish(self, kind: str, rows: Sequence[Row]) -> None:
        """Collect rows of a kind; a kind that the stage does not declare is a defect of the stage."""
        id, stage = self._run.item.id, self._run.stage
        if kind not in stage.produces:
            raise StageFailed(f"{id} published '{kind}', which its `produces` does not name")
        if kind == CHECKPOINT and stage.one_checkpoint and [content(row) for row in rows] != [self._run.fingerprint]:
            told = f"{id} says one_checkpoint, and published {len(rows)} or another one than ctx.save gave"
            raise StageFailed(told, "a defect of the stage")
        self.work.published[kind] = list(rows)

    def metered_sampler(self, client: Sampler, model: str, context_length: int | None) -> MeteredSampler:
        """A sampling client of a base model, or of a checkpoint of it, whose requests are this stage's."""
        return MeteredSampler(client, self.meter(model), context_length)

    def metered_endpoint(self, client: ChatClient, model: str) -> MeteredEndpoint:
        """A model at an endpoint, whose requests are this stage's."""
        return MeteredEndpoint(client, self.meter(model))

    def metered_trainer(self, client: tinker.TrainingClient, model: str) -> tinker.TrainingClient:
        """A training client whose requests are this stage's."""
        return cast("tinker.TrainingClient", MeteredTrainer(client, self.meter(model)))

    def meter(self, model: str) -> Meter:
        """Enters the stage's requests for a base model in the ledger."""
        return Meter(self._shared.spending, Place(*self._run.place, model), self._count)

    def _count(self, usage: Usage) -> None:
        if not self._is_over:  # what ends after a stage that has failed is in the ledger alone
            self.work.count(usage)
            self.progress()

    def progress(self, done: int = 0, total: int | None = None) -> None:
        """Show work done."""
        if total is not None:
            self._done, self._total = 0, total
        self._done += done
        self.work.mark()
        spending = self._shared.spending
        usd, held = dollars(spending.settled().high), dollars(spending.held)
        tokens = self.work.usage().tokens
        self._run.tell(events.StageProgressed(*self._run.place, self._done, self._total, tokens, usd, held))

    async def close(self) -> None:
        """Make all records durable and close them, and end the session."""
        self._is_over = True
        try:
            await self.work.close()
        finally:
            if self._session is not None:
                await self._session.close()


@asynccontextmanager
async def attempting(run: StageRun, awaited: frozenset[StageRun] = frozenset()) -> AsyncIterator[Attempt]:
    """While a stage is run: those who watch are told of its beginning and of an error."""
    run.cell.shared.record("stage_started", run, folder=run.folder.name, extra=run.extra)
    try:
        begun = run.current = Attempt(run, awaited)
        run.tell(events.StageStarted(*run.place, run.item.uses, run.stage.summary))
        try:
            yield begun
        finally:
            try:
                await begun.close()
            finally:
                run.current = None
    except BaseException as error:
        run.tell_failure(error)
        raise
