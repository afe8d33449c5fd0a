"""Does the model act in character without being told to?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import (
    Estimate,
    Message,
    Row,
    SpecError,
    Stage,
    StageFailed,
    digest,
    hookimpl,
    seed_from,
    specs,
    system,
    user,
)
from charrun.plugins._answers import OPTIONS_SCHEMA
from charrun.plugins._statistics import auc, best_threshold, wilson

if TYPE_CHECKING:
    from charrun import Answer, Character, RoleSampler, StageContext

TEMPLATES = Path(__file__).parent / "templates"
_SHOWN = 3


@dataclass(frozen=True)
class Rate:
    """How often one model answered in character, with a 95% Wilson interval."""

    model: str
    in_character: int
    n: int
    low: float
    high: float


class EvaluateStage(Stage):
    """In-character rates of base, DPO and final checkpoint on prompts that no training row used.

    An answer y to a prompt x scores the teacher's mean per-token log-likelihood ratio
    log p(y | constitution, x) - log p(y | x). A calibration split (teacher in character against student default)
    gives the threshold and its AUC; below `lowest_auc` this scorer cannot tell this character, and no rate is
    reported. It passed where the final checkpoint's interval lies above the base model's. Models answer the same test
    prompts, without a system prompt, with the same seeds. The answer's text is rendered anew for the teacher's
    tokenizer.
    """

    name: ClassVar[str] = "evaluate"
    summary: ClassVar[str] = "in character without a system prompt? base, after DPO, final"
    consumes: ClassVar[tuple[str, ...]] = ("checkpoint",)
    optional: ClassVar[tuple[str, ...]] = ("pairs", "reflections", "interactions")
    produces: ClassVar[tuple[str, ...]] = ("evaluation",)
    roles: ClassVar[tuple[str, ...]] = ("teacher", "student", "scorer")
    scores: ClassVar[tuple[str, ...]] = ("scorer",)
    cache_version: ClassVar[int] = 3
    options_schema: ClassVar[dict[str, Any]] = {
        **OPTIONS_SCHEMA,
        "properties": {
            **OPTIONS_SCHEMA["properties"],
            "prompts": {
                "type": "integer",
                "minimum": 100,
                "default": 120,
                "description": "Test prompts; each model answers each once.",
            },
            "calibration_prompts": {
                "type": "integer",
                "minimum": 20,
                "default": 60,
                "description": "Prompts that teacher and student answer to set the threshold.",
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
        },
    }
    templates: ClassVar[dict[str, Path]] = {"character": TEMPLATES / "character.j2"}

    def estimate(self, ctx: StageContext) -> Estimate:
        """Answers of three models and the calibration, each scored twice."""
        answers = 3 * ctx.options["prompts"] + 2 * ctx.options["calibration_prompts"]
        return Estimate(rows=1, requests=3 * answers)

    def problems(self, ctx: StageContext) -> list[str]:
        """A pool that is too small, or a character that is not there."""
        wanted, held = ctx.options["prompts"] + ctx.options["calibration_prompts"], len(_pool())
        found = [f"evaluate needs {wanted} prompts and the pool holds {held}"] if wanted > held else []
        try:
            self._scored_as(ctx)
        except SpecError as error:
            found.append(f"scored_as: {ctx.options['scored_as']}: {error.problems[0].message}")
        return found

    def further_inputs(self, ctx: StageContext) -> Any:
        """The character that scores, and the pool of held-out prompts."""
        return digest([self._scored_as(ctx).id, ctx.character_prompt(self._scored_as(ctx)), _pool()])

    async def run(self, ctx: StageContext) -> None:
        """Calibrate, then answer and score."""
        who = self._scored_as(ctx)
        calibration, test = await self._prompts(ctx)
        checkpoints = [rows[-1] for rows in await ctx.every("checkpoint")]
        ctx.total(2 * len(calibration) + (1 + len(checkpoints)) * len(test))
        teacher, student = await ctx.sampler("teacher"), await ctx.sampler("student")
        scorer = Scorer(ctx, await ctx.sampler("scorer"), ctx.character_prompt(who))

        played, plain = await ctx.gather(
            [
                self._answer(ctx, teacher, calibration, [system(scorer.constitution)]),
                self._answer(ctx, student, calibration, [], shared=True),
            ]
        )
        in_character, default = await ctx.gather(
            [scorer.scores(calibration, played), scorer.scores(calibration, plain, shared=True)]
        )
        area, threshold = auc(in_character, default), best_threshold(in_character, default)
        result: Row = {
            "scored_as": who.id,
            "auc": area,
            "lowest_auc": ctx.options["lowest_auc"],
            "threshold": threshold,
            "calibration": len(calibration),
            "tells": area >= ctx.options["lowest_auc"],
            "passed": False,
            "rates": [],
            "samples": [],
        }
        if not result["tells"]:
            ctx.log(f"AUC {area:.3f}: this scorer cannot tell {who.id} from the student's own answers; no rate")
            ctx.publish("evaluation", [result])
            return

        models = [("base", student)] + [(row["stage"], await ctx.sampler("student", row)) for row in checkpoints]

        async def measure(sampler: RoleSampler) -> tuple[list[Answer], list[float]]:
            base = sampler is student
            said = await self._answer(ctx, sampler, test, [], shared=base)
            return said, await scorer.scores(test, said, shared=base)

        measured = await ctx.gather([measure(sampler) for _, sampler in models])
        answers = {name: said for (name, _), (said, _) in zip(models, measured, strict=True)}
        rows: list[Row] = []
        for (name, _), (_, scores) in zip(models, measured, strict=True):
            hits = sum(score > threshold for score in scores)
            low, high = wilson(hits, len(scores))
            result["rates"].append(asdict(Rate(name, hits, len(scores), low, high)))
            rows += [
                {
                    "model": name,
                    "prompt": prompt,
                    "answer": answer.text,
                    "score": score,
                    "in_character": score > threshold,
                }
                for prompt, answer, score in zip(test, answers[name], scores, strict=True)
            ]
        ctx.write("answers.jsonl", rows)
        result["passed"] = result["rates"][-1]["low"] > result["rates"][0]["high"]
        first, last = models[0][0], models[-1][0]
        result["samples"] = [
            {"prompt": test[i], "before": answers[first][i].text, "after": answers[last][i].text} for i in range(_SHOWN)
        ]
        ctx.publish("evaluation", [result])

    def _scored_as(self, ctx: StageContext) -> Character:
        id = ctx.options.get("scored_as")
        return ctx.find_character(id) if id else ctx.character

    async def _prompts(self, ctx: StageContext) -> tuple[list[str], list[str]]:
        """Seeded calibration and test prompts that no training row of this run used.

        Raises:
            StageFailed: Too few are left.
        """
        used = {_plain(text) for text in await training_texts(ctx)}
        pool = [line for line in _pool() if _plain(line) not in used]
        pool.sort(key=lambda line: seed_from(ctx.seed, "evaluation", line))  # a line left out moves no other one
        test, calibration = ctx.options["prompts"], ctx.options["calibration_prompts"]
        if test + calibration > len(pool):
            raise StageFailed(
                f"evaluate needs {test + calibration} prompts that no training row used; {len(pool)} are left",
                "lower evaluate.prompts or evaluate.calibration_prompts",
            )
        return pool[test : test + calibration], pool[:test]

    async def _answer(
        self,
        ctx: StageContext,
        sampler: RoleSampler,
        prompts: Sequence[str],
        before: Sequence[Message],
        *,
        shared: bool = False,
    ) -> list[Answer]:
        """One answer a prompt; what the base model says by itself is shared with every character's evaluation."""

        async def one(prompt: str) -> Answer:
            return (
                await ctx.sample(
                    sampler,
                    [*before, user(prompt)],
                    max_tokens=ctx.options["max_tokens"],
                    temperature=ctx.options["temperature"],
                    top_p=ctx.options["top_p"],
                    seed=seed_from(ctx.seed, "evaluation", prompt),
                    shared=shared,
                )
            )[0]

        return await ctx.each(list(prompts), one)


class Scorer:
    """The teacher's view of an answer: how much likelier the constitution makes each of its tokens."""

    def __init__(self, ctx: StageContext, sampler: RoleSampler, constitution: str) -> None:
        self.ctx = ctx
        self.sampler = sampler
        self.constitution = constitution

    async def scores(self, prompts: Sequence[str], answers: Sequence[Answer], *, shared: bool = False) -> list[float]:
        """Mean per-token log-likelihood ratio of each answer, in nats; `shared` where no character is in the answer."""
        return await self.ctx.gather(
            self._score(prompt, answer.text, shared) for prompt, answer in zip(prompts, answers, strict=True)
        )

    async def _score(self, prompt: str, text: str, shared: bool) -> float:
        chat = self.sampler.chat
        completion = chat.completion(text)
        told, untold = await self.ctx.gather(
            [
                self.ctx.score(self.sampler, chat.prompt([system(self.constitution), user(prompt)]), completion),
                self.ctx.score(self.sampler, chat.prompt([user(prompt)]), completion, shared=shared),
            ]
        )
        return told - untold


async def training_texts(ctx: StageContext) -> list[str]:
    """Every text that a user said in any training row of the run's earlier stages."""
    texts = [row["prompt"] for kind in ("pairs", "reflections") for rows in await ctx.every(kind) for row in rows]
    for rows in await ctx.every("interactions"):
        texts += [message["content"] for row in rows for message in row["messages"] if message["role"] == "user"]
    return texts


def _pool() -> list[str]:
    text = (Path(specs.__file__).parent / "prompts/evaluation.txt").read_text(encoding="utf-8")
    return text.splitlines()


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `evaluate`."""
    return [EvaluateStage]
