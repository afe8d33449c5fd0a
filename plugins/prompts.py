"""The prompts that teacher and student answer: the constitution's questions, written or expanded, and others."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from charrun import Estimate, Row, Stage, StageFailed, digest, hookimpl, seed_from
from charrun.plugins._general import general_prompts
from charrun.plugins._spread import count_among, is_among

if TYPE_CHECKING:
    from charrun import StageContext


_EXPANDED = "expanded"
_OWN = ("constitution", _EXPANDED)
"""Sources that are questions of the constitution."""
_Texts = tuple[tuple[str, tuple[str, ...]], ...]
"""Sources with their prompts."""


class PromptsStage(Stage):
    """Seeded prompts; a smaller scale's are the first of a larger one's.

    The pool is every question of the constitution, every general prompt that ships here, every question that an
    earlier stage has written for the constitution, and the lines of files, as `sources` says, without repetitions, in
    the order of a seeded hash of each prompt's text. So a prompt's place depends neither on how many are wanted nor on
    the character's questions: two characters share the general prompts, and with them a student's plain answers.

    So the constitution has the share of the prompts that it has of the pool: a few in a hundred. `constitution_share`
    gives it another one, at every scale alike; where its questions do not suffice all of them are used, others take
    the places that are left, and the log says so. The paper has 500 of its 1,830 prompts from the constitution.
    """

    name: ClassVar[str] = "prompts"
    summary: ClassVar[str] = "questions of the constitution and general prompts, seeded"
    optional: ClassVar[tuple[str, ...]] = ("questions",)
    produces: ClassVar[tuple[str, ...]] = ("prompts",)
    character_fields: ClassVar[tuple[str, ...]] = ("questions",)
    identity: ClassVar[Literal["rows", "lineage", "content"]] = "rows"
    cache_version: ClassVar[int] = 2
    options_schema: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {
            "sources": {
                "type": "array",
                "items": {"type": "string", "minLength": 1},
                "minItems": 1,
                "default": ["constitution", "general"],
                "description": "constitution, general, expanded (the questions of an earlier stage such as expand), "
                "or a JSONL file whose rows have a 'prompt'.",
            },
            "constitution_share": {
                "type": "number",
                "minimum": 0,
                "maximum": 1,
                "description": "Share of the prompts that are questions of the constitution, written or expanded, as "
                "far as there are as many, spread evenly; by default the share that they have of all that there are.",
            },
        },
        "additionalProperties": False,
    }

    def estimate(self, ctx: StageContext) -> Estimate:
        """One row a prompt."""
        return Estimate(rows=_wanted(ctx))

    def problems(self, ctx: StageContext) -> list[str]:
        """A pool that is too small, with both numbers; or questions that nobody writes."""
        if _EXPANDED in ctx.options["sources"] and not ctx.has("questions"):
            what = "prompts.sources names 'expanded', and no earlier stage writes questions"
            return [f"{what}: put expand before it, or leave 'expanded' out"]
        try:
            wanted, held = _wanted(ctx), len(_distinct(_texts(ctx, _foreseen(ctx))))
        except StageFailed as error:
            return [error.message]
        return [_too_small(ctx, wanted, held)] if wanted > held else []

    def warnings(self, ctx: StageContext) -> list[str]:
        """Questions that are written and not used, or too few for their share."""
        found = []
        if ctx.has("questions") and _EXPANDED not in ctx.options["sources"]:
            found.append("an earlier stage writes questions, and prompts.sources does not name 'expanded'")
        if self.problems(ctx):
            return found
        mix = _Mix.of(ctx, _pool(ctx, _foreseen(ctx)).rows[: _wanted(ctx)])
        return [*found, *mix.short()]

    def further_inputs(self, ctx: StageContext) -> Any:
        """The pool itself: a source file may change under its name. Expanded questions count as consumed rows."""
        return _pool(ctx).digest

    async def run(self, ctx: StageContext) -> None:
        """Take the first prompts of the seeded pool."""
        rows = await ctx.rows("questions") if _EXPANDED in ctx.options["sources"] else []
        pool = _pool(ctx, [row["question"] for row in rows]).rows
        wanted = _wanted(ctx)
        if wanted > len(pool):
            raise StageFailed(_too_small(ctx, wanted, len(pool)))
        ctx.total(wanted)
        mix = _Mix.of(ctx, pool[:wanted])
        ctx.log(mix.told())
        for line in mix.short():
            ctx.log(line)
        ctx.publish("prompts", [dict(row) for row in pool[:wanted]])
        ctx.advance(wanted)


def _too_small(ctx: StageContext, wanted: int, held: int) -> str:
    return (
        f"scale '{ctx.scale.name}' needs {wanted} prompts and the pool holds {held}: add a JSONL file under "
        "prompts.sources, raise samples_per_prompt, or choose a smaller scale"
    )


def _wanted(ctx: StageContext) -> int:
    return -(-ctx.scale.pairs // ctx.scale.samples_per_prompt) + ctx.extra


def _pool(ctx: StageContext, expanded: Sequence[str] = ()) -> Pool:
    return _ranked(_texts(ctx, expanded), ctx.seed, ctx.options.get("constitution_share"))


def _texts(ctx: StageContext, expanded: Sequence[str]) -> _Texts:
    sources = ctx.options["sources"]
    return tuple((each, tuple(expanded if each == _EXPANDED else _read(ctx, each))) for each in sources)


def _foreseen(ctx: StageContext) -> list[str]:
    """In place of questions that are not written yet: as many as are expected, the constitution's own among them."""
    if not ctx.has("questions"):
        return []
    own = _read(ctx, "constitution")
    return [*own, *(f"question {n}" for n in range(len(own), ctx.estimated("questions")))]


@dataclass(frozen=True)
class Pool:
    """All prompts there are, in their seeded order."""

    rows: tuple[Row, ...]
    digest: str


@lru_cache(maxsize=64)
def _distinct(texts: _Texts) -> tuple[Row, ...]:
    """Each prompt once, however it is capitalised."""
    found: dict[str, Row] = {}
    for source, lines in texts:
        for text in lines:
            found.setdefault(text.casefold(), {"prompt": text, "source": source})
    return tuple(found.values())


@dataclass(frozen=True)
class _Mix:
    """How many of the prompts are the constitution's.

    Attributes:
        prompts: All of them.
        own: The constitution's.
        share: The share that they shall be, if one is given.
    """

    prompts: int
    own: int
    share: float | None

    @classmethod
    def of(cls, ctx: StageContext, rows: Sequence[Row]) -> _Mix:
        own = sum(row["source"] in _OWN for row in rows)
        return cls(len(rows), own, ctx.options.get("constitution_share"))

    def told(self) -> str:
        share = self.own / max(1, self.prompts)
        return f"{self.own:,} of {self.prompts:,} prompts are the constitution's ({share:.1%})"

    def short(self) -> list[str]:
        """A line where the share could not be had, or none."""
        asked = self.own if self.share is None else count_among(self.prompts, self.share)
        if self.own < asked:
            told = f"asks for {asked:,} questions of the constitution, and there are {self.own:,}: all of them are used"
            return [f"prompts.constitution_share {told}; expand writes more (expand.per_trait)"]
        if self.own > asked:
            told = f"asks for {self.prompts - asked:,} other prompts, and there are {self.prompts - self.own:,}"
            return [f"prompts.constitution_share {told}: the constitution's take the places that are left"]
        return []


@lru_cache(maxsize=64)
def _ranked(texts: _Texts, seed: int, share: float | None = None) -> Pool:
    """Distinct prompts in the order of a seeded hash of their own text: what else is in the pool moves none of them."""
    rows = sorted(_distinct(texts), key=lambda row: _rank(seed, row["prompt"]))
    named = [{**row, "id": _id(row["prompt"])} for row in rows]
    mixed = tuple(named if share is None else _mixed(named, share))
    return Pool(mixed, digest([row["id"] for row in mixed]))


def _mixed(rows: Sequence[Row], share: float) -> Iterator[Row]:
    """The constitution's questions and the others, each in their order, at one share as far as both go."""
    others, own = (deque(row for row in rows if (row["source"] in _OWN) is wanted) for wanted in (False, True))
    for number in range(len(rows)):
        next_of, other = (own, others) if is_among(number, share) else (others, own)
        yield (next_of or other).popleft()


@lru_cache(maxsize=1 << 16)  # characters share most prompts
def _rank(seed: int, text: str) -> int:
    return seed_from(seed, "prompts", text)


@lru_cache(maxsize=1 << 16)
def _id(text: str) -> str:
    return digest(text)[:12]


def _read(ctx: StageContext, source: str) -> Sequence[str]:
    if source == "constitution":
        return [question for trait in ctx.character.traits for question in trait.questions]
    return general_prompts() if source == "general" else list(_read_file(ctx.path(source)))


def _read_file(path: Path) -> Iterator[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StageFailed(f"cannot read the prompts of {path}: {reason}", "check prompts.sources") from error
    for number, line in enumerate(lines, 1):
        try:
            prompt = json.loads(line)["prompt"].strip()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StageFailed(f"{path}:{number} is not a row with a 'prompt'") from error
        if prompt:
            yield prompt


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `prompts`."""
    return [PromptsStage]
