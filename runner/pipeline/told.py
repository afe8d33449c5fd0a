"""What a stage is told before anything is asked of a model: what the spec says, and what earlier stages made."""

from __future__ import annotations

import os
import random
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrun.errors import StageFailed
from charrun.pipeline.ahead import NotYet
from charrun.pipeline.results import StageResult
from charrun.spec import Character, ModelRef, Scale
from charrun.store.canonical import seed_from

if TYPE_CHECKING:
    from charrun.pipeline.stage_run import StageRun
    from charrun.stage import Row


class Told:
    """The part of a stage's context that is known without an engine."""

    def __init__(self, run: StageRun) -> None:
        self._run = run
        self._seen: dict[StageRun, int] = {}
        self._said: set[tuple[str, ...]] = set()

    # -- what the spec says ---------------------------------------------------------------------------------------

    @property
    def options(self) -> Mapping[str, Any]:
        """The stage's options, checked and with defaults."""
        return self._run.options

    @property
    def needs(self) -> Sequence[str]:
        """What the spec names under the item's `needs`, in its order."""
        return self._run.item.needs

    def options_of(self, id: str) -> Mapping[str, Any]:
        """The options of an earlier item, such as one of `producers`.

        For `problems` and `warnings` alone: what a stage makes by them would not be in its fingerprint.
        """
        return next(run.options for run in self._run.earlier if run.item.id == id)

    @property
    def character(self) -> Character:
        """The cell's character: who is trained."""
        return self._run.cell.character

    @property
    def looked_for(self) -> Character:
        """Whom evaluations look for: the cell's character, but where an arm trains another, such as a null control."""
        return self._run.cell.looked_for

    @property
    def characters(self) -> Sequence[Character]:
        """The spec's characters, the cell's own among them; a stage whose rows rest on others says so in
        `further_inputs`."""
        return self._run.cell.shared.spec.characters

    @property
    def scale(self) -> Scale:
        """The cell's scale."""
        return self._run.cell.scale

    @property
    def seed(self) -> int:
        """The cell's seed."""
        return self._run.cell.seed

    @property
    def extra(self) -> int:
        """Rows that later stages have asked for beyond the scale's number."""
        return self._run.extra

    @property
    def folder(self) -> Path:
        """The stage's folder in the store."""
        return self._run.folder

    @property
    def exact(self) -> bool:
        """Whether the engine repeats a forward pass to rounding, so that strict tolerances hold."""
        return self._run.cell.shared.exact

    @property
    def dry(self) -> bool:
        """Whether nobody answers, as for `charrun plan`: answers have a length and say nothing that could be judged.

        A stage whose requests depend on what answers say asks for what it expects to, and goes on.
        """
        return self._run.cell.shared.dry

    def model(self, role: str) -> ModelRef:
        """The model of a role."""
        self._declared(role, "roles", self._run.stage.roles)
        return self._run.cell.model(role)

    def find_character(self, id: str) -> Character:
        """Another character by its id, as a spec would name it; a path is relative as those that `path` takes."""
        return self._run.cell.shared.find_character(id, self._folder_of(id))

    @property
    def stand_ins(self) -> Mapping[str, str]:
        """Named model to the model that stands in for it, where the run uses stand-ins."""
        return self._run.cell.shared.stand_ins

    def finished(self) -> list[StageResult]:
        """The cell's earlier stages, with rows and token counts.

        Raises:
            StageFailed: The stage does not say `awaits_all`: which of them have ended would be chance.
        """
        if self._run.awaited:
            raise _not_yet(self._run.awaited)
        if not self._run.stage.awaits_all:
            what = f"{self._run.item.id} asks which stages have ended, and does not await them"
            raise StageFailed(what, "a defect of the stage: leave awaits_all as it is")
        return [run.result for run in self._run.earlier if run.result]

    def path(self, written: str) -> Path:
        """A file that an option names, relative to the file that says so; to the working directory from `--set`."""
        return self._folder_of(written) / os.path.expanduser(written)

    def _folder_of(self, written: str) -> Path:
        return self._run.item.folder_of(written) or self._run.cell.shared.spec.path.parent

    def rng(self, *label: Any) -> random.Random:
        """A random generator that depends on the cell's seed and the label alone."""
        return random.Random(seed_from(self.seed, *label))

    def render(self, template: str, /, **variables: Any) -> str:
        """A prompt text of a template file; a variable that it does not know, or never mentions, is an error.

        Raises:
            StageFailed: The template, with those that it includes, does not mention a variable, so that what it holds
                would never reach a model; or the spec has replaced one of them, and the text is the same whatever a
                variable, or an item of a list, says. Those that `Stage.optional_variables` names may be left out.
        """
        self._declared(template, "templates", self._run.stage.templates)
        prompts = self._run.cell.shared.prompts
        optional = self._run.stage.optional_variables.get(template, ())
        if unused := sorted(prompts.unmentioned(template, variables) - set(optional)):
            named = ", ".join(map(repr, unused))
            what = f"{self._run.item.id}: template '{template}' never mentions {named}, which the stage gives it"
            raise StageFailed(what, f"write {{{{ {unused[0]} }}}} where it belongs in {prompts.files[template]}")
        text = prompts.render(template, **variables)
        self._check_said(template, {name: value for name, value in variables.items() if name not in optional})
        return text

    def _check_said(self, template: str, variables: Mapping[str, Any]) -> None:
        """Of a template that the spec has replaced: once, that each value reaches the text."""
        prompts, replaced = self._run.cell.shared.prompts, self._run.cell.shared.spec.templates
        asked = (template, *sorted(variables))
        if asked in self._said:
            return
        self._said.add(asked)
        if not replaced.keys() & prompts.sources_of([template]).keys():
            return
        if idle := prompts.idle(template, variables):
            what = f"{self._run.item.id}: template '{template}' says the same whatever {idle[0]} is"
            told = f" (and {len(idle) - 1} more)" if len(idle) > 1 else ""
            raise StageFailed(f"{what}{told}", f"write it where it belongs in {prompts.files[template]}")

    def character_prompt(self, character: Character | None = None, template: str = "character", **more: Any) -> str:
        """The system prompt that gives a model the character."""
        who = character or self.character
        return self.render(template, name=who.name, traits=[t.trait for t in who.traits], **more)

    # -- upstream -------------------------------------------------------------------------------------------------

    async def rows(self, kind: str, producer: str | None = None) -> list[Row]:
        """Rows of a kind.

        Args:
            kind: The kind.
            producer: One of `producers`; by default the nearest earlier one (or the one that `needs` names).

        Raises:
            Interrupted: The stage `begins_early`, and they are not there yet: it is run again when they are.
        """
        found = self._producer(kind)
        if producer is not None:
            found = next(run for run in self._run.producers(kind) if run.item.id == producer)
        rows = await self._rows(found, kind)
        self._seen[found] = found.extra
        return rows

    async def every(self, kind: str) -> list[list[Row]]:
        """Rows of a kind from each earlier producer, in stage order; empty where there is none."""
        self._consumed(kind)
        return [await self._rows(run, kind) for run in self._run.producers(kind)]

    async def _rows(self, producer: StageRun, kind: str, extra: int = 0) -> list[Row]:
        if producer in self._run.awaited:
            raise _not_yet({producer})
        return await producer.rows(kind, extra)

    def awaited(self, kind: str) -> list[str]:
        """Ids of those of `producers` whose rows are not there yet; none but where the stage `begins_early`."""
        self._consumed(kind)
        return [run.item.id for run in self._run.producers(kind) if run in self._run.awaited]

    def producers(self, kind: str) -> list[str]:
        """Ids of the stage items that `every` reads, in order; also known before a run."""
        self._consumed(kind)
        return [run.item.id for run in self._run.producers(kind)]

    def has(self, kind: str) -> bool:
        """Whether an earlier stage produces a kind."""
        return bool(self._run.producers(kind))

    async def extend(self, kind: str, n: int) -> list[Row]:
        """Ask the producer of a kind for n more rows than this stage has been given; returns all of its rows.

        Two stages that lack the same rows at once, as two that answer the same prompts, get the same ones.

        Raises:
            StageFailed: The producer cannot make more.
        """
        producer = self._producer(kind)
        if self._run.awaited:  # more rows would be other inputs
            raise _not_yet(self._run.awaited)
        rows = await producer.rows(kind, extra=self._seen.get(producer, producer.extra) + n)
        self._seen[producer] = producer.extra
        return rows

    def _producer(self, kind: str) -> StageRun:
        self._consumed(kind)
        return self._run.producer(kind)

    def _consumed(self, kind: str) -> None:
        self._declared(kind, "consumes or optional", (*self._run.stage.consumes, *self._run.stage.optional))

    def _declared(self, name: str, field: str, declared: Container[str]) -> None:
        """What a stage uses without declaring it would not be in its fingerprint, and stale rows would be found."""
        if name not in declared:
            what = f"{self._run.item.id} uses '{name}' without naming it under {field}"
            raise StageFailed(what, "a defect of the stage: nothing would notice when that changes")

    def checkpoint(self, written: str, role: str) -> Row:
        """A checkpoint that an option names: the path of sampler weights, or `RUN/CELL/STAGE` of another run.

        No engine is started, so `problems` may ask. Its `fingerprint` belongs into `further_inputs`.

        Args:
            written: As the spec has it.
            role: Whose base model it must have been trained from, where that is known.

        Raises:
            StageFailed: There is none, the engine is known not to hold it any more, or its base model is another one.
        """
        row, wanted = self._run.cell.shared.named.find(written).row, self.model(role).name
        if row["base_model"] not in ("", wanted):
            raise of_another_model(written, row["base_model"], role, wanted)
        return dict(row)

    def rows_behind(self, written: str, kind: str) -> list[list[Row]]:
        """Rows of a kind from each stage that a named checkpoint of another run rests on; none for a path."""
        return self._run.cell.shared.named.find(written).rows(kind)


def _not_yet(awaited: Iterable[StageRun]) -> NotYet:
    return NotYet(f"waits for {', '.join(sorted(run.item.id for run in awaited))}")


def of_another_model(checkpoint: str, base_model: str, role: str, wanted: str) -> StageFailed:
    """A checkpoint that belongs to another base model than the role's."""
    return StageFailed(
        f"the checkpoint {checkpoint} was trained from '{base_model}', and the {role} is '{wanted}'",
        "name a checkpoint of this model, or the other model in the spec",
    )
