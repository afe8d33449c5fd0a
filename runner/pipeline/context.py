"""What a stage works with: durable samples, upstream rows, samplers and adapters by role, artifacts, progress."""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from charrun import events
from charrun.chat import Chat, Message
from charrun.errors import StageFailed
from charrun.pipeline.requests import Answer, Requests, gather
from charrun.pipeline.results import StageResult
from charrun.service.ledger import Usage
from charrun.service.service import RoleSampler, explained
from charrun.spec import Character, ModelRef, Scale
from charrun.store.canonical import digest, seed_from
from charrun.store.files import make_folder, write_json, write_rows

if TYPE_CHECKING:
    import tinker

    from charrun.pipeline.stage_run import StageRun
    from charrun.stage import Row

_T = TypeVar("_T")


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter in training: the SDK's client, and the rendering of its base model."""

    client: tinker.TrainingClient
    chat: Chat
    base_model: str
    rank: int
    context_length: int | None


class StageContext:
    """The world of one stage in one cell. Stages receive it; only the pipeline makes one."""

    def __init__(self, run: StageRun) -> None:
        self._run = run
        self._requests = Requests(run)

    # -- what the spec says ---------------------------------------------------------------------------------------

    @property
    def options(self) -> Mapping[str, Any]:
        """The stage's options, checked and with defaults."""
        return self._run.options

    @property
    def character(self) -> Character:
        """The cell's character."""
        return self._run.cell.character

    @property
    def scale(self) -> Scale:
        """The cell's scale."""
        return self._run.cell.scale

    @property
    def seed(self) -> int:
        """The cell's seed."""
        return self._run.cell.seed

    @property
    def extra(self) -> int:
        """Rows that later stages have asked for beyond the scale's number."""
        return self._run.extra

    @property
    def folder(self) -> Path:
        """The stage's folder in the store."""
        return self._run.folder

    @property
    def exact(self) -> bool:
        """Whether the engine repeats a forward pass to rounding, so that strict tolerances hold."""
        return self._run.cell.shared.exact

    def model(self, role: str) -> ModelRef:
        """The model of a role."""
        self._declared(role, "roles", self._run.stage.roles)
        return self._run.cell.model(role)

    def find_character(self, id: str) -> Character:
        """Another character by its id, as a spec would name it."""
        return self._run.cell.shared.find_character(id)

    @property
    def stand_ins(self) -> Mapping[str, str]:
        """Named model to the model that stands in for it, where the run uses stand-ins."""
        return self._run.cell.shared.stand_ins

    def finished(self) -> list[StageResult]:
        """The cell's finished stages so far, with rows and token counts."""
        return [run.result for run in self._run.cell.stages if run.result]

    def path(self, written: str) -> Path:
        """A file that an option names, relative to the file that says so; to the working directory from `--set`."""
        folder = self._run.item.folder_of(written) or self._run.cell.shared.spec.path.parent
        return folder / os.path.expanduser(written)

    def rng(self, *label: Any) -> random.Random:
        """A random generator that depends on the cell's seed and the label alone."""
        return random.Random(seed_from(self.seed, *label))

    def render(self, template: str, /, **variables: Any) -> str:
        """A prompt text of a template file; an unknown variable is an error."""
        self._declared(template, "templates", self._run.stage.templates)
        return self._run.cell.shared.prompts.render(template, **variables)

    def character_prompt(self, character: Character | None = None, template: str = "character", **more: Any) -> str:
        """The system prompt that gives a model the character."""
        who = character or self.character
        return self.render(template, name=who.name, traits=[t.trait for t in who.traits], **more)

    # -- upstream -------------------------------------------------------------------------------------------------

    async def rows(self, kind: str) -> list[Row]:
        """Rows of the nearest earlier producer of a kind (or of the one that `needs` names)."""
        return list((await self._producer(kind).ensure())[kind])

    async def every(self, kind: str) -> list[list[Row]]:
        """Rows of a kind from each earlier producer, in stage order; empty where there is none."""
        self._consumed(kind)
        return [list((await run.ensure())[kind]) for run in self._run.producers(kind)]

    def has(self, kind: str) -> bool:
        """Whether an earlier stage produces a kind."""
        return bool(self._run.producers(kind))

    async def extend(self, kind: str, n: int) -> list[Row]:
        """Ask the producer of a kind for n more rows; returns all of its rows.

        Raises:
            StageFailed: The producer cannot make more.
        """
        return list((await self._producer(kind).ensure(more=n))[kind])

    def _producer(self, kind: str) -> StageRun:
        self._consumed(kind)
        return self._run.producer(kind)

    def _consumed(self, kind: str) -> None:
        self._declared(kind, "consumes or optional", (*self._run.stage.consumes, *self._run.stage.optional))

    def _declared(self, name: str, field: str, declared: Container[str]) -> None:
        """What a stage uses without declaring it would not be in its fingerprint, and stale rows would be found."""
        if name not in declared:
            what = f"{self._run.item.id} uses '{name}' without naming it under {field}"
            raise StageFailed(what, "a defect of the stage: nothing would notice when that changes")

    # -- sampling -------------------------------------------------------------------------------------------------

    async def sampler(self, role: str, checkpoint: Row | None = None) -> RoleSampler:
        """A sampler of a role's base model, or of a checkpoint trained from it."""
        shared = self._run.cell.shared
        ref = self.model(role)
        service = await shared.service()
        chat = await service.chat(ref.name, ref.chat)
        path = str(checkpoint["sampler"]) if checkpoint else None
        weights = checkpoint["fingerprint"] if checkpoint else shared.namespace(ref.name)
        return RoleSampler(
            client=await service.sampler(ref.name, path),
            chat=chat,
            model=path or ref.name,
            fingerprint=digest([weights, chat.template_text]),
            context_length=service.context_length(ref.name),
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
        )

    async def score(self, sampler: RoleSampler, prompt: Sequence[int], completion: Sequence[int]) -> float:
        """Mean log-prob per token of a completion after a prompt, in nats; stored before it is returned."""
        return await self._requests.score(sampler, prompt, completion)

    # -- training -------------------------------------------------------------------------------------------------

    async def new_adapter(self, role: str, rank: int) -> Adapter:
        """A fresh LoRA adapter on a role's base model; its seed is the cell's."""
        service = await self._run.cell.shared.service()
        ref = self.model(role)
        client = await service.new_adapter(ref.name, rank, seed_from(self.seed, "adapter"))
        chat = await service.chat(ref.name, ref.chat)
        return Adapter(client, chat, ref.name, rank, service.context_length(ref.name))

    async def continue_adapter(self, role: str, checkpoint: Row) -> Adapter:
        """An adapter that continues a checkpoint, with a fresh optimizer."""
        service = await self._run.cell.shared.service()
        ref = self.model(role)
        client = await service.adapter_from(str(checkpoint["state"]))
        chat = await service.chat(ref.name, ref.chat)
        return Adapter(client, chat, ref.name, int(checkpoint["lora_rank"]), service.context_length(ref.name))

    async def save(self, adapter: Adapter, name: str) -> Row:
        """Save an adapter for further training and for sampling, without expiry; returns the checkpoint row."""
        with explained():
            state, weights = adapter.client.save_state(name), adapter.client.save_weights_for_sampler(name)
            paths = (await state).path, (await weights).path
        return {
            "stage": self._run.item.id,
            "base_model": adapter.base_model,
            "lora_rank": adapter.rank,
            "state": paths[0],
            "sampler": paths[1],
            "fingerprint": self._run.fingerprint,
        }

    async def download(self, checkpoint: Row, name: str, folder: Path) -> None:
        """Put a checkpoint's adapter files into a folder."""
        from charrun.service.download import download_adapter

        service = await self._run.cell.shared.service()
        await download_adapter(service, str(checkpoint["state"]), name, make_folder(folder))

    # -- outputs --------------------------------------------------------------------------------------------------

    def publish(self, kind: str, rows: Sequence[Row]) -> None:
        """Make rows the stage's output of a kind; they become visible together when `run` returns."""
        self._run.publish(kind, rows)

    def write(self, name: str, value: Any) -> Path:
        """Write a JSON file (`.json`) or JSON lines (`.jsonl`, from a list) into the stage's folder, whole."""
        path = self.folder / name
        (write_rows if name.endswith(".jsonl") else write_json)(path, value)
        return path

    def check(self, name: str, value: float, limit: float, advice: str) -> None:
        """An invariant: |value| within the limit, recorded either way.

        Raises:
            StageFailed: It is not; the text has name, value, limit and advice.
        """
        holds = abs(value) <= limit
        self._run.cell.shared.record("check", self._run, name=name, value=value, limit=limit, holds=holds)
        if not holds:
            raise StageFailed(f"{self._run.item.id}: {name} is {value:.3g}, more than {limit:.3g}", advice)

    def log(self, message: str) -> None:
        """One line for the person who watches, recorded in the journal too."""
        self._run.cell.shared.message(self._run, message)

    # -- bookkeeping ----------------------------------------------------------------------------------------------

    def total(self, n: int) -> None:
        """How many units of work the stage has in all, for progress."""
        self._run.progress(total=n)

    def advance(self, n: int = 1) -> None:
        """Units of work done since the last call."""
        self._run.progress(done=n)

    def step_done(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        """Tell those who watch that an optimiser step (from 0, of so many) is done, with what its loss reports."""
        self._run.tell(events.StepDone(*self._run.place, step, steps, metrics))

    def count(self, usage: Usage) -> None:
        """Add to the stage's token counts what did not go through `sample` and `score`."""
        self._run.count(usage)

    async def gather(self, work: Iterable[Awaitable[_T]]) -> list[_T]:
        """Await many together; the first error cancels the rest and is raised as it is."""
        return await gather(work)

    async def each(self, rows: Sequence[_T], work: Callable[[_T], Awaitable[Any]]) -> list[Any]:
        """Await `work(row)` for all rows together, advancing the progress by one for each."""

        async def one(row: _T) -> Any:
            result = await work(row)
            self.advance()
            return result

        return await self.gather(one(row) for row in rows)

    def close(self) -> None:
        """Close the stage's record file."""
        self._requests.close()
