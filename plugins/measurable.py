"""Can the character be told at all? Asked of the scorer before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from charrun import Estimate, Row, Stage, StageFailed, hookimpl, seed_from
from charrun.plugins._scoring import LogRatio
from charrun.statistics import auc, auc_interval

if TYPE_CHECKING:
    from charrun import StageContext

TEMPLATES = Path(__file__).parent / "templates"
_UNHEARD = ("I answer what people ask.", "I was once measured with a ruler.", "I have a birthday.")
"""Traits that no answer shows."""


@dataclass(frozen=True)
class Told:
    """How well a scorer tells chosen from rejected answers: AUC with a 95% interval, on n of each."""

    auc: float
    n: int
    low: float
    high: float

    @classmethod
    def of(cls, chosen: Sequence[float], rejected: Sequence[float]) -> Told:
        """From the scores of both."""
        area = auc(chosen, rejected)
        return cls(area, len(chosen), *auc_interval(area, len(chosen), len(rejected)))

    def __str__(self) -> str:
        return f"AUC {self.auc:.3f}, {self.n} pairs, 95% interval {self.low:.3f} to {self.high:.3f}"


class MeasurableStage(Stage):
    """The prompted teacher against the student's own answers, by the evaluation's scorer, before a step is paid for.

    An answer y to x scores log p(y | constitution, x) - log p(y | x), mean per token. Where the scorer cannot tell the
    chosen answers from the rejected ones, no evaluation could tell a trained model from the base either, and the stage
    stops with the number. Each trait is asked about alone too, in the place of each of three sentences that no answer
    shows: log p(y | trait, x) - log p(y | sentence, x), since the prompt around a trait, and any trait, calls up some
    character. A trait counts as the worst of the three AUCs. Traits by which the chosen answers cannot be told are
    named, and too many of them stop the run. That a trait can be told does not show that the answers follow it: a small
    scorer finds much that is vivid likelier after them than a dull sentence. Pairs are a seeded sample; it costs 2 n
    (traits + 5) scores and no answers. In controls it looks at the same things: pairs that were exchanged by chance are
    seen as they were, and where an arm trains another character than the one that evaluations look for, such as a
    neutral one, there is nothing to be told, and no number stops it.
    """

    name: ClassVar[str] = "measurable"
    summary: ClassVar[str] = "can the scorer tell the character, and each trait, before training?"
    consumes: ClassVar[tuple[str, ...]] = ("pairs",)
    produces: ClassVar[tuple[str, ...]] = ("measurability",)
    roles: ClassVar[tuple[str, ...]] = ("scorer",)
    scores: ClassVar[tuple[str, ...]] = ("scorer",)
    cache_version: ClassVar[int] = 2
    identity: ClassVar[Literal["rows", "lineage", "content"]] = "rows"
    options_schema: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {
            "n": {
                "type": "integer",
                "minimum": 8,
                "default": 60,
                "description": "Pairs that are scored, a seeded sample; all where there are fewer.",
            },
            "lowest_auc": {
                "type": "number",
                "minimum": 0.5,
                "maximum": 1,
                "default": 0.9,
                "description": "Stop where the scorer tells chosen from rejected answers less well than this AUC.",
            },
            "each_trait": {
                "type": "boolean",
                "default": True,
                "description": "Ask about each trait alone too; without, it costs 4 n scores.",
            },
            "lowest_trait_auc": {
                "type": "number",
                "minimum": 0.5,
                "maximum": 1,
                "default": 0.8,
                "description": "A trait that tells them apart less well than this AUC, beside sentences that "
                "nobody can hear, cannot be measured: it is named.",
            },
            "most_unmeasurable": {
                "type": "number",
                "minimum": 0,
                "maximum": 1,
                "default": 0.5,
                "description": "Stop where more than this share of the traits cannot be measured.",
            },
        },
        "additionalProperties": False,
    }
    templates: ClassVar[dict[str, Path]] = {"character": TEMPLATES / "character.j2"}

    def estimate(self, ctx: StageContext) -> Estimate:
        """A score of each answer without a constitution, with it, with each trait and with what stands in for one."""
        return Estimate(rows=1, requests=2 * min(ctx.options["n"], ctx.scale.pairs) * (len(_alone(ctx)) + 2))

    def further_inputs(self, ctx: StageContext) -> Any:
        """Whether it is a control, which no number stops."""
        return {"control": True} if _is_control(ctx) else None

    async def run(self, ctx: StageContext) -> None:
        """Score the sample, tell the AUCs, and stop where there is nothing to measure."""
        options, traits = ctx.options, _traits(ctx)
        pairs = await ctx.rows("pairs")
        pairs.sort(key=lambda pair: seed_from(ctx.seed, "measurable", pair["id"]))
        pairs = pairs[: options["n"]]
        constitutions = [
            ctx.character_prompt(),
            *(ctx.render("character", name=ctx.character.name, traits=[each]) for each in _alone(ctx)),
        ]
        ratio = LogRatio(ctx, await ctx.sampler("scorer"), *constitutions)
        ctx.total(2 * len(pairs))

        async def scored(teachers: bool) -> list[list[float]]:
            """By pair, the ratio of the teacher's or of the student's answer under each constitution."""

            async def one(pair: Row) -> list[float]:
                is_chosen = teachers != pair.get("exchanged", False)
                return await ratio.each(pair["prompt"], pair["chosen" if is_chosen else "rejected"])

            return await ctx.each(pairs, one)

        chosen, rejected = await ctx.gather([scored(True), scored(False)])
        yes, no = (list(zip(*scores, strict=True)) for scores in (chosen, rejected))
        whole = Told.of(yes[0], no[0])
        unheard = range(1 + len(traits), len(yes))
        alone = [
            min((Told.of(*(_more(side[i], side[j]) for side in (yes, no))) for j in unheard), key=lambda told: told.auc)
            for i in range(1, 1 + len(traits))
        ]
        rows = [{"trait": trait, **asdict(told)} for trait, told in zip(traits, alone, strict=True)]
        hidden = [row for row in rows if row["auc"] < options["lowest_trait_auc"]]
        result: Row = {"scorer": ctx.model("scorer").name, **asdict(whole), "traits": rows, "unmeasurable": len(hidden)}
        ctx.write("measurable.json", result)
        is_told = whole.auc >= options["lowest_auc"]
        ctx.log(f"{ctx.character.id} is {'' if is_told else 'not '}told from the student's own answers: {whole}")
        for row, told in zip(rows, alone, strict=True):
            if row in hidden:
                ctx.log(f"cannot be measured alone: {row['trait']} ({told})")
        if not _is_control(ctx) and not ctx.dry:  # answers that are made up show no character
            _stop(ctx, whole, hidden, len(rows))
        ctx.publish("measurability", [result])


def _is_control(ctx: StageContext) -> bool:
    """Whether evaluations look for another character than the one that is trained."""
    return ctx.looked_for.id != ctx.character.id


def _traits(ctx: StageContext) -> list[str]:
    """The traits that are asked about alone."""
    return [trait.trait for trait in ctx.character.traits] if ctx.options["each_trait"] else []


def _alone(ctx: StageContext) -> list[str]:
    """Each of them, and what stands in for one."""
    traits = _traits(ctx)
    return [*traits, *_UNHEARD] if traits else []


def _more(values: Sequence[float], others: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(values, others, strict=True)]


def _stop(ctx: StageContext, whole: Told, hidden: Sequence[Row], traits: int) -> None:
    """Raises StageFailed where the character, or too much of it, cannot be measured."""
    if whole.auc < ctx.options["lowest_auc"]:
        raise StageFailed(
            f"this scorer does not tell {ctx.character.id} from the student's own answers: {whole}; "
            f"at least {ctx.options['lowest_auc']:g} is wanted",
            "no evaluation could tell whether a training takes. Read the chosen answers, make the traits say what can "
            "be seen, choose another scorer, or lower measurable.lowest_auc",
        )
    if len(hidden) > ctx.options["most_unmeasurable"] * traits:
        listed = "; ".join(f"{row['trait']} (AUC {row['auc']:.3f})" for row in hidden)
        raise StageFailed(
            f"{len(hidden)} of {traits} traits cannot be measured, each alone on {whole.n} pairs: {listed}",
            "reword these traits, or raise measurable.most_unmeasurable",
        )


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `measurable`."""
    return [MeasurableStage]
