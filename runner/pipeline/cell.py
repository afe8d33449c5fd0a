"""One cell (character x models x scale): its stages, their fingerprints, and what of them is already done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrun.errors import EnvironmentProblem, StageFailed
from charrun.pipeline.context import StageContext
from charrun.pipeline.reporter import StageResult
from charrun.service.ledger import Usage
from charrun.spec import Character, ModelEntry, ModelRef, Scale, StageItem
from charrun.store.canonical import digest, digest_rows
from charrun.store.files import make_folder, read_json, read_rows, write_json, write_rows
from charrun.store.lock import writing

if TYPE_CHECKING:
    from charrun.pipeline.shared import Shared
    from charrun.stage import Row, Stage

FINGERPRINT_VERSION = 1
CHECKPOINT = "checkpoint"
_LENGTH = 16
Outputs = Mapping[str, list["Row"]]


class Cell:
    """The stages of one character, one set of models and one scale, in spec order."""

    def __init__(self, shared: Shared, character: Character, models: ModelEntry, scale: Scale) -> None:
        self.shared = shared
        self.character = character
        self.models = models
        self.scale = scale
        student = self.model("student").name.rstrip("/").rsplit("/", 1)[-1].lower()
        self.name = f"{character.id}-{student}-{scale.name}"
        self.stages: list[StageRun] = []
        for item in shared.spec.stages:
            self.stages.append(StageRun(self, item, shared.registry.stages[item.uses](), tuple(self.stages)))

    def model(self, role: str) -> ModelRef:
        """The model of a role; a scorer that is not named is the teacher."""
        roles = self.models.roles
        if role == "scorer" and role not in roles:
            role = "teacher"
        if role not in roles:
            raise StageFailed(f"the spec names no model for the role '{role}'", f"add '{role}:' under models")
        return roles[role]


class StageRun:
    """One stage in one cell: makes its outputs once, finds them again, and makes more when asked."""

    def __init__(self, cell: Cell, item: StageItem, stage: Stage, earlier: tuple[StageRun, ...]) -> None:
        self.cell = cell
        self.item = item
        self.stage = stage
        self.options = item.options
        self.extra = 0
        self.fingerprint = ""
        self.folder = Path()
        self.result: StageResult | None = None
        self._earlier = earlier
        self._outputs: Outputs | None = None
        self._published: dict[str, list[Row]] = {}
        self._lock = asyncio.Lock()
        self._usage = Usage()
        self._done = self._total = 0

    # -- upstream -------------------------------------------------------------------------------------------------

    def producers(self, kind: str) -> list[StageRun]:
        """Earlier stages that produce a kind, in order; only those that `needs` names, where it names one of them."""
        found = [run for run in self._earlier if kind in run.stage.produces]
        named = [run for run in found if run.item.id in self.item.needs]
        return named or found

    def producer(self, kind: str) -> StageRun:
        """The nearest of them."""
        found = self.producers(kind)
        if not found:
            raise StageFailed(f"{self.item.id}: no earlier stage produces '{kind}'")
        return found[-1]

    def _inputs(self) -> list[tuple[str, StageRun]]:
        kinds = (*self.stage.consumes, *self.stage.optional)
        return [(kind, run) for kind in kinds for run in self.producers(kind)]

    # -- outputs --------------------------------------------------------------------------------------------------

    async def ensure(self, more: int = 0) -> Outputs:
        """The stage's outputs, from the store or made now; with `more`, that many rows more than before."""
        async with self._lock:
            if more:
                self.extra += more
                self._outputs = None
            if self._outputs is None:
                self._outputs = await self._make()
            return self._outputs

    def publish(self, kind: str, rows: Sequence[Row]) -> None:
        """Collect rows of a kind; a kind that the stage does not declare is a defect of the stage."""
        if kind not in self.stage.produces:
            raise StageFailed(f"{self.item.id} published '{kind}', which its `produces` does not name")
        self._published[kind] = list(rows)

    def count(self, usage: Usage) -> None:
        """Add to the token counts and show them."""
        self._usage.add(usage)
        self.progress()

    def progress(self, done: int = 0, total: int | None = None) -> None:
        """Show work done."""
        if total is not None:
            self._done, self._total = 0, total
        self._done += done
        self.cell.shared.reporter.progress(self.cell.name, self.item.id, self._done, self._total, self._usage)

    # -- making ---------------------------------------------------------------------------------------------------

    async def _make(self) -> Outputs:
        inputs = {(kind, run.item.id): await run.ensure() for kind, run in self._inputs()}
        rows = {f"{kind} of {id}": digest_rows(map(_identity, outputs[kind])) for (kind, id), outputs in inputs.items()}
        described = self._describe(rows)
        self.fingerprint = digest(described)
        self.folder = make_folder(self.cell.shared.store / f"{self.item.uses}-{self.fingerprint[:_LENGTH]}")
        ticket = digest([_numbers(self.cell.scale), self.extra, rows])[:_LENGTH]
        done = make_folder(self.folder / "done") / f"{ticket}.json"
        found = self._read(done)
        if found is not None:
            return found
        for kind, run in self._inputs():
            if kind == CHECKPOINT:
                await run.renew_lost_checkpoint()
        try:
            with writing(self.folder):
                write_json(self.folder / "stage.json", described)
                return await self._work(done)
        except OSError as error:
            raise EnvironmentProblem(
                f"{self.item.id}: {error.strerror or error}: {error.filename or self.folder}",
                "what is recorded stays; make room and run the same command again",
            ) from error

    async def _work(self, done: Path) -> Outputs:
        shared, cell = self.cell.shared, self.cell.name
        self._published = {}
        self._usage, self._done, self._total = Usage(), 0, 0
        shared.record("stage_started", self, folder=self.folder.name, extra=self.extra)
        shared.reporter.stage_started(cell, self.item.id, self.stage.summary)
        context = StageContext(self)
        started = time.monotonic()
        try:
            await self.stage.run(context)
        except BaseException as error:
            shared.record("stage_failed", self, error=f"{type(error).__name__}: {error}")
            raise
        finally:
            context.close()
        lacking = [kind for kind in self.stage.produces if kind not in self._published]
        if lacking:
            raise StageFailed(f"{self.item.id} ended without publishing {', '.join(lacking)}")
        self._store(done, time.monotonic() - started)
        outputs = self._read(done)
        assert outputs is not None, "just written"
        return outputs

    def _store(self, done: Path, seconds: float) -> None:
        outputs = {}
        for kind, rows in self._published.items():
            sha = digest_rows(rows)
            name = f"{kind}-{sha[:_LENGTH]}.jsonl"
            if not (self.folder / name).exists():
                write_rows(self.folder / name, rows)
            outputs[kind] = {"file": name, "rows": len(rows), "sha256": sha}
        past = self.result.usage.to_dict() if self.result and not self.result.cached else {}
        before = self.result.seconds if past and self.result else 0.0
        usage = Usage(**past)
        usage.add(self._usage)
        write_json(done, {"outputs": outputs, "seconds": round(before + seconds, 3), "usage": usage.to_dict()})
        self.cell.shared.record("stage_finished", self, outputs=outputs, seconds=round(seconds, 3))
        self.result = StageResult(self.item.id, before + seconds, {}, usage, cached=False)

    def _read(self, done: Path) -> Outputs | None:
        entry = read_json(done)
        if entry is None:
            return None
        outputs = {}
        for kind, output in entry["outputs"].items():
            path = self.folder / output["file"]
            rows = _rows(path)
            if rows is None or digest_rows(rows) != output["sha256"]:
                self.cell.shared.message(self, f"{path} is missing or damaged and is made again")
                path.unlink(missing_ok=True)
                return None
            outputs[kind] = rows
        fresh = self.result is not None and not self.result.cached
        self.result = StageResult(
            id=self.item.id,
            seconds=entry["seconds"],
            rows={kind: len(rows) for kind, rows in outputs.items()},
            usage=Usage(**entry["usage"]),
            cached=not fresh,
        )
        self.cell.shared.reporter.stage_finished(self.cell.name, self.result)
        return outputs

    async def renew_lost_checkpoint(self) -> None:
        """Train again where the engine no longer holds the stage's checkpoint."""
        outputs = await self.ensure()
        service = await self.cell.shared.service()
        if all([await service.exists(str(row["state"])) for row in outputs[CHECKPOINT]]):
            return
        self.cell.shared.message(self, f"the engine no longer holds the checkpoint of {self.item.id}: training again")
        async with self._lock:
            for path in (self.folder / "done").iterdir():
                path.unlink()
            self._outputs = await self._make()

    def _describe(self, rows: Mapping[str, str]) -> dict[str, Any]:
        """Everything that the stage's outputs depend on, and nothing else: what its fingerprint is made of."""
        shared, character = self.cell.shared, _parts(self.cell.character)
        described: dict[str, Any] = {
            "fingerprint_version": FINGERPRINT_VERSION,
            "stage": self.item.uses,
            "cache_version": self.stage.cache_version,
            "options": dict(self.options),
            "seed": shared.spec.seed,
            "templates": shared.prompts.sources_of(self.stage.templates),
            "character": {field: character[field] for field in self.stage.character_fields},
            "models": {role: self._model_identity(role) for role in self.stage.roles},
            "further": self.stage.further_inputs(StageContext(self)),
        }
        if self.stage.identity == "content":
            described["inputs"] = dict(rows)
        elif self.stage.identity == "lineage":
            described["inputs"] = {f"{kind} of {run.item.id}": run.fingerprint for kind, run in self._inputs()}
        return described

    def _model_identity(self, role: str) -> dict[str, Any]:
        ref = self.cell.model(role)
        return {"model": self.cell.shared.namespace(ref.name), "chat": dict(ref.chat)}


def _rows(path: Path) -> list[Row] | None:
    try:
        return list(read_rows(path))
    except (OSError, ValueError):
        return None


def _numbers(scale: Scale) -> dict[str, Any]:
    return {field: value for field, value in asdict(scale).items() if field != "name"}


def _parts(character: Character) -> dict[str, Any]:
    return {
        "name": character.name,
        "traits": [trait.trait for trait in character.traits],
        "questions": [list(trait.questions) for trait in character.traits],
    }


def _identity(row: Row) -> Any:
    """What of a row counts as its content: a checkpoint's fingerprint, not the path that the engine gave it."""
    return row.get("fingerprint", row)
