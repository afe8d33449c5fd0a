"""Prompt expansion: a few seed questions for each trait become fifty (Maiya et al., 2025, constitutions)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from charrun import Estimate, Row, Stage, StageFailed, hookimpl, user
from charrun.plugins._answers import OPTIONS_SCHEMA
from charrun.plugins._cues import Cues
from charrun.plugins._likeness import Kept
from charrun.plugins._questions import fault_of, listed

if TYPE_CHECKING:
    from charrun import Answer, RoleSampler, StageContext

TEMPLATES = Path(__file__).parent / "templates"
_PATIENCE = 2
"""Rounds in a row without a new question after which a trait is given up: further ones would cost the same again."""
_SHARE_KEPT = 0.5
"""What of the questions that are asked for is expected to be kept, for estimates and dry runs."""
_SHARE_SHORT = _SHARE_LONG = 0.3
"""Of fifty messages the paper's code asks for 15 short and 15 long ones."""
_SHOWN = 200


class ExpandStage(Stage):
    """The writer is asked for user messages in the style of each trait's seeds until the trait has enough of them.

    What is no message, carries the character's cues, or is like a question that is kept is dropped; the questions of
    all traits are compared with each other. Traits are asked side by side, round by round, and a round's answers are
    gone through in the order of the traits when all of them are there: so what is kept does not depend on which
    answer came first.
    """

    name: ClassVar[str] = "expand"
    summary: ClassVar[str] = "the writer adds questions to the constitution's own"
    produces: ClassVar[tuple[str, ...]] = ("questions",)
    awaits_all: ClassVar[bool] = False
    roles: ClassVar[tuple[str, ...]] = ("writer",)
    character_fields: ClassVar[tuple[str, ...]] = ("name", "traits", "questions")
    identity: ClassVar[Literal["rows", "lineage", "content"]] = "content"
    options_schema: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {
            "per_trait": {
                "type": "integer",
                "minimum": 1,
                "default": 50,
                "description": "Questions of each trait, its own among them.",
            },
            "per_request": {
                "type": "integer",
                "minimum": 3,
                "default": 50,
                "description": "Questions that one request asks for.",
            },
            "rounds": {
                "type": "integer",
                "minimum": 1,
                "default": 10,
                "description": "Requests for one trait at most; two in a row that bring nothing new are the last.",
            },
            "short": {
                "enum": ["stop", "allow"],
                "default": "stop",
                "description": "Where a trait has fewer questions in the end: stop, or go on with what there is.",
            },
            **OPTIONS_SCHEMA["properties"],
            "max_tokens": {
                "type": "integer",
                "minimum": 1,
                "default": 2048,
                "description": "Longest list in tokens; of one that is cut the last line is left out.",
            },
        },
        "additionalProperties": False,
    }
    templates: ClassVar[dict[str, Path]] = {"expand": TEMPLATES / "expand.j2"}
    optional_variables: ClassVar[dict[str, tuple[str, ...]]] = {"expand": ("short", "medium", "long")}

    def estimate(self, ctx: StageContext) -> Estimate:
        """A row a question, half of the questions of each request kept."""
        wanted = [max(ctx.options["per_trait"], len(trait.questions)) for trait in ctx.character.traits]
        return Estimate(rows=sum(wanted), requests=sum(_rounds_expected(ctx, n) for n in range(len(wanted))))

    def further_inputs(self, ctx: StageContext) -> Any:
        """The character's id, which is a cue."""
        return ctx.character.id

    async def run(self, ctx: StageContext) -> None:
        """Ask in rounds until every trait has its questions, or one of them will not get them."""
        writer = await ctx.sampler("writer")
        gathered = Gathered(ctx)
        ctx.total(ctx.options["per_trait"] * len(ctx.character.traits))
        ctx.advance(gathered.count())
        for round in range(ctx.options["rounds"]):
            asked = gathered.to_ask(round)
            if not asked:
                break
            answers = await ctx.gather(_ask(ctx, writer, trait, round) for trait in asked)
            for trait, answer in zip(asked, answers, strict=True):
                ctx.advance(gathered.take(trait, answer))
        ctx.write("dropped.jsonl", gathered.dropped)
        if ctx.dry:
            gathered.make_up()
        self._report(ctx, gathered)
        ctx.publish("questions", gathered.rows())

    def _report(self, ctx: StageContext, gathered: Gathered) -> None:
        """Say what was dropped, and stop where a trait is short of questions."""
        reasons = Counter(row["reason"] for row in gathered.dropped)
        dropped = ", ".join(f"{n} {reason}" for reason, n in sorted(reasons.items())) or "nothing"
        lacking = [trait for trait in range(len(gathered.kept)) if gathered.lacks(trait)]
        if lacking:
            held = ", ".join(f"trait {trait + 1} has {len(gathered.kept[trait])}" for trait in lacking)
            what = f"{len(lacking)} of {len(gathered.kept)} traits have fewer than {ctx.options['per_trait']} questions"
            told = f"{what} after {max(gathered.rounds)} rounds: {held}; dropped: {dropped}"
            if ctx.options["short"] == "stop":
                advice = "name a model that writes such lists as `writer:` under models, lower expand.per_trait, or say"
                raise StageFailed(told, f"read {ctx.folder}/dropped.jsonl; {advice} expand.short: allow")
            ctx.log(told)
        else:
            ctx.log(f"{gathered.count()} questions for {len(gathered.kept)} traits; dropped: {dropped}")


@dataclass
class Gathered:
    """The questions of all traits so far.

    Attributes:
        kept: Each trait's questions, its own first.
        rounds: How often each trait was asked.
        dropped: What was not kept, with the reason.
    """

    ctx: StageContext
    kept: list[list[str]] = field(init=False)
    rounds: list[int] = field(init=False)
    dropped: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        character = self.ctx.character
        traits = character.traits
        self.kept = [list(trait.questions) for trait in traits]
        self.rounds, self._in_vain = [0] * len(traits), [0] * len(traits)
        self._cues = Cues(character.name, [trait.trait for trait in traits], [character.id])
        self._all = Kept()
        for question in (question for trait in traits for question in trait.questions):
            self._all.add(question)

    def lacks(self, trait: int) -> bool:
        """Whether a trait has fewer questions than it should."""
        return len(self.kept[trait]) < int(self.ctx.options["per_trait"])

    def to_ask(self, round: int) -> list[int]:
        """The traits to ask for in a round; none where that would be in vain."""
        lacking = [trait for trait in range(len(self.kept)) if self.lacks(trait)]
        if self.ctx.dry:
            return [trait for trait in lacking if round < _rounds_expected(self.ctx, trait)]
        hopeful = [trait for trait in lacking if self._in_vain[trait] < _PATIENCE]
        return [] if len(hopeful) < len(lacking) and self.ctx.options["short"] == "stop" else hopeful

    def take(self, trait: int, answer: Answer) -> int:
        """Keep what is new in an answer; returns how many questions that is."""
        before = len(self.kept[trait])
        found = listed(answer.text, complete=answer.complete)
        if not found:
            self._drop(trait, answer.text[:_SHOWN], "no list")
        for question in found:
            if not self.lacks(trait):
                break
            if reason := fault_of(question):
                self._drop(trait, question, reason)
            elif cue := self._cues.of(question):
                self._drop(trait, question, "theme bleed", cue=cue)
            elif like := self._all.like(question):
                self._drop(trait, question, "repeated", like=like)
            else:
                self.kept[trait].append(question)
                self._all.add(question)
        new = len(self.kept[trait]) - before
        self.rounds[trait] += 1
        self._in_vain[trait] = 0 if new else self._in_vain[trait] + 1
        return new

    def _drop(self, trait: int, question: str, reason: str, **why: str) -> None:
        self.dropped.append({"trait": trait + 1, "question": question, "reason": reason, **why})

    def make_up(self) -> None:
        """In a dry run: questions as long as the constitution's own in place of those that nobody wrote."""
        for trait, own in enumerate(self.ctx.character.traits):
            seeds = own.questions or (own.trait,)
            for n in range(len(self.kept[trait]), self.ctx.options["per_trait"]):
                self.kept[trait].append(f"{seeds[n % len(seeds)]} ({trait + 1}-{n + 1})")

    def count(self) -> int:
        """Questions of all traits."""
        return sum(map(len, self.kept))

    def rows(self) -> list[Row]:
        """One row a question; `trait` is the trait's number in the constitution, from 1."""
        return [
            {"id": f"{trait + 1}-{n + 1}", "trait": trait + 1, "question": question}
            for trait, questions in enumerate(self.kept)
            for n, question in enumerate(questions)
        ]


async def _ask(ctx: StageContext, writer: RoleSampler, trait: int, round: int) -> Answer:
    """One list for a trait: the next sample of the same request."""
    own, count = ctx.character.traits[trait], ctx.options["per_request"]
    short, long = _rounded(count * _SHARE_SHORT), _rounded(count * _SHARE_LONG)
    asked = ctx.render(
        "expand",
        trait=own.trait,
        examples=list(own.questions),
        count=count,
        short=short,
        medium=count - short - long,
        long=long,
    )
    answers = await ctx.sample(
        writer,
        [user(asked)],
        count=round + 1,
        max_tokens=ctx.options["max_tokens"],
        temperature=ctx.options["temperature"],
        top_p=ctx.options["top_p"],
        shared=True,
    )
    return answers[-1]


def _rounded(number: float) -> int:
    """To the next whole number, a half upwards."""
    return int(number + 0.5)


def _rounds_expected(ctx: StageContext, trait: int) -> int:
    lacking: int = max(0, ctx.options["per_trait"] - len(ctx.character.traits[trait].questions))
    rounds: int = min(ctx.options["rounds"], -(-lacking // max(1, int(ctx.options["per_request"] * _SHARE_KEPT))))
    return rounds


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `expand`."""
    return [ExpandStage]
