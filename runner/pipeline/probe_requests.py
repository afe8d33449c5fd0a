"""Which of a dry run's requests a probe sends, and where what they are answered is kept."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from charrun.pipeline.checkpoints import CHECKPOINT
from charrun.pipeline.choice import Choice
from charrun.pipeline.dry_run import DryRun, run_dry
from charrun.pipeline.foresight import cells_to_run
from charrun.pipeline.lengths import EarlierLengths
from charrun.plugin_manager import Registry
from charrun.spec.prices import Cost, Rates, cost_of, cost_sum
from charrun.store.canonical import digest
from charrun.store.items import ANSWERS, ITEMS, Record
from charrun.store.lines import read_lines
from charrun.usage import Usage, of_samples

if TYPE_CHECKING:
    from charrun.pipeline.cell import Cell
    from charrun.pipeline.stage_run import StageRun

STAGE_FILE = "stage.json"


@dataclass(frozen=True)
class Asked:
    """One answer that a stage would ask for.

    Attributes:
        stage: Name of the stage.
        model: Name of the base model.
        record: What the dry run has stored for it.
        folder: Where the run will look for it; empty where it would not use it.
        description: The stage file of that folder; empty where there is none.
        index: Which of the record's sequences it is.
    """

    stage: str
    model: str
    record: Record
    folder: str = ""
    description: str = ""
    index: int = 0


@dataclass(frozen=True)
class Wanted:
    """What a probe asks for.

    Attributes:
        answers: Answers.
        scored: By base model, prompts that are scored, for what of them is in the engine's cache.
    """

    answers: Sequence[Asked]
    scored: Mapping[str, Sequence[list[int]]]

    def __bool__(self) -> bool:
        return bool(self.answers)


def to_ask(choice: Choice, registry: Registry, runs_dir: Path, cells: Sequence[Cell], rows: int) -> Wanted:
    """What a probe has to ask for, so that of each stage and base model so many answers are known."""
    found: list[Wanted] = []
    look = lambda dry: found.append(_wanted(dry, runs_dir / "store", rows))  # noqa: E731
    run_dry(choice, registry, runs_dir, cells_to_run(cells), look=look)
    return found[0]


def _wanted(dry: DryRun, store: Path, rows: int) -> Wanted:
    service = dry.dry_service
    known = {model: prompts for model, prompts in service.scored.items() if model not in service.unknown}
    return Wanted(_asked(dry, store, rows), {model: prompts[:rows] for model, prompts in known.items()})


def _asked(dry: DryRun, store: Path, rows: int) -> list[Asked]:
    served = set(dry.spec.engine_models)
    certain = _certain(dry.done) - {run.folder.name for run in dry.done if run.forced}
    probed = {base: store / folder_of(base) / ITEMS for base in dry.dry_service.bases.values()}
    kept = {line.value["key"] for path in probed.values() for line in read_lines(path)}
    by: dict[tuple[str, str], list[Asked]] = {}
    for path in sorted(dry.store.glob(f"*/{ITEMS}")):
        real = store / path.parent.name / ITEMS
        begun = real.stat().st_size if real.is_file() else 0
        description = path.parent / STAGE_FILE
        shared = path.parent.name.startswith(ANSWERS)
        for line in read_lines(path):
            if line.offset < begun:
                continue
            record: Record = line.value  # type: ignore[assignment]
            base = dry.dry_service.bases.get(record["model"], record["model"])
            if base not in served:
                continue  # of a sampler of the stage's own
            of_base = base == record["model"]
            useful = of_base and (shared or path.parent.name in certain)
            told = description.read_text(encoding="utf-8") if useful and description.exists() else ""
            stage = record["work"].partition("/")[0].rpartition("-")[0]
            asked = Asked(stage, base, record, path.parent.name if useful else "", told)
            if not useful and stored_as(asked)[1] in kept:
                continue
            by.setdefault((stage, base), []).append(asked)
    earlier, rng = EarlierLengths(store), random.Random(0)
    found = []
    for (stage, model), all_ in by.items():
        known = earlier.of(stage, model, dry.namespace(model))
        lacking = rows - (len(known.seen) if known.same else 0)
        rng.shuffle(all_)
        found += _spread(all_, lacking)
    return found


def _spread(asked: Sequence[Asked], number: int) -> list[Asked]:
    """So many single answers, of as many requests as there are."""
    found: list[Asked] = []
    index = 0
    while len(found) < number:
        having = [each for each in asked if index < len(each.record["sequences"])]
        if not having:
            break
        found += [replace(each, index=index) for each in having[: number - len(found)]]
        index += 1
    return found


def _certain(runs: Sequence[StageRun]) -> set[str]:
    """Folders of stages before which a dry run makes nothing up."""
    made_up: set[StageRun] = set()
    certain = set()
    for run in runs:
        if any(each in made_up for _, each in run.inputs()):
            made_up.add(run)
            continue
        certain.add(run.folder.name)
        is_done = run.result is not None and run.result.cached
        if not is_done and (CHECKPOINT in run.stage.produces or (run.folder / ITEMS).exists()):
            made_up.add(run)
    return certain


def most(wanted: Wanted, rates: Mapping[str, Rates | None]) -> Cost | None:
    """What it can cost, at the most; None where a price is not known."""
    costs = [cost_of(rates, each.model, _most(each)) for each in wanted.answers]
    for model, prompts in wanted.scored.items():
        costs += [cost_of(rates, model, of_samples(len(tokens), 0, 1, 1)) for tokens in prompts]
    return cost_sum(costs)


def _most(asked: Asked) -> Usage:
    return of_samples(asked.record["prompt_tokens"], 0, 1, int(asked.record["input"]["max_tokens"]))


def folder_of(model: str) -> str:
    """Where answers lie that are there for their lengths alone."""
    return f"{ANSWERS}{digest(['probe', model])[:16]}"


def stored_as(asked: Asked) -> tuple[str, str]:
    """Folder and key: of one that is there for its length alone, a key that nobody asks for."""
    if asked.folder:
        return asked.folder, asked.record["key"]
    return folder_of(asked.model), digest(["probe", asked.record["key"]])
