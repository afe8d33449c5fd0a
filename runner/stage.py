"""What a stage is: the contract between the pipeline and every stage, built-in or third-party."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from charrun.pipeline.context import StageContext

Row = dict[str, Any]
"""One row of an artifact: JSON types only."""

IDENTITY = "x-charrun-identity"
"""An option whose schema says `false` under this key changes how a stage works and not what it makes."""


@dataclass(frozen=True)
class Estimate:
    """What a stage expects to do at a scale: rows it makes and requests it sends, for the plan shown before paying."""

    rows: int = 0
    requests: int = 0


class Stage:
    """One step of the pipeline. Subclass it, name it, and write `run`.

    A stage author writes the science: what goes in, the loop, what comes out. Keys, storage, resuming, concurrency,
    progress and token counts live behind the context.

    Attributes:
        name: What `uses:` names in a spec; a slug.
        summary: One sentence for lists of stages.
        consumes: Kinds of rows that an earlier stage must produce.
        instead: By kind among `consumes` an option that takes its place: where the spec gives the option, no earlier
            stage needs to produce the kind.
        optional: Kinds of rows that are used where an earlier stage produces them.
        produces: Kinds of rows that `run` publishes.
        roles: Model roles whose models are part of the stage's identity, such as `teacher`.
        trains: Roles among `roles` that are trained.
        measures: Names among `roles` and `templates` by which it only measures what it makes: another model or text
            there is no other work, so that they are left out of its identity.
        scores: Roles among `roles` whose models are asked for log-probs of given answers (`ctx.score`), which a model
            at an `endpoint` does not give.
        character_fields: Parts of the character (`name`, `traits`, `questions`) in the stage's identity.
        identity: How consumed rows enter the fingerprint. `rows`: not at all, since each stored response is keyed by
            its own request; `lineage`: by the producers' fingerprints, for a stage that asks them for more rows;
            `content`: by the rows themselves, for a stage that uses them as a whole.
        options_schema: Draft-07 schema of an object; its defaults are filled in.
        cache_version: Raise it when the same inputs would now give other outputs.
        templates: Prompt templates by name; a spec may replace each.
        optional_variables: By template the variables that a replacement need not mention; all others it must, since
            what a template leaves out never reaches a model.
        awaits_all: Whether it begins only when every earlier stage of the cell has ended. Without, it begins as soon as
            those have whose rows it uses, beside others, and cannot ask for `ctx.finished()`.
        one_checkpoint: Whether it publishes one checkpoint, as `ctx.save` gives it: what is made of that has a name
            before it is trained, so that a later stage may begin early, after the first `ctx.step_done`.
        begins_early: Whether it may begin while such a stage still trains: it is run beside it, as far as it goes
            without the checkpoint (`ctx.awaited` tells of which), and once more when that is there.
        runs_dry: Whether `charrun plan` may run it with nobody at the other end, to see what it asks for: not if it
            does something beyond its context, such as writing elsewhere.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    consumes: ClassVar[tuple[str, ...]] = ()
    instead: ClassVar[Mapping[str, str]] = {}
    optional: ClassVar[tuple[str, ...]] = ()
    produces: ClassVar[tuple[str, ...]] = ()
    roles: ClassVar[tuple[str, ...]] = ()
    trains: ClassVar[tuple[str, ...]] = ()
    measures: ClassVar[tuple[str, ...]] = ()
    scores: ClassVar[tuple[str, ...]] = ()
    character_fields: ClassVar[tuple[str, ...]] = ("name", "traits")
    identity: ClassVar[Literal["rows", "lineage", "content"]] = "content"
    options_schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
    }
    cache_version: ClassVar[int] = 1
    templates: ClassVar[Mapping[str, Path]] = {}
    optional_variables: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    awaits_all: ClassVar[bool] = True
    one_checkpoint: ClassVar[bool] = False
    begins_early: ClassVar[bool] = False
    runs_dry: ClassVar[bool] = True

    def estimate(self, ctx: StageContext) -> Estimate:
        """Rows and requests at the context's scale; asked before anything runs."""
        return Estimate()

    def problems(self, ctx: StageContext) -> list[str]:
        """What of the spec this stage cannot do at the context's scale, one sentence each; asked before a run."""
        return []

    def warnings(self, ctx: StageContext) -> list[str]:
        """What of the spec is probably not meant, one sentence each; shown before a run, which goes on."""
        return []

    def further_inputs(self, ctx: StageContext) -> Any:
        """What else the outputs depend on, as JSON types: the content of files, another character.

        It enters the fingerprint beside options, models, templates, seed and consumed rows.
        """
        return None

    async def run(self, ctx: StageContext) -> None:
        """Make the stage's rows and publish them with `ctx.publish`.

        It may be called again for more rows (`ctx.extra` has grown) and after an interruption; what is stored is
        reused, so it simply asks for everything it needs.

        Raises:
            StageFailed: The data cannot be made or an invariant does not hold.
        """
        raise NotImplementedError
