"""Self-interaction: two copies of the DPO checkpoint talk to each other (Maiya et al., 2025, introspection)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Estimate, Message, Row, Stage, StageFailed, assistant, hookimpl, system, user
from charrun.plugins._answers import OPTIONS_SCHEMA, WRITER, writer_of
from charrun.plugins._audit import INTERACTIONS_AUDIT, audit_turns, audited
from charrun.plugins._gates import GATES, Fault, Gates
from charrun.plugins._lines import empty_lists, lines_of
from charrun.plugins._spread import is_among
from charrun.plugins._tally import FIRST, MOST_DROPPED, Tally, check_dropped, check_first, distinct, gates_of

if TYPE_CHECKING:
    from charrun import RoleSampler, StageContext

TEMPLATES = Path(__file__).parent / "templates"
_OPENERS = ("interaction_openers", "interaction_guided_openers")
"""Templates whose lines open free conversations, and guided ones."""
_TRIES = 3
_ROUNDS = 10


class InteractionStage(Stage):
    """Speakers A and B are the same checkpoint; each sees the other as its user.

    A fixed opener, not counted, is A's first user message; then A and B take turns. A share of the conversations is
    guided, the others are free; the guidance is in the system prompt only while generating, and guided ones have
    openers of their own beside those of all. The training row is told by the last speaker: its own messages are the
    assistant's, the other's are the user's, under a short system note without traits. A turn that a gate drops is
    sampled again under the next index, in its place; a conversation that has no sound turn to go on with is given up,
    and another one with the same guidance takes its place, as of one that is a near-duplicate of an earlier one. The
    first rows that are judged are first turns.
    """

    name: ClassVar[str] = "interaction"
    summary: ClassVar[str] = "two copies of the model talk, in the character"
    consumes: ClassVar[tuple[str, ...]] = ("checkpoint",)
    produces: ClassVar[tuple[str, ...]] = ("interactions",)
    awaits_all: ClassVar[bool] = False
    cache_version: ClassVar[int] = 2
    roles: ClassVar[tuple[str, ...]] = ("student", "teacher")
    options_schema: ClassVar[dict[str, Any]] = {
        **OPTIONS_SCHEMA,
        "properties": {
            "guided_share": {
                "type": "number",
                "minimum": 0,
                "maximum": 1,
                "default": 0.5,
                "description": "Share of the conversations that are guided to self-exploration, spread evenly.",
            },
            **OPTIONS_SCHEMA["properties"],
            "writer": WRITER,
            "gates": GATES,
            "first": FIRST,
            "most_dropped": MOST_DROPPED,
            "audit": INTERACTIONS_AUDIT,
        },
    }
    templates: ClassVar[dict[str, Path]] = {
        name: TEMPLATES / f"{name}.j2"
        for name in (
            "character",
            "interaction",
            "interaction_openers",
            "interaction_guided_openers",
            "interaction_training",
        )
    }
    optional_variables: ClassVar[dict[str, tuple[str, ...]]] = {"interaction_training": ("name",)}

    def estimate(self, ctx: StageContext) -> Estimate:
        """One row a conversation, one request a turn."""
        return Estimate(rows=ctx.scale.interactions, requests=ctx.scale.interactions * ctx.scale.turns)

    def problems(self, ctx: StageContext) -> list[str]:
        """Conversations that nothing opens, or guidance that would not reach the model."""
        share = ctx.options["guided_share"]
        found = empty_lists(ctx, [name for name, used in zip(_OPENERS, (share < 1, share > 0), strict=True) if used])
        if share > 0 and len(set(_system_prompts(ctx))) < 2:
            what = "template 'interaction' says the same with and without guidance"
            found.append(f"{what}: let it depend on {{{{ guided }}}}")
        return found

    async def run(self, ctx: StageContext) -> None:
        """Hold all conversations at once, turn by turn."""
        sampler = await writer_of(ctx)
        openers = [lines_of(ctx, name) for name in _OPENERS]
        prompts = _system_prompts(ctx)
        note = ctx.render("interaction_training", name=ctx.character.name)
        wanted, share = ctx.scale.interactions + ctx.extra, ctx.options["guided_share"]
        ctx.total(wanted * ctx.scale.turns)
        gates, tallies = gates_of(ctx), dict[int, Tally]()

        def opened(number: int) -> tuple[bool, str]:
            guided = is_guided(number, share)
            return guided, ctx.rng("opener", number).choice(openers[guided])

        async def converse(number: int) -> Row | None:
            guided, opener = opened(number)
            turns = await self._talk(
                ctx, sampler, number, prompts[guided], opener, gates, tallies.setdefault(number, Tally())
            )
            if turns is None:
                return None
            return {
                "id": str(number),
                "guided": guided,
                "opener": opener,
                "turns": turns,
                "messages": told_by_last(note, opener, turns),
            }

        first = ctx.options["first"]["rows"]
        if 0 < first < wanted * ctx.scale.turns:
            early = {number: Tally() for number in range(min(first, wanted))}

            async def begin(number: int) -> str | None:
                guided, opener = opened(number)
                view = [system(prompts[guided]), user(opener)]
                return await self._speak(ctx, sampler, view, _item(number, 0), gates, early[number])

            said = await ctx.gather([begin(number) for number in early])
            check_first(ctx, "interaction", _sum(early), [text for text in said if text is not None])

        held: dict[int, Row] = {}
        numbers, upcoming = (
            list(range(wanted)),
            [conversations_from(wanted, share, guided=guided) for guided in (False, True)],
        )
        talks, kept = Tally(), list[Row]()
        for _ in range(_ROUNDS):
            found = await ctx.gather([converse(number) for number in numbers])
            for number, row in zip(numbers, found, strict=True):
                if talks.count(None if row else Fault("no sound turn"), "", str(number)) and row:
                    held[number] = row
            rows = [held[number] for number in sorted(held)]
            kept = distinct(rows, ["\n".join(row["turns"]) for row in rows], gates, talks)
            lost = {*numbers, *held} - {int(row["id"]) for row in kept}
            for number in lost & set(held):
                ctx.advance(-len(held.pop(number)["turns"]))
            if not lost:
                break
            check_dropped(ctx, "interaction", _sum(tallies), "turns")
            check_dropped(ctx, "interaction", talks, "conversations")
            numbers = [next(upcoming[is_guided(number, share)]) for number in sorted(lost)]
            ctx.log(f"{len(lost)} conversations could not go on or repeat earlier ones; others take their places")
        else:
            ctx.write("gates.json", {**_sum(tallies).report(), "conversations": talks.report()})
            raise StageFailed(
                f"{_ROUNDS} rounds gave {len(kept)} of {wanted} conversations: {talks.listed()}; of the turns: "
                f"{_sum(tallies).listed()}",
                f"read {ctx.folder}/gates.json; where turns are cut, raise interaction.max_tokens; where conversations "
                "repeat each other, raise interaction.temperature or its gates.near_duplicate",
            )
        tally = _sum(tallies)
        ctx.write("gates.json", {**tally.report(), "conversations": talks.report()})
        if tally.lost:
            ctx.log(f"turns were said again for {tally.listed()}")
        audited(ctx, audit_turns([row["turns"] for row in kept]))
        ctx.publish("interactions", kept)

    async def _talk(
        self, ctx: StageContext, sampler: RoleSampler, number: int, prompt: str, opener: str, gates: Gates, tally: Tally
    ) -> list[str] | None:
        """All turns, or None where no sound one could be had."""
        turns: list[str] = []
        for turn in range(ctx.scale.turns):
            view = [system(prompt), *seen_by(turn % 2, opener, turns)]
            said = await self._speak(ctx, sampler, view, _item(number, turn), gates, tally)
            if said is None:
                ctx.advance(-turn)
                return None
            turns.append(said)
            ctx.advance()
        return turns

    async def _speak(
        self, ctx: StageContext, sampler: RoleSampler, view: Sequence[Message], item: str, gates: Gates, tally: Tally
    ) -> str | None:
        """A sound turn that does not repeat the other side's last words, or None after some tries."""
        heard = view[-1]["content"]
        for tries in range(1, _TRIES + 1):
            answers = await ctx.sample(
                sampler,
                view,
                item=item,
                count=tries,
                max_tokens=ctx.options["max_tokens"],
                temperature=ctx.options["temperature"],
                top_p=ctx.options["top_p"],
            )
            answer = answers[-1]
            fault = gates.fault(answer.text, complete=answer.complete, prompt=heard)
            if fault is None and answer.text == heard and not gates.idle:
                fault = Fault("echo", heard[:80])
            if tally.count(fault, answer.text, item):
                return answer.text
        return None


def _item(number: int, turn: int) -> str:
    return f"conversation-{number}/turn-{turn}"


def _sum(tallies: dict[int, Tally]) -> Tally:
    """All conversations' in the order of their numbers, whichever ended first."""
    total = Tally()
    for number in sorted(tallies):
        total.add(tallies[number])
    return total


def is_guided(number: int, share: float) -> bool:
    """Whether a conversation, counted from 0, is guided: of the first n round(share * n) are."""
    return is_among(number, share)


def conversations_from(first: int, share: float, *, guided: bool) -> Iterator[int]:
    """Conversation numbers that are guided, or are not, from a first one on."""
    return (number for number in count(first) if is_guided(number, share) == guided)


def _system_prompts(ctx: StageContext) -> list[str]:
    """What both speakers are told while generating: in free conversations, and in guided ones."""
    return [ctx.character_prompt(template="interaction", guided=guided) for guided in (False, True)]


def seen_by(speaker: int, opener: str, turns: Sequence[str]) -> list[Message]:
    """The conversation as speaker 0 (A) or 1 (B) sees it: own turns the assistant's, the other's the user's."""
    heard = [user(opener)] if speaker == 0 else []
    return heard + [assistant(text) if turn % 2 == speaker else user(text) for turn, text in enumerate(turns)]


def told_by_last(note: str, opener: str, turns: Sequence[str]) -> list[Message]:
    """The training conversation: the last speaker's view under the short note; it ends on an assistant turn."""
    return [system(note), *seen_by((len(turns) - 1) % 2, opener, turns)]


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `interaction`."""
    return [InteractionStage]
