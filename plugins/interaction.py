"""Self-interaction: two copies of the DPO checkpoint talk to each other (Maiya et al., 2025, introspection)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Estimate, Message, Row, Stage, StageFailed, assistant, hookimpl, system, user
from charrun.plugins._answers import OPTIONS_SCHEMA, WRITER, writer_of
from charrun.plugins._gates import GATES, Fault, Gates
from charrun.plugins._tally import FIRST, Tally, check_first, first_of, first_then_rest, gates_of

if TYPE_CHECKING:
    from charrun import RoleSampler, StageContext

TEMPLATES = Path(__file__).parent / "templates"
_TRIES = 3
_ROUNDS = 10


class InteractionStage(Stage):
    """Speakers A and B are the same checkpoint; each sees the other as its user.

    A fixed opener, not counted, is A's first user message; then A and B take turns. Half of the conversations are
    free, half guided, and the guidance is in the system prompt only while generating. The training row is told by
    the last speaker: its own messages are the assistant's, the other's are the user's, under a short system note
    without traits. A turn that a gate drops is sampled again under the next index, in its place; a conversation that
    has no sound turn to go on with is given up, and another one with the same guidance takes its place.
    """

    name: ClassVar[str] = "interaction"
    summary: ClassVar[str] = "two copies of the DPO checkpoint talk"
    consumes: ClassVar[tuple[str, ...]] = ("checkpoint",)
    produces: ClassVar[tuple[str, ...]] = ("interactions",)
    awaits_all: ClassVar[bool] = False
    roles: ClassVar[tuple[str, ...]] = ("student", "teacher")
    options_schema: ClassVar[dict[str, Any]] = {
        **OPTIONS_SCHEMA,
        "properties": {**OPTIONS_SCHEMA["properties"], "writer": WRITER, "gates": GATES, "first": FIRST},
    }
    templates: ClassVar[dict[str, Path]] = {
        name: TEMPLATES / f"{name}.j2"
        for name in ("character", "interaction", "interaction_openers", "interaction_training")
    }

    def estimate(self, ctx: StageContext) -> Estimate:
        """One row a conversation, one request a turn."""
        return Estimate(rows=ctx.scale.interactions, requests=ctx.scale.interactions * ctx.scale.turns)

    async def run(self, ctx: StageContext) -> None:
        """Hold all conversations at once, turn by turn."""
        sampler = await writer_of(ctx)
        openers = ctx.render("interaction_openers").splitlines()
        prompts = [ctx.character_prompt(template="interaction", guided=guided) for guided in (False, True)]
        note = ctx.render("interaction_training", name=ctx.character.name)
        count = ctx.scale.interactions + ctx.extra
        ctx.total(count * ctx.scale.turns)
        gates, tallies = gates_of(ctx), dict[int, Tally]()

        async def converse(number: int) -> Row | None:
            guided = number % 2 == 1
            opener = ctx.rng("opener", number).choice(openers)
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

        def judge(_: object) -> None:
            check_first(ctx, "interaction", _sum(tallies))

        rows: list[Row] = []
        numbers, upcoming = list(range(count)), [count + count % 2, count + 1 - count % 2]
        for _ in range(_ROUNDS):
            first = 0 if rows else first_of(ctx, len(numbers), ctx.scale.turns)
            held = await first_then_rest(ctx, numbers, first, converse, judge)
            rows += [row for row in held if row]
            numbers = [next_number(upcoming, number) for number, row in zip(numbers, held, strict=True) if not row]
            if not numbers:
                break
            ctx.log(f"{len(numbers)} of {len(held)} conversations could not go on; others take their places")
        else:
            raise StageFailed(
                f"{_ROUNDS} rounds gave {len(rows)} of {count} conversations",
                f"read {ctx.folder}/items.jsonl; often the answers are cut: raise interaction.max_tokens",
            )
        tally = _sum(tallies)
        ctx.write("gates.json", tally.report())
        if tally.lost:
            ctx.log(f"turns were said again for {tally.listed()}")
        ctx.publish("interactions", sorted(rows, key=lambda row: int(row["id"])))

    async def _talk(
        self, ctx: StageContext, sampler: RoleSampler, number: int, prompt: str, opener: str, gates: Gates, tally: Tally
    ) -> list[str] | None:
        """All turns, or None where no sound one could be had."""
        turns: list[str] = []
        for turn in range(ctx.scale.turns):
            view = [system(prompt), *seen_by(turn % 2, opener, turns)]
            said = await self._speak(ctx, sampler, view, f"conversation-{number}/turn-{turn}", gates, tally)
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


def _sum(tallies: dict[int, Tally]) -> Tally:
    """All conversations' in the order of their numbers, whichever ended first."""
    total = Tally()
    for number in sorted(tallies):
        total.add(tallies[number])
    return total


def next_number(upcoming: list[int], number: int) -> int:
    """The next unused conversation number with a number's guidance; `upcoming` holds the next even and odd one."""
    found = upcoming[number % 2]
    upcoming[number % 2] += 2
    return found


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
