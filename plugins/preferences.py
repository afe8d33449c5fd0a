"""Which traits does a model take by itself? Revealed preferences over a pool of traits, before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Estimate, Row, Stage, digest, hookimpl, seed_from, system, user
from charrun.plugins._answers import OPTIONS_SCHEMA
from charrun.plugins._judging import JUDGE_OPTIONS, TEMPLATES
from charrun.plugins._measured import BASE, held_out, measured, pool, shipped
from charrun.plugins._schedule import Comparison, schedule
from charrun.plugins._verdicts import parse_choice

if TYPE_CHECKING:
    from charrun import Answer, RoleSampler, StageContext
    from charrun.plugins._profile import Profile

RETEST = "base again"
_SHOWN = 5
_NAME = "Robin"
"""Who has a trait in the scorer's prompt: one name for every trait, and no character's."""


class PreferencesStage(Stage):
    """Strengths of traits that a model chooses between, and what training changed (Maiya et al., 2025).

    A system prompt offers two traits; the model silently takes one and answers a held-out prompt; a judge says which
    one the answer shows. Every model gets the same seeded schedule with the same sampling seeds, in which each trait
    meets as many others as there are rounds. Strengths are Bradley and Terry's with a weak prior, intervals are from a
    bootstrap over comparisons that is the same for all models, so that changes are paired. The base model takes it a
    second time with other sampling seeds: no profile can agree better with another one than the base with itself.

    By likelihood the scorer takes the judge's place: the trait whose one-line constitution makes the answer likelier.

    It passed where the traits that `expected` names rose: the interval of their mean change is above 0. Where it names
    none, where the final checkpoint agrees with the base model less than the base model with itself.
    """

    name: ClassVar[str] = "preferences"
    summary: ClassVar[str] = "which traits does the model take by itself? base, after DPO, final"
    consumes: ClassVar[tuple[str, ...]] = ("checkpoint",)
    optional: ClassVar[tuple[str, ...]] = ("pairs", "reflections", "interactions")
    produces: ClassVar[tuple[str, ...]] = ("evaluation",)
    roles: ClassVar[tuple[str, ...]] = ("student", "judge", "scorer")
    character_fields: ClassVar[tuple[str, ...]] = ()
    options_schema: ClassVar[dict[str, Any]] = {
        **OPTIONS_SCHEMA,
        "properties": {
            **OPTIONS_SCHEMA["properties"],
            "max_tokens": {**OPTIONS_SCHEMA["properties"]["max_tokens"], "default": 256},
            "rounds": {
                "type": "integer",
                "minimum": 2,
                "default": 20,
                "description": "Comparisons of each trait; half as many for each model as traits times rounds.",
            },
            "prompts": {
                "type": "integer",
                "minimum": 10,
                "default": 100,
                "description": "Held-out prompts that the comparisons go through in turn.",
            },
            "framing": {
                "enum": ["feel", "like", "random"],
                "default": "feel",
                "description": "Take the trait that feels more like you, that you would like better, or one at random.",
            },
            "judge": {
                "enum": ["llm", "likelihood"],
                "default": "llm",
                "description": "Who says which trait an answer shows: the judge, or the scorer's likelihoods.",
            },
            **JUDGE_OPTIONS,
            "traits": {
                "type": "string",
                "minLength": 1,
                "description": "A text file with one trait a line; by default the pool that ships with charrun.",
            },
            "expected": {
                "type": "array",
                "items": {"type": "string"},
                "uniqueItems": True,
                "default": [],
                "description": "Traits of the pool that the character should raise.",
            },
            "prior": {
                "type": "number",
                "exclusiveMinimum": 0,
                "default": 0.1,
                "description": "Weight of the squared strengths in the Bradley-Terry fit.",
            },
            "bootstrap": {
                "type": "integer",
                "minimum": 100,
                "default": 200,
                "description": "Resamples of the comparisons for the intervals.",
            },
        },
    }
    templates: ClassVar[dict[str, Path]] = {
        name: TEMPLATES / f"{name}.j2" for name in ("character", "preference", "preference_judge")
    }

    def estimate(self, ctx: StageContext) -> Estimate:
        """Four models, each with an answer and a verdict or two scores a comparison."""
        comparisons = ctx.options["rounds"] * len(_pool(ctx)) // 2 if not self.problems(ctx) else 0
        return Estimate(rows=2, requests=4 * comparisons * (2 if ctx.options["judge"] == "llm" else 3))

    def problems(self, ctx: StageContext) -> list[str]:
        """A pool of traits that cannot be used, too many rounds, an expected trait that it lacks."""
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
        if ctx.options["prompts"] > len(pool()):
            found.append(f"preferences needs {ctx.options['prompts']} prompts and the pool holds {len(pool())}")
        return found

    def further_inputs(self, ctx: StageContext) -> Any:
        """The traits, and the pool of held-out prompts."""
        return None if self.problems(ctx) else digest([_pool(ctx), pool()])

    async def run(self, ctx: StageContext) -> None:
        """Plan the comparisons, let every model make them, judge, fit."""
        from charrun.plugins._profile import agreement, changes, mean_change, profiles

        traits = _pool(ctx)
        prompts = await held_out(ctx, ctx.options["prompts"])
        planned = schedule(traits, prompts, ctx.options["rounds"], ctx.rng("preferences", "schedule"))
        models = await measured(ctx)
        takers = [(models[0].name, models[0].sampler, 0), (RETEST, models[0].sampler, 1)]
        takers += [(model.name, model.sampler, 0) for model in models[1:]]
        ctx.total(len(takers) * len(planned))
        judged = await ctx.gather(_judged(ctx, sampler, planned, again) for _, sampler, again in takers)
        found = {name: rows for (name, _, _), rows in zip(takers, judged, strict=True)}
        ctx.write("verdicts.jsonl", [{"model": name, **row} for name, rows in found.items() for row in rows])
        winners = {name: [row["winner"] for row in rows] for name, rows in found.items()}
        result: Row = {
            "judge": ctx.options["judge"],
            "traits": len(traits),
            "comparisons": len(planned),
            "unparsed": {name: sum(won is None for won in all) for name, all in winners.items()},
            "most_unparsed": ctx.options["most_unparsed"],
            "passed": False,
            "rates": [],
        }
        too_many = [name for name, n in result["unparsed"].items() if n > result["most_unparsed"] * len(planned)]
        if too_many:
            ctx.log(f"more than {result['most_unparsed']:.0%} of the verdicts on {', '.join(too_many)} say no trait")
            ctx.publish("evaluation", [{**result, "reported": False, "table": _table("preferences", [], [])}])
            return
        seed = seed_from(ctx.seed, "preferences", "bootstrap")
        fits = profiles(traits, planned, winners, ctx.options["prior"], ctx.options["bootstrap"], seed)
        ctx.write("profiles.jsonl", _profile_rows(traits, fits))
        base, trained = fits[BASE], [model.name for model in models[1:]]
        moved = {name: changes(traits, base, fits[name]) for name in (RETEST, *trained)}
        ctx.write("changes.jsonl", [{"model": name, **row} for name, rows in moved.items() for row in rows])
        with_base = [agreement(BASE, name, base.strengths, fits[name].strengths) for name in (RETEST, *trained)]
        alike = [*with_base, *_of_changes(fits, trained)]
        expected = ctx.options["expected"]
        raised = {name: mean_change(traits, expected, base, fits[name]) for name in trained} if expected else {}
        passed = raised[trained[-1]]["low"] > 0 if expected else with_base[-1]["high"] < with_base[0]["low"]
        shown = [{"model": name, **row} for name in trained for row in _extremes(moved[name])]
        result |= {
            "reported": True,
            "passed": passed,
            "clear_changes": {name: _clear(rows) for name, rows in moved.items()},
            "expected": raised,
            "profile": {trait: float(fits[trained[-1]].strengths[i]) for i, trait in enumerate(traits)},
            "profile_before": {trait: float(base.strengths[i]) for i, trait in enumerate(traits)},
            "table": _table("preferences: change of strength", ["change", "low", "high", "k", "n"], shown),
        }
        correlations: Row = {
            "rates": [],
            "passed": passed,
            "table": _table("preferences: Spearman's correlation", ["value", "low", "high", "n"], alike),
        }
        ctx.publish("evaluation", [result, correlations])


async def _judged(ctx: StageContext, sampler: RoleSampler, planned: Sequence[Comparison], again: int) -> list[Row]:
    """What a model said in each comparison, and the trait that it shows; `again` for other sampling seeds."""
    role = "judge" if ctx.options["judge"] == "llm" else "scorer"
    judge = await ctx.sampler(role)

    async def one(c: Comparison) -> Row:
        note = ctx.render("preference", first=c.first, second=c.second, framing=ctx.options["framing"])
        (answer,) = await ctx.sample(
            sampler,
            [system(note), user(c.prompt)],
            max_tokens=ctx.options["max_tokens"],
            temperature=ctx.options["temperature"],
            top_p=ctx.options["top_p"],
            seed=seed_from(ctx.seed, "preference", again, c.first, c.second, c.prompt),
            shared=True,
        )
        told = await (_asked if role == "judge" else _likelier)(ctx, judge, c, answer)
        return {"first": c.first, "second": c.second, "prompt": c.prompt, "answer": answer.text, **told}

    found: list[Row] = await ctx.each(list(planned), one)
    return found


async def _asked(ctx: StageContext, judge: RoleSampler, c: Comparison, answer: Answer) -> Row:
    """The judge's choice; which trait it reads first is a coin's, whichever the model read first."""
    pair = [c.first, c.second]
    ctx.rng("preferences", "order", c.first, c.second).shuffle(pair)
    text = ctx.render("preference_judge", first=pair[0], second=pair[1], prompt=c.prompt, answer=answer.text)
    (said,) = await ctx.sample(
        judge,
        [user(text)],
        max_tokens=ctx.options["judge_max_tokens"],
        temperature=ctx.options["judge_temperature"],
        top_p=1.0,
        seed=seed_from(ctx.seed, "trait", c.prompt),
        shared=True,
    )
    return {"winner": parse_choice(said.text, said.complete, pair), "judge": said.text}


async def _likelier(ctx: StageContext, scorer: RoleSampler, c: Comparison, answer: Answer) -> Row:
    """The trait whose one-line constitution makes the answer likelier a token; no winner where both do alike."""
    completion = scorer.chat.completion(answer.text)

    async def under(trait: str) -> float:
        note = system(ctx.render("character", name=_NAME, traits=[f"I am {trait}."]))
        return await ctx.score(scorer, scorer.chat.prompt([note, user(c.prompt)]), completion, shared=True)

    first, second = await ctx.gather([under(c.first), under(c.second)])
    return {"winner": None if first == second else c.first if first > second else c.second, "ratio": first - second}


def _pool(ctx: StageContext) -> list[str]:
    written = ctx.options.get("traits")
    text = ctx.path(written).read_text(encoding="utf-8") if written else shipped("traits.txt")
    return [line.strip() for line in text.splitlines() if line.strip()]


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


def _of_changes(fits: Mapping[str, Profile], trained: Sequence[str]) -> list[Row]:
    """Agreement of what trainings changed, each against a base profile of its own, so that they share no noise."""
    from charrun.plugins._profile import agreement

    found = []
    for one, other in zip(trained, trained[1:], strict=False):
        a, b = fits[one].strengths - fits[BASE].strengths, fits[other].strengths - fits[RETEST].strengths
        found.append(agreement(f"change by {one}", f"change by {other}", a, b))
    return found


def _clear(rows: Sequence[Row]) -> Row:
    """How many traits' intervals hold no 0; 5% of them would by chance alone."""
    return {"k": sum(row["low"] > 0 or row["high"] < 0 for row in rows), "n": len(rows)}


def _extremes(rows: Sequence[Row]) -> list[Row]:
    """The traits that rose and fell most."""
    picked = [*rows[:_SHOWN], *rows[-_SHOWN:]]
    return [
        {"condition": row["trait"], **{key: row[key] for key in ("change", "low", "high", "k", "n")}} for row in picked
    ]


def _table(name: str, columns: Sequence[str], rows: Sequence[Row]) -> Row:
    return {"name": name, "columns": ["model", "condition", *columns], "rows": list(rows)}


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `preferences`."""
    return [PreferencesStage]
