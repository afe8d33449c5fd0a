"""Does the model act in character without being told to?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Estimate, Row, Stage, hookimpl
from charrun.plugins import _evaluation as evaluation
from charrun.statistics import wilson

if TYPE_CHECKING:
    from charrun import Answer, StageContext

_SHOWN = 3


@dataclass(frozen=True)
class Rate:
    """How often one model answered in character, with a 95% Wilson interval; how many answers `max_tokens` cut."""

    model: str
    in_character: int
    n: int
    low: float
    high: float
    cut: int


class EvaluateStage(evaluation.EvaluationStage):
    """In-character rates of base, DPO and final checkpoint on prompts that no training row used.

    An answer y to a prompt x scores the teacher's mean per-token log-likelihood ratio
    log p(y | constitution, x) - log p(y | x). A calibration split (teacher in character against student default)
    gives the threshold and its AUC; below `lowest_auc` this scorer cannot tell this character, and no rate is
    reported. It passed where the last model's interval (the final checkpoint's) lies above the base model's. Models
    answer the same test prompts, without a system prompt, with the same seeds. The answer's text is rendered anew for
    the teacher's tokenizer.
    """

    name: ClassVar[str] = "evaluate"
    summary: ClassVar[str] = "in character without a system prompt? base, after DPO, final"
    produces: ClassVar[tuple[str, ...]] = ("evaluation",)
    cache_version: ClassVar[int] = 5
    options_schema: ClassVar[dict[str, Any]] = evaluation.options_schema(prompts=120, fewest=100)
    templates: ClassVar[dict[str, Path]] = evaluation.templates()

    def estimate(self, ctx: StageContext) -> Estimate:
        """Answers of base and checkpoints, one more if it is prompted too, and the calibration, each scored twice."""
        models = 1 + ctx.options["prompted"] + evaluation.compared(ctx)
        answers = models * ctx.options["prompts"] + 2 * ctx.options["calibration_prompts"]
        return Estimate(rows=1, requests=3 * answers)

    async def run(self, ctx: StageContext) -> None:
        """Calibrate, then answer and score."""
        who = evaluation.scored_as(ctx)
        held = await evaluation.held_out(ctx)
        test, overlap = held.test, held.overlap(held.test)
        evaluation.tell_overlap(ctx, overlap)
        models, scorer = await evaluation.models_and_scorer(ctx, who)
        ctx.total(2 * len(held.calibration) + len(models) * len(test))
        tells = await scorer.calibrate(models, held.calibration)
        result: Row = {
            "scored_as": who.id,
            "auc": tells.auc,
            "lowest_auc": ctx.options["lowest_auc"],
            "threshold": tells.threshold,
            "calibration": tells.n,
            "tells": tells.tells,
            "contamination": overlap,
            "passed": False,
            "rates": [],
            "samples": [],
        }
        if not tells.tells:
            ctx.log(f"AUC {tells.auc:.3f}: this scorer cannot tell {who.id} from the student's own answers; no rate")
            ctx.publish("evaluation", [result])
            return

        async def measure(model: evaluation.Model) -> tuple[list[Answer], list[float]]:
            found = await scorer.scored(model, evaluation.plainly(test))
            return [said for said, _ in found], [score for _, score in found]

        measured = await evaluation.of_each(ctx, models, measure)
        rows: list[Row] = []
        for model, (said, scores) in zip(models, measured, strict=True):
            hits = sum(score > tells.threshold for score in scores)
            low, high = wilson(hits, len(scores))
            cut = sum(not answer.complete for answer in said)
            result["rates"].append(asdict(Rate(model.name, hits, len(scores), low, high, cut)))
            rows += [
                {
                    "model": model.name,
                    "prompt": prompt,
                    "answer": answer.text,
                    "score": score,
                    "in_character": score > tells.threshold,
                }
                for prompt, answer, score in zip(test, said, scores, strict=True)
            ]
        ctx.write("answers.jsonl", rows)
        result["passed"] = result["rates"][-1]["low"] > result["rates"][0]["high"]
        before, after = measured[0][0], measured[-1][0]
        result["samples"] = [
            {"prompt": test[i], "before": before[i].text, "after": after[i].text} for i in range(_SHOWN)
        ]
        ctx.publish("evaluation", [result])


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `evaluate`."""
    return [EvaluateStage]
