"""What a stage works with: durable samples, upstream rows, samplers and adapters by role, artifacts, progress."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from charrun import events
from charrun.chat import Message, TrainedRow
from charrun.endpoint import Endpoint
from charrun.errors import StageFailed
from charrun.pipeline.adapters import Adapter, Adapters, copy_name
from charrun.pipeline.reference import Reference, stored_reference
from charrun.pipeline.requests import Answer, Requests, weights_name
from charrun.pipeline.together import gather
from charrun.pipeline.told import Told, of_another_model
from charrun.service.service import RoleSampler
from charrun.spec import ModelRef
from charrun.store.canonical import canonical, digest
from charrun.store.files import file_digest, indented, make_folder

if TYPE_CHECKING:
    import tinker

    from charrun.pipeline.stage_run import StageRun
    from charrun.stage import Row

_T = TypeVar("_T")


class StageContext(Told):
    """The world of one stage in one cell. Stages receive it; only the pipeline makes one."""

    def __init__(self, run: StageRun) -> None:
        super().__init__(run)
        self._requests = Requests(run)
        self._adapters = Adapters(run)

    def estimated(self, kind: str) -> int:
        """Rows that the nearest earlier producer of a kind expects to make; may be asked before a run."""
        producer = self._producer(kind)
        return producer.stage.estimate(StageContext(producer)).rows

    # -- sampling -------------------------------------------------------------------------------------------------

    async def sampler(self, role: str, checkpoint: Row | None = None) -> RoleSampler:
        """A sampler of a role's base model, or of a checkpoint trained from it."""
        shared = self._run.cell.shared
        ref = self.model(role)
        if ref.endpoint is not None:
            return await self._elsewhere(ref, ref.endpoint)
        service, session = await shared.service(), await self._run.attempt.session()
        chat = await service.chat(ref.name, ref.chat)
        path = str(checkpoint["sampler"]) if checkpoint else None
        if path and checkpoint and checkpoint.get("base_model") == "":
            base_model = await service.base_model(path)
            if base_model not in (None, ref.name):
                raise of_another_model(path, str(base_model), role, ref.name)
        weights = checkpoint["fingerprint"] if checkpoint else shared.namespace(ref.name)
        context_length = service.context_length(ref.name)
        return RoleSampler(
            client=self._run.attempt.metered_sampler(await session.sampler(ref.name, path), ref.name, context_length),
            chat=chat,
            model=path or ref.name,
            fingerprint=weights_name(weights, chat),
            context_length=context_length,
        )

    async def _elsewhere(self, ref: ModelRef, endpoint: Endpoint) -> RoleSampler:
        cell = self._run.cell
        service, student = await cell.shared.service(), cell.model("student")
        chat = await service.chat(student.name, student.chat)
        identity = [cell.shared.namespace(ref.name), dict(endpoint.parameters), dict(ref.chat)]
        return RoleSampler(
            client=self._run.attempt.metered_endpoint(service.elsewhere(ref.name, endpoint, ref.chat, chat), ref.name),
            chat=chat,
            model=ref.name,
            fingerprint=digest(identity),
            context_length=None,
            endpoint=endpoint,
        )

    async def sample(
        self,
        sampler: RoleSampler,
        messages: Sequence[Message],
        *,
        item: str = "",
        count: int = 1,
        max_tokens: int,
        temperature: float = 0.7,
        top_p: float = 0.95,
        seed: int | None = None,
        shared: bool = False,
        prefill: str = "",
        arrived: Callable[[int], None] | None = None,
    ) -> list[Answer]:
        """Sample answers to a conversation, each stored before it is returned.

        Args:
            sampler: Whose answers.
            messages: The conversation so far.
            item: Tells apart items whose requests are equal, such as two conversations with one opener.
            count: Sample indexes 0 to count - 1; stored ones are not requested again.
            max_tokens: Longest answer; less where the context has no room for it.
            temperature: Sampling temperature.
            top_p: Nucleus.
            seed: Fixed seed for paired sampling; by default one of the cell's seed and the request.
            shared: Keep the answers where stages of other characters, cells and runs find them too: for what a base
                model says without a system prompt, and for what several stages of a cell ask.
            prefill: How the assistant's turn begins; the answers are what follows, or what follows `</think>` where it
                leaves a think block open: without that tag an answer is empty and not `closed`.
            arrived: Told how many more answers there are, as they come, such as `advance`.

        Raises:
            StageFailed: The prompt leaves no room in the model's context.
        """
        return await self._requests.sample(
            sampler,
            messages,
            {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p},
            item=item,
            count=count,
            seed=seed,
            shared=shared,
            prefill=prefill,
            arrived=arrived,
        )

    async def score(
        self, sampler: RoleSampler, prompt: Sequence[int], completion: Sequence[int], *, shared: bool = False
    ) -> float:
        """Mean log-prob per token of a completion after a prompt, in nats; stored before it is returned.

        Args:
            sampler: Whose log-probs.
            prompt: Tokens of the context.
            completion: Tokens that are scored.
            shared: As in `sample`.
        """
        return await self._requests.score(sampler, prompt, completion, shared=shared)

    async def afford(self, send: Callable[[], tinker.APIFuture[_T]]) -> _T:
        """What a request is answered that a call sends through a sampler's or an adapter's own client.

        It is sent as soon as the most that the request can cost fits the budget, beside what is in flight. Requests
        through `sample`, `score`, `reference` and `train_steps` need no such care.

        Raises:
            BudgetReached: It does not fit although nothing is in flight any more; the run stops.
        """
        return await self._run.cell.shared.spending.answer(send)

    # -- training -------------------------------------------------------------------------------------------------

    async def new_adapter(self, role: str, rank: int, name: str = "adapter") -> Adapter:
        """A LoRA adapter on a role's base model, fresh with the cell's seed, or as far as an earlier run trained it.

        Args:
            role: Whose base model.
            rank: Rank of the adapter.
            name: Tells apart the adapters of a stage that trains several.
        """
        return await self._adapters.new(self.model(role), rank, name)

    async def continue_adapter(self, role: str, checkpoint: Row, name: str = "adapter") -> Adapter:
        """An adapter that continues a checkpoint with a fresh optimizer, or as far as an earlier run trained it."""
        return await self._adapters.continued(self.model(role), checkpoint, name)

    def has_begun(self, name: str = "adapter") -> bool:
        """Whether an earlier run has trained an adapter of the stage and saved it; may be asked before it is opened.

        The engine may hold it no longer: then it begins anew, with `next_step` 0.
        """
        return bool(self._run.attempt.work.training.resumable(name))

    async def reference(self, adapter: Adapter, rows: Sequence[TrainedRow]) -> Reference:
        """Log-probs of each row's trained tokens under the weights that the adapter began with, from the store.

        What is not stored yet is computed by forward passes and stored; it is on the disk when this returns. It never
        comes from weights that were trained: an adapter that goes on from a later step gets its reference from the
        store, and what is missing there from weights that are made afresh.
        """
        return await stored_reference(self._run, adapter, rows)

    async def save(self, adapter: Adapter, name: str) -> Row:
        """Save an adapter for further training and for sampling, without expiry; returns the checkpoint row."""
        return await self._adapters.save(adapter, name)

    async def download(self, checkpoint: Row, name: str, folder: str) -> Path:
        """Put a checkpoint's adapter files into a folder within the stage's own; returns its path."""
        from charrun.service.download import download_adapter

        service = await self._run.cell.shared.service()
        target = make_folder(self.folder / folder)
        copy = copy_name(self.folder.name, name)
        for file, sha256 in (await download_adapter(service, str(checkpoint["state"]), copy, target)).items():
            self._run.attempt.work.adopt(f"{folder}/{file}", sha256)
        return target

    @property
    def takes_adapters(self) -> bool:
        """Whether the engine keeps adapters that were made elsewhere: `take_adapter` works."""
        return self._run.cell.shared.engine.takes_adapters

    async def take_adapter(self, role: str, folder: Path, rank: int, name: str) -> Row:
        """Bring a PEFT adapter folder of a role's base model in as a checkpoint; returns its row, as `save` does.

        Args:
            role: Whose base model.
            folder: adapter_config.json and adapter_model.safetensors.
            rank: Its LoRA rank, for those who read the row.
            name: What the checkpoint is called.

        Raises:
            EnvironmentProblem: The engine takes none (`takes_adapters`), or not this one.
        """
        return await self._adapters.take(self.model(role), folder, rank, name)

    # -- outputs --------------------------------------------------------------------------------------------------

    def publish(self, kind: str, rows: Sequence[Row]) -> None:
        """Make rows the stage's output of a kind; they become visible together when `run` returns."""
        self._run.attempt.publish(kind, rows)

    def write(self, name: str, value: Any) -> Path:
        """Write a file into the stage's folder, whole: JSON (`.json`), JSON lines (`.jsonl`, from a list), or a text.

        It belongs to the stage's outputs: where it is missing or damaged later, the stage is made again.
        """
        if name.endswith(".jsonl"):
            return self._run.attempt.work.write(name, [canonical(row) + "\n" for row in value])
        return self._run.attempt.work.write(name, value if isinstance(value, str) else indented(value))

    async def keep(self, name: str) -> str:
        """Make a file that the stage has written into its folder by itself one of its outputs, as `write` does.

        Args:
            name: Its path within the folder.

        Returns:
            SHA-256 of its bytes.

        Raises:
            StageFailed: It is not there.
        """
        sha256 = await asyncio.to_thread(file_digest, self.folder / name)
        if sha256 is None:
            raise StageFailed(f"{self.folder / name} is not there", "a defect of the stage")
        self._run.attempt.work.adopt(name, sha256)
        return sha256

    def check(self, name: str, value: float, limit: float, advice: str) -> None:
        """An invariant: |value| within the limit, recorded either way; in a dry run nothing need hold.

        Raises:
            StageFailed: It is not; the text has name, value, limit and advice.
        """
        holds = abs(value) <= limit
        if not self._run.awaited:  # it is told once
            self._run.cell.shared.record("check", self._run, name=name, value=value, limit=limit, holds=holds)
        if not holds and not self.dry:  # what is stored is compared with what nobody has computed
            raise StageFailed(f"{self._run.item.id}: {name} is {value:.3g}, more than {limit:.3g}", advice)

    def log(self, message: str) -> None:
        """One line for the person who watches, recorded in the journal too."""
        if not self._run.awaited:  # it is told once
            self._run.cell.shared.message(self._run, message)

    # -- bookkeeping ----------------------------------------------------------------------------------------------

    def total(self, n: int) -> None:
        """How many units of work the stage has in all, for progress."""
        self._run.attempt.progress(total=n)

    def advance(self, n: int = 1) -> None:
        """Units of work done since the last call."""
        self._run.attempt.progress(done=n)

    def step_done(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        """Tell those who watch that an optimiser step (from 0, of so many) is done, with what its loss reports."""
        self._run.begins.set()
        self._run.tell(events.StepDone(*self._run.place, step, steps, metrics))

    @property
    def stopping(self) -> bool:
        """Whether a person has asked the run to stop: nothing further should be begun."""
        return self._run.cell.shared.stopping

    async def gather(self, work: Iterable[Awaitable[_T]]) -> list[_T]:
        """Await many together, a few hundred at a time; the first error cancels the rest and is raised as it is."""
        return await gather(work)

    async def each(self, rows: Sequence[_T], work: Callable[[_T], Awaitable[Any]]) -> list[Any]:
        """Await `work(row)` for all rows together, advancing the progress by one for each."""

        async def one(row: _T) -> Any:
            result = await work(row)
            self.advance()
            return result

        return await self.gather(one(row) for row in rows)
