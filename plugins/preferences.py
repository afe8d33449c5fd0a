"""Which traits does a model take by itself? Revealed preferences over a pool of traits, before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Estimate, Row, Stage, digest, hookimpl, seed_from
from charrun.plugins import _evaluation as evaluation
from charrun.plugins._choices import judged
from charrun.plugins._evaluation import BASE
from charrun.plugins._judging import JUDGE_OPTIONS, options_of, shipped
from charrun.plugins._lines import texts_of
from charrun.plugins._pool import pool
from charrun.plugins._rates import rate
from charrun.plugins._tournament import Comparison, schedule
from charrun.plugins._training import scorer_problems

if TYPE_CHECKING:
    from charrun import StageContext
    from charrun.plugins._profile import Profile

RETEST = "base again"
_SHOWN = 5
_DIFFERENCE = ("value", "low", "high", "p", "n")


class PreferencesStage(evaluation.EvaluationStage):
    """Strengths of traits that a model chooses between, and what training changed (Maiya et al., 2025).

    A system prompt offers two traits; the model silently takes one and answers a held-out prompt; a judge says which
    one the answer shows. Every model gets the same seeded schedule with the same sampling seeds, in which each trait
    meets as many others as there are rounds. Strengths are Bradley and Terry's with a weak prior, intervals are from a
    bootstrap over comparisons that is the same for all models, so that changes are paired. The base model takes it a
    second time with other sampling seeds: no profile can agree better with another one than the base with itself.

    By likelihood the scorer takes the judge's place: the trait whose one-line constitution makes the answer likelier.
    """

    name: ClassVar[str] = "preferences"
    summary: ClassVar[str] = "which traits does the model take by itself? base, after DPO, final"
    roles: ClassVar[tuple[str, ...]] = ("student", "judge", "scorer")
    scores: ClassVar[tuple[str, ...]] = ()
    character_fields: ClassVar[tuple[str, ...]] = ()
    options_schema: ClassVar[dict[str, Any]] = options_of(
        100,
        "scored_as",
        rounds={
            "type": "integer",
            "minimum": 2,
            "default": 20,
            "description": "Comparisons of each trait; half as many for each model as traits times rounds.",
        },
        framing={
            "enum": ["feel", "like", "random"],
            "default": "feel",
            "description": "Take the trait that feels more like you, that you would like better, or one at random.",
        },
        judge={
            "enum": ["llm", "likelihood"],
            "default": "llm",
            "description": "Who says which trait an answer shows: the judge, or the scorer's likelihoods.",
        },
        **JUDGE_OPTIONS,
        traits={
            "type": "string",
            "minLength": 1,
            "description": "A text file with one trait a line; by default the pool that ships with charrun.",
        },
        expected={
            "type": "array",
            "items": {"type": "string"},
            "uniqueItems": True,
            "default": [],
            "description": "Traits of the pool that the character should raise; their mean change is told.",
        },
        prior={
            "type": "number",
            "minimum": 1e-6,
            "default": 0.1,
            "description": "Weight of the squared strengths in the Bradley-Terry fit.",
        },
        bootstrap={
            "type": "integer",
            "minimum": 100,
            "default": 200,
            "description": "Resamples of the comparisons for the intervals.",
        },
    )
    templates: ClassVar[dict[str, Path]] = evaluation.templates("preference", "preference_judge")

    def estimate(self, ctx: StageContext) -> Estimate:
        """Base twice and checkpoints, each with an answer and a verdict or two scores a comparison."""
        comparisons = ctx.options["rounds"] * len(_pool(ctx)) // 2 if not self.problems(ctx) else 0
        models = 2 + evaluation.compared(ctx)
        return Estimate(rows=1, requests=models * comparisons * (2 if ctx.options["judge"] == "llm" else 3))

    def problems(self, ctx: StageContext) -> list[str]:
        """A pool of traits that cannot be used, too many rounds, an expected trait that it lacks, no scorer."""
        try:
            traits = _pool(ctx)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
            return [f"traits: cannot read {ctx.options['traits']}: {reason}"]
        found = [f"traits: '{trait}' is listed twice" for trait in dict.fromkeys(traits) if traits.count(trait) > 1]
        found += [f"traits: '{trait}' is not one word" for trait in traits if not trait.replace("-", "").isalpha()]
        if len(traits) < 4:
            found.append(f"traits: the file holds {len(traits)} traits, and 4 are the fewest that can be ranked")
        elif ctx.options["rounds"] > (most := len(traits) - 1 + len(traits) % 2):
            found.append(f"rounds: of {len(traits)} traits no two meet twice in at most {most} rounds")
        found += [f"expected: '{trait}' is not in the pool" for trait in ctx.options["expected"] if trait not in traits]
        scored = {"judge: likelihood": int(ctx.options["judge"] == "likelihood")}
        return found + scorer_problems(ctx, scored) + super().problems(ctx)

    def further_inputs(self, ctx: StageContext) -> Any:
        """The traits, the pool of held-out prompts, and what the named checkpoints hold."""
        if self.problems(ctx):
            return None
        return digest([_pool(ctx), pool(), evaluation.named_checkpoints(ctx)])

    async def run(self, ctx: StageContext) -> None:
        """Plan the comparisons, let every model make them, judge, fit."""
        traits = _pool(ctx)
        held = await evaluation.held_out(ctx)
        prompts, overlap = held.test, held.overlap(held.test)
        evaluation.tell_overlap(ctx, overlap)
        planned = schedule(traits, prompts, ctx.options["rounds"], ctx.rng("preferences", "schedule"))
        base, *trained = await evaluation.models(ctx)
        takers = [(base, 0), (evaluation.Model(RETEST, base.opening), 1), *((model, 0) for model in trained)]
        ctx.total(len(takers) * len(planned))
        said = await ctx.gather(judged(ctx, model, planned, again) for model, again in takers)
        found = {model.name: rows for (model, _), rows in zip(takers, said, strict=True)}
        ctx.write("verdicts.jsonl", [{"model": name, **row} for name, rows in found.items() for row in rows])
        winners = {name: [row["winner"] for row in rows] for name, rows in found.items()}
        unparsed = {name: sum(won is None for won in all) for name, all in winners.items()}
        most = ctx.options["most_unparsed"] * len(planned)
        result: Row = {
            "name": self.name,
            "title": "Revealed preferences: how often a trait was taken, most raised and most lowered",
            "labels": ["model", "trait"],
            "rows": [],
            "differences": [],
            "notes": [f"{len(traits)} traits, {len(planned)} comparisons for each model, the same ones for all."],
            "judge": ctx.options["judge"],
            "unparsed": unparsed,
            "reported": all(n <= most for n in unparsed.values()),
            "contamination": overlap,
        }
        result["notes"] += [
            f"{name}: {n} of {len(planned)} verdicts say no trait." for name, n in unparsed.items() if n
        ]
        if result["reported"]:
            result |= _fitted(ctx, traits, planned, winners, result["notes"])
        else:
            result["notes"].append(f"That is more than {ctx.options['most_unparsed']:.0%}, so no strength is told.")
            ctx.log(" ".join(result["notes"][1:]))
        ctx.publish("measurements", [result])


def _fitted(
    ctx: StageContext,
    traits: Sequence[str],
    planned: Sequence[Comparison],
    winners: Mapping[str, Sequence[str | None]],
    notes: Sequence[str],
) -> Row:
    """What the verdicts come to: strengths, what changed, and how far profiles agree."""
    from charrun.plugins._profile import agreement, changes, differing, is_clear, mean_change, profiles

    seed = seed_from(ctx.seed, "preferences", "bootstrap")
    fits = profiles(traits, planned, winners, ctx.options["prior"], ctx.options["bootstrap"], seed)
    ctx.write("profiles.jsonl", _profile_rows(traits, fits))
    base, again = fits[BASE], fits[RETEST]
    trained = [name for name in fits if name not in (BASE, RETEST)]
    differ = {name: differing(planned, winners[BASE], winners[name]) for name in (RETEST, *trained)}
    moved = {name: changes(traits, base, fits[name], differ[name]) for name in differ}
    ctx.write("changes.jsonl", [{"model": name, **row} for name, rows in moved.items() for row in rows])
    alike = [agreement(RETEST, name, again.strengths, fits[name].strengths) for name in (BASE, *trained)]
    for one, other in pairwise(trained):
        a, b = fits[one].strengths - base.strengths, fits[other].strengths - again.strengths
        alike.append(agreement(f"change by {one}", f"change by {other}", a, b))
    clear = {name: sum(map(is_clear, rows)) for name, rows in moved.items()}
    shown = [(name, row) for name in trained for row in (*moved[name][:_SHOWN], *moved[name][-_SHOWN:])]
    listed = [(model, row["trait"]) for name, row in shown for model in (BASE, name)]
    expected: list[str] = ctx.options["expected"]
    meant = [(name, mean_change(traits, expected, base, fits[name])) for name in trained] if expected else []
    return {
        "rows": [_taken(planned, winners[model], model, trait) for model, trait in dict.fromkeys(listed)],
        "differences": [
            *(_difference(name, f"mean of {', '.join(expected)}", row) for name, row in meant),
            *(_difference(name, row["trait"], row) for name, row in shown),
        ],
        "tested_by": "a paired bootstrap's p",
        "clear_changes": clear,
        "correlations": alike,
        "profile": _named(traits, fits[trained[-1]]),
        "profile_before": _named(traits, base),
        "profile_again": _named(traits, again),
        "notes": [
            *notes,
            "Differences here are of the probability that the trait is taken before an average one (Bradley-Terry), so "
            "that where one trait rises the others fall a little, with intervals and p of a paired bootstrap over "
            "comparisons; where no verdict differs from the base model's, which a bootstrap takes for certain, the "
            "interval is that of as many pairs that agree.",
            *(_raised(name, expected, row) for name, row in meant),
            "Traits with verdicts that differ from the base model's and a change whose interval is without 0, those of "
            f"{RETEST} by noise alone: " + ", ".join(f"{name} {n} of {len(traits)}" for name, n in clear.items()),
            *(_correlation(each) for each in alike),
        ],
    }


def _pool(ctx: StageContext) -> list[str]:
    written = ctx.options.get("traits")
    text = ctx.path(written).read_text(encoding="utf-8") if written else shipped("traits.txt")
    return texts_of(text)


def _profile_rows(traits: Sequence[str], fits: Mapping[str, Profile]) -> list[Row]:
    return [
        {
            "model": name,
            "trait": trait,
            "strength": float(fit.strengths[i]),
            "k": int(fit.won[i]),
            "n": int(fit.judged[i]),
        }
        for name, fit in fits.items()
        for i, trait in enumerate(traits)
    ]


def _named(traits: Sequence[str], fit: Profile) -> dict[str, float]:
    return dict(zip(traits, fit.strengths.tolist(), strict=True))


def _taken(planned: Sequence[Comparison], won: Sequence[str | None], model: str, trait: str) -> Row:
    """How often a model took a trait, of the comparisons with a verdict that offered it."""
    offered = [i for i, c in enumerate(planned) if trait in (c.first, c.second) and won[i] is not None]
    return rate([won[i] == trait for i in offered], [str(i) for i in offered], model=model, trait=trait)


def _difference(model: str, trait: str, row: Row) -> Row:
    return {"model": model, "trait": trait, "against": BASE, **{key: row[key] for key in _DIFFERENCE}}


def _raised(model: str, expected: Sequence[str], row: Row) -> str:
    told = f"{100 * row['value']:+.1f} points, 95% interval {100 * row['low']:+.1f} to {100 * row['high']:+.1f}"
    return f"{model}, mean of {', '.join(expected)}: {told}, p {row['p']:.2g}, {row['n']} comparisons"


def _correlation(row: Row) -> str:
    if row["value"] is None:
        told = "undefined, since one of them is all equal"
    elif row["low"] is None:
        told = f"{row['value']:.3f}, {'identical' if row['value'] > 0 else 'reversed'} ranks, {row['n']} traits"
    else:
        told = f"{row['value']:.3f}, 95% interval {row['low']:.3f} to {row['high']:.3f}, {row['n']} traits"
    return f"Spearman's correlation of {row['first']} with {row['second']}: {told}"


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `preferences`."""
    return [PreferencesStage]
