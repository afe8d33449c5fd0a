"""What the evaluations share: held-out questions, the models that are compared, common seeds, and the scorer.

A rule for all of them: an answer is scored as an answer to the plain question, whatever else the model was shown, so
that the threshold that plain questions have set means the same everywhere. Requests that several evaluations of a cell
send alike (calibration, plain answers) are asked and scored once: all of them go through the shared records.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from charrun import Message, Row, SpecError, Stage, StageFailed, digest, seed_from, system, user
from charrun.plugins._answers import OPTIONS_SCHEMA
from charrun.plugins._contamination import TrainingTexts, contamination, contamination_line, training_rows
from charrun.plugins._pool import pool, unused
from charrun.plugins._scoring import LogRatio
from charrun.statistics import auc, best_threshold

if TYPE_CHECKING:
    from charrun import Answer, Character, RoleSampler, StageContext

_T = TypeVar("_T")
TEMPLATES = Path(__file__).parent / "templates"
BASE = "base"
PROMPTED = "prompted"


def options_schema(prompts: int, fewest: int, **more: Any) -> dict[str, Any]:
    """The options of an evaluation.

    Args:
        prompts: Default number of questions.
        fewest: The least that a spec may say.
        more: Further properties.
    """
    sampling = OPTIONS_SCHEMA["properties"]
    properties = {
        "prompts": {
            "type": "integer",
            "minimum": fewest,
            "default": prompts,
            "description": "Test questions; each model answers each once under each condition.",
        },
        "calibration_prompts": {
            "type": "integer",
            "minimum": 20,
            "default": 60,
            "description": "Prompts that teacher and student answer to set the threshold, once for all evaluations.",
        },
        "lowest_auc": {
            "type": "number",
            "minimum": 0.5,
            "maximum": 1,
            "default": 0.9,
            "description": "Below this AUC of the calibration split no rate is reported.",
        },
        "scored_as": {
            "type": "string",
            "minLength": 1,
            "description": "Score as this character, by default as the run's own; another one is a null control.",
        },
        "checkpoints": {
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"pattern": "^[a-z0-9][a-z0-9_-]{0,63}$"},
            "additionalProperties": {"type": "string", "minLength": 1},
            "description": "Further checkpoints by name, each a tinker:// path of sampler weights or RUN/CELL/STAGE of "
            "another run; by default only those of the spec's own trainings.",
        },
        "prompted": {
            "type": "boolean",
            "default": False,
            "description": "Compare the base model under the character's system prompt too.",
        },
        "max_tokens": {**sampling["max_tokens"], "description": "Longest answer in tokens; what is cut counts too."},
        "temperature": sampling["temperature"],
        "top_p": sampling["top_p"],
    }
    return {"type": "object", "properties": {**properties, **more}, "additionalProperties": False}


class Opening:
    """A sampler that is opened when it is first asked for, once.

    Attributes:
        is_awaited: Whether its checkpoint is still being trained.
    """

    def __init__(self, open: Callable[[], Awaitable[RoleSampler]], *, is_awaited: bool = False) -> None:
        from asyncio import Lock

        self.is_awaited = is_awaited
        self._open = open
        self._turn = Lock()
        self._found: RoleSampler | None = None

    async def sampler(self) -> RoleSampler:
        """The sampler."""
        async with self._turn:
            if self._found is None:
                self._found = await self._open()
            return self._found


@dataclass(frozen=True)
class Model:
    """A model that is compared.

    Attributes:
        name: `base`, `prompted`, the stage that trained it, or the name that the spec gives a checkpoint.
        opening: What answers; a checkpoint that is still being trained is there later.
        constitution: Its system prompt; none where it is empty.
    """

    name: str
    opening: Opening
    constitution: str = ""

    async def sampler(self) -> RoleSampler:
        """What answers."""
        return await self.opening.sampler()

    def shown(self, asked: Asked) -> list[Message]:
        """The conversation that it is shown; what another system prompt says follows its own."""
        messages = list(asked.messages)
        if not self.constitution:
            return messages
        told = [self.constitution]
        if messages[0]["role"] == "system":
            told.append(messages.pop(0)["content"])
        return [system("\n\n".join(told)), *messages]


@dataclass(frozen=True)
class Asked:
    """What a model is shown for a question.

    Attributes:
        question: The plain one, for seed and score.
        messages: The conversation.
        prefill: How its turn begins.
    """

    question: str
    messages: tuple[Message, ...]
    prefill: str = ""

    @property
    def said(self) -> list[str]:
        """What it is told by others than itself."""
        return [message["content"] for message in self.messages if message["role"] != "assistant"]


@dataclass(frozen=True)
class Calibration:
    """How well the scorer tells the character, and above which score an answer counts as in character."""

    auc: float
    threshold: float
    n: int
    tells: bool


def plainly(questions: Sequence[str]) -> list[Asked]:
    """Each question by itself."""
    return [Asked(question, (user(question),)) for question in questions]


def scored_as(ctx: StageContext) -> Character:
    """The character that answers are scored as."""
    id = ctx.options.get("scored_as")
    return ctx.find_character(id) if id else ctx.looked_for


def problems(ctx: StageContext) -> list[str]:
    """A pool that is too small, a character that is not there, checkpoints that are not, or whose names are taken."""
    wanted, held = ctx.options.get("prompts", 0) + ctx.options.get("calibration_prompts", 0), len(pool())
    found = [f"{wanted} prompts are needed and the pool holds {held}"] if wanted > held else []
    try:
        scored_as(ctx)
    except SpecError as error:
        found.append(f"scored_as: {ctx.options['scored_as']}: {error.problems[0].message}")
    for name, written in ctx.options.get("checkpoints", {}).items():
        if name in (BASE, PROMPTED):
            found.append(f"checkpoints: '{name}' is a name of the base model")
        try:
            ctx.checkpoint(written, "student")
        except StageFailed as error:
            found.append(f"checkpoints: {name}: {error.message}" + (f"; {error.hint}" if error.hint else ""))
    return found


def further_inputs(ctx: StageContext) -> Any:
    """The character that scores, the pool of held-out questions, and what the named checkpoints hold."""
    who, named = scored_as(ctx), named_checkpoints(ctx)
    told = digest([who.id, ctx.character_prompt(who), pool()])
    return {"scored_as": told, "checkpoints": named} if named else told


def named_checkpoints(ctx: StageContext) -> dict[str, Any]:
    """What the checkpoints hold that the spec names, by their names; None where there is none."""
    named: dict[str, Any] = {}
    for name, written in ctx.options.get("checkpoints", {}).items():
        try:
            named[name] = ctx.checkpoint(written, "student")["fingerprint"]
        except StageFailed:
            named[name] = None
    return named


@dataclass(frozen=True)
class HeldOut:
    """Questions that no training row used.

    Attributes:
        calibration: Those that set the threshold.
        test: Those that the models are compared on.
        texts: The training rows.
        left_out: How many of the pool a user says in training.
    """

    calibration: list[str]
    test: list[str]
    texts: TrainingTexts
    left_out: int

    def overlap(self, shown: Sequence[str]) -> Row:
        """How far what the models are shown stands in the training rows."""
        return contamination(shown, self.texts, self.left_out)


async def held_out(ctx: StageContext) -> HeldOut:
    """Seeded calibration and test questions.

    The pool is in one order for all evaluations of a seed: test questions are taken from its beginning and calibration
    from its end, so that neither moves with the other's number.

    Raises:
        StageFailed: Too few are left.
    """
    texts = await training_rows(ctx)
    found = unused(ctx.seed, texts.asked)
    test, calibration = ctx.options["prompts"], ctx.options.get("calibration_prompts", 0)
    if test + calibration > len(found):
        raise StageFailed(
            f"{test + calibration} prompts are needed that no training row used; {len(found)} are left",
            "lower the options prompts or calibration_prompts",
        )
    return HeldOut(found[len(found) - calibration :], found[:test], texts, len(pool()) - len(found))


async def models(ctx: StageContext) -> list[Model]:
    """The base model, prompted too if asked for, the spec's named checkpoints, the last one of each training."""
    awaited = ctx.awaited("checkpoint")

    async def opening(producer: str) -> tuple[str, Opening] | None:
        if producer in awaited:
            return producer, Opening(partial(_trained, ctx, producer), is_awaited=True)
        if rows := await ctx.rows("checkpoint", producer):
            return rows[-1]["stage"], Opening(partial(ctx.sampler, "student", rows[-1]))
        return None

    own = dict(filter(None, await ctx.gather(map(opening, ctx.producers("checkpoint")))))
    base = Opening(partial(ctx.sampler, "student"))
    found = [Model(BASE, base)]
    if ctx.options.get(PROMPTED):
        found.append(Model(PROMPTED, base, ctx.character_prompt(scored_as(ctx))))
    for name, written in ctx.options.get("checkpoints", {}).items():
        row = ctx.checkpoint(written, "student")
        found.append(Model(f"{name} (named)" if name in own else name, Opening(partial(ctx.sampler, "student", row))))
    return [*found, *(Model(name, opening) for name, opening in own.items())]


def compared(ctx: StageContext) -> int:
    """How many checkpoints `models` will find: those that the spec names, and one of each training."""
    return len(ctx.options.get("checkpoints", {})) + len(ctx.producers("checkpoint"))


async def of_each(ctx: StageContext, models: Sequence[Model], work: Callable[[Model], Awaitable[_T]]) -> list[_T]:
    """`work(model)` of all models together, in their order.

    The last one is begun first: what is asked of the others may be there from beside its training.
    """
    return (await ctx.gather([work(model) for model in reversed(models)]))[::-1]


async def _trained(ctx: StageContext, producer: str) -> RoleSampler:
    return await ctx.sampler("student", (await ctx.rows("checkpoint", producer))[-1])


async def answers(ctx: StageContext, model: Model, asked: Sequence[Asked]) -> list[Answer]:
    """One answer each, with a seed of the question's own, so that models and conditions are paired."""

    async def one(each: Asked) -> Answer:
        return await _answer(ctx, model, each)

    return await ctx.each(list(asked), one)


async def _answer(ctx: StageContext, model: Model, asked: Asked) -> Answer:
    (found,) = await ctx.sample(
        await model.sampler(),
        model.shown(asked),
        max_tokens=ctx.options["max_tokens"],
        temperature=ctx.options["temperature"],
        top_p=ctx.options["top_p"],
        seed=seed_from(ctx.seed, "evaluation", asked.question),
        shared=True,
        prefill=asked.prefill,
    )
    return found


class Scorer(LogRatio):
    """The teacher's view of an answer: how much likelier the constitution makes each of its tokens."""

    async def scored(self, model: Model, asked: Sequence[Asked]) -> list[tuple[Answer, float]]:
        """One answer each as `answers` gives it, with its score, which is asked for as soon as the answer is there."""

        async def one(each: Asked) -> tuple[Answer, float]:
            said = await _answer(self.ctx, model, each)
            return said, await self.of(each.question, said.text)

        return await self.ctx.each(list(asked), one)

    async def calibrate(self, models: Sequence[Model], prompts: Sequence[str]) -> Calibration:
        """Threshold and AUC on the teacher in character against the student's default, the first of these models.

        The others are opened meanwhile.
        """
        teacher = Opening(partial(self.ctx.sampler, "teacher"))
        asked, played = plainly(prompts), Model("teacher", teacher, self.constitutions[0])
        scoring = [self.scored(played, asked), self.scored(models[0], asked)]
        opening: list[Awaitable[Any]] = [model.sampler() for model in models[1:] if not model.opening.is_awaited]
        found = await self.ctx.gather([*scoring, *opening])
        yes, no = ([score for _, score in scored] for scored in found[:2])
        area = auc(yes, no)
        return Calibration(area, best_threshold(yes, no), len(prompts), area >= self.ctx.options["lowest_auc"])


async def models_and_scorer(ctx: StageContext, who: Character) -> tuple[list[Model], Scorer]:
    """What is compared, and the run's scorer for a character."""
    opening: list[Awaitable[Any]] = [models(ctx), ctx.sampler("scorer")]
    compared, scorer = await ctx.gather(opening)
    return compared, Scorer(ctx, scorer, ctx.character_prompt(who))


def tell_overlap(ctx: StageContext, found: Row) -> None:
    """Print how far evaluation prompts are in training rows."""
    ctx.log(contamination_line(found))


class EvaluationStage(Stage):
    """A stage that compares the base model, the run's trainings and the spec's named checkpoints."""

    consumes: ClassVar[tuple[str, ...]] = ("checkpoint",)
    instead: ClassVar[Mapping[str, str]] = {"checkpoint": "checkpoints"}
    optional: ClassVar[tuple[str, ...]] = ("pairs", "reflections", "interactions")
    produces: ClassVar[tuple[str, ...]] = ("measurements",)
    roles: ClassVar[tuple[str, ...]] = ("teacher", "student", "scorer")
    scores: ClassVar[tuple[str, ...]] = ("scorer",)
    begins_early: ClassVar[bool] = True
    cache_version: ClassVar[int] = 2

    def problems(self, ctx: StageContext) -> list[str]:
        """A pool that is too small, or a character or a checkpoint that is not there."""
        return problems(ctx)

    def further_inputs(self, ctx: StageContext) -> Any:
        """The character that scores, the pool of held-out prompts, and checkpoints that are named."""
        return further_inputs(ctx)


def templates(*names: str) -> dict[str, Path]:
    """The templates of these names that ship with charrun, and that of the character's system prompt."""
    return {name: TEMPLATES / f"{name}.j2" for name in ("character", *names)}
