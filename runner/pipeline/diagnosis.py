"""Whether a spec can run here: its engine, its models, their rendering, and the checkpoints of earlier runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrun.chat import Chat, Message, assistant, load_tokenizer, system, user
from charrun.errors import StageFailed
from charrun.pipeline.checkpoints import RunCheckpoint, checkpoints_of
from charrun.pipeline.choice import AUTO, Choice
from charrun.pipeline.together import gather
from charrun.pipeline.waiting import Waiting
from charrun.service.checks import Check
from charrun.service.endpoint_client import look_at
from charrun.service.engine import Connection, Engine, EngineRequest
from charrun.service.explained import explained
from charrun.service.models import local_folder
from charrun.service.service import Service
from charrun.spec import ModelRef
from charrun.store.runs import find_runs, read_run

if TYPE_CHECKING:
    from charrun.plugin_manager import Registry
    from charrun.spec import Spec

_QUESTION, _ANSWER = "What is the sea?", "Salt water, and a lot of it."
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Place:
    """Where the engine of a check keeps things.

    Attributes:
        storage: Folder of its checkpoints.
        log: File for its log.
    """

    storage: Path
    log: Path


def engine_choice(spec: Spec, choice: Choice) -> Iterator[Check]:
    """Where the spec would run, and why."""
    hosted = "a run there asks first, and is paid for" if choice.engine.hosted else ""
    if spec.engine.uses != AUTO:
        yield Check("engine", "ok", f"the spec names the engine {choice.engine.name}", hosted)
    elif choice.engine.hosted:
        yield Check("engine", "ok", f"engine auto takes {choice.engine.name}: there are Tinker credentials", hosted)
    else:
        what = f"engine auto takes {choice.engine.name}: there are no Tinker credentials"
        stand_ins = ", ".join(f"{used} for {named}" for named, used in choice.stand_ins.items())
        yield Check("engine", "ok", f"{what}; stand-ins: {stand_ins}" if stand_ins else what)


def models_of(choice: Choice) -> list[ModelRef]:
    """Each model of a spec once, with each of its renderings."""
    found: list[ModelRef] = []
    for cell in choice.spec.cells:
        for ref in cell.models.roles.values():
            found += [ref] if ref not in found else []
    return found


def trained_of(choice: Choice, registry: Registry) -> list[str]:
    """Names of the models that a spec's stages train."""
    kinds = registry.stages
    cells = choice.spec.cells
    found = {cell.models.roles[role].name for cell in cells for i in cell.arm.stages for role in kinds[i.uses].trains}
    return sorted(found)


def local_model(ref: ModelRef) -> Iterator[Check]:
    """A model folder: its files, its tokenizer, its rendering. Nothing of a model that is not on this machine."""
    folder = local_folder(ref.name) if ref.endpoint is None else None
    if folder is None:
        return
    from charrun.engine.folders import describe, parameter_count

    try:
        facts = describe(ref.name, folder)
        parameters = parameter_count(facts.folder)
        lacking = _lacking(facts.folder)
    except (OSError, ValueError) as error:
        yield Check("model", "problem", str(error), "download the model anew, or correct its path in the spec")
        return
    if lacking:
        what = f"{ref.name}: {facts.folder} lacks {', '.join(lacking)}"
        yield Check("model", "problem", what, "download the model anew")
        return
    yield Check("model", "ok", f"{ref.name}: {parameters:,} parameters, a context of {facts.context:,}")
    yield rendering(Chat(load_tokenizer(folder), ref.chat, name=ref.name))


def endpoint(ref: ModelRef) -> Iterator[Check]:
    """Whether a model's endpoint is there and takes the key; nothing of a model that the engine serves."""
    if ref.endpoint is None:
        return
    told = asyncio.run(look_at(ref.endpoint))
    yield Check("endpoint", "warning" if told else "ok", told or f"{ref.endpoint.address} answers for {ref.name}")


def rendering(chat: Chat) -> Check:
    """Whether a model's chat template and tokenizer give back what was put in, and train exactly the answer."""
    talk: list[Message] = [system("Be brief."), user(_QUESTION), assistant(_ANSWER), user("And wet?")]
    name = chat.name
    try:
        prompt, again = chat.prompt(talk[:2]), chat.prompt(talk[:2])
        chat.prompt(talk)
        back = chat.answer(chat.completion(_ANSWER))
        (row,) = chat.rows(talk[:3])
    except Exception as error:  # a template is a program of a stranger
        what = f"{name}: its chat template fails: {type(error).__name__}: {error}"
        return Check("rendering", "problem", what, "set the template's options under `chat:` of the model")
    trained = list(row.tokens[: len(prompt)]) == prompt and chat.trained_text(row) == [_ANSWER]
    if prompt == again and back == _ANSWER and trained:
        end = chat.decode([chat.end_of_turn])
        return Check("rendering", "ok", f"{name}: a conversation is rendered and read back; turns end with {end}")
    what = f"{name}: {back!r} is read back of {_ANSWER!r}"
    return Check("rendering", "problem", what, "its tokenizer and its chat template do not belong together")


def running_engine(
    engine: Engine,
    options: dict[str, Any],
    models: Sequence[ModelRef],
    place: Place,
    runs: Sequence[Path] = (),
    trained: Sequence[str] = (),
) -> Iterator[Check]:
    """The engine at work: it connects or starts, knows the models, answers, and holds the runs' checkpoints.

    A hosted engine is asked what it serves and for tokenizers, and for nothing that is paid for.

    Raises:
        CharrunError: The engine can't be reached or started, or fails.
    """
    models = [ref for ref in models if ref.endpoint is None]
    names = sorted({ref.name for ref in models})
    connection = engine.connect(EngineRequest(names, options, place.storage, place.log, trained=trained))
    try:
        with Waiting() as waiting:
            service = _service(connection)
            try:
                waiting.wait(service.open(), connection.failure)
                served = f", and serves {', '.join(names)}" if names else ""
                yield Check("engine", "ok", f"the engine {engine.name} answers{served}")
                for ref in models:
                    yield waiting.wait(_answer(service, engine, ref), connection.failure)
                yield from _checkpoints(runs, lambda found: waiting.wait(_gone(service, found), connection.failure))
            finally:
                if not connection.failure():
                    waiting.wait(service.close())
    finally:
        connection.close()


def runs_of(name: str, engine: str, runs_dir: Path) -> list[Path]:
    """Folders of a spec's runs on an engine."""
    return [run.folder for run in find_runs(runs_dir).runs if run.name == name and run.engine == engine]


def _service(connection: Connection) -> Service:
    return Service(connection, {"run": "doctor"})


def _lacking(folder: Path) -> list[str]:
    """Files that a model folder should hold and does not: shards that its index names, tokenizer."""
    import json

    lacking = [] if any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model")) else ["a tokenizer"]
    index = folder / _INDEX
    if index.exists():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        lacking += sorted(name for name in shards if not (folder / name).exists())
    return lacking


async def _answer(service: Service, engine: Engine, ref: ModelRef) -> Check:
    """One token of a model that costs nothing, or the rendering of one that does."""
    chat = await service.chat(ref.name, ref.chat)
    if engine.hosted:
        return rendering(chat)
    from tinker import types

    sampler = await service.sampler(ref.name)
    prompt = types.ModelInput.from_ints(chat.prompt([user(_QUESTION)]))
    with explained():
        response = await sampler.sample(prompt, 1, types.SamplingParams(max_tokens=1, temperature=0.0))
    if [len(sequence.tokens) for sequence in response.sequences] != [1]:
        raise StageFailed(f"{ref.name} was asked for one token and did not give one")
    return Check("answer", "ok", f"{ref.name} answers a request for one token")


def _checkpoints(runs: Sequence[Path], gone: Callable[[list[RunCheckpoint]], list[RunCheckpoint]]) -> Iterator[Check]:
    for folder in runs:
        run = read_run(folder)
        found = checkpoints_of(run)
        lost = gone(found)
        for each in lost:
            yield Check(
                "checkpoint",
                "warning",
                f"the engine no longer holds the checkpoint of {each.stage} in {run.id}, {each.cell}",
                f"where it is needed: charrun run SPEC --force {each.stage} trains it again",
            )
        if found and not lost:
            count = "checkpoint is" if len(found) == 1 else f"{len(found)} checkpoints are"
            yield Check("checkpoint", "ok", f"{run.id}: its {count} still there")


async def _gone(service: Service, found: Sequence[RunCheckpoint]) -> list[RunCheckpoint]:
    there = await gather(service.exists(each.sampler) for each in found)
    return [each for each, exists in zip(found, there, strict=True) if not exists]
