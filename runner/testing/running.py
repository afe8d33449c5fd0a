"""One stage, run by the pipeline on rows that the test gives."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charrun.stage import Row, Stage
from charrun.store.run import RunFolder
from charrun.store.runs import read_run
from charrun.testing.around import KEEPER, Kept, giving, keeping
from charrun.testing.asked import counted
from charrun.testing.engines import DEMO_MODELS, AttachedEngine, RunningEngine
from charrun.testing.pipeline import Watch, registry_with, resolved, run
from charrun.usage import Usage

Given = Mapping[str, Sequence[Row]]
Named = str | Path | Mapping[str, Any]
"""What a spec takes for a character or a scale: a name, a file's path, or the thing itself."""


@dataclass(frozen=True)
class StageOutcome:
    """What one run of a stage made.

    Attributes:
        rows: Published rows by kind.
        folder: The stage's folder in the store, with its records and whatever it wrote.
        run_folder: The run's own folder.
        events: The journal's events of this stage in this run, oldest first.
        log: The lines of `ctx.log` in this run.
        usage: What this run used by its own count; all zero where the stage was found done.
        asked: Calls of the SDK in this run by method, such as `{"sample": 16}`.
        cached: Whether the stage was found done.
        runs_dir: Where all of it lies; give it to the next run to find it again.
    """

    rows: Mapping[str, list[Row]]
    folder: Path
    run_folder: Path
    events: list[dict[str, Any]]
    log: list[str]
    usage: Usage
    asked: Mapping[str, int]
    cached: bool
    runs_dir: Path


def run_stage(
    stage: type[Stage],
    *,
    options: Mapping[str, Any] | None = None,
    given: Given | None = None,
    reserve: Given | None = None,
    character: Named = "pirate",
    scale: Named = "smoke",
    models: Mapping[str, Any] = DEMO_MODELS,
    seed: int = 7,
    engine: RunningEngine | None = None,
    runs_dir: Path | None = None,
    watch: Watch | None = None,
) -> StageOutcome:
    """Run one stage for real: its options checked, its rows stored, its requests answered by models.

    Args:
        stage: The class, registered by a plugin or not.
        options: What a spec would say under `with`; a file that they name is best given by its absolute path.
        given: Rows by kind, published by a stage before this one.
        reserve: Further rows by kind, published only when the stage asks for more of them with `ctx.extend`.
        character: A shipped character's id, a file, or a mapping as a character file has it.
        scale: A shipped scale's name, or a mapping as a spec has it.
        models: Names by role; what a spec takes under `models`.
        seed: The spec's seed.
        engine: One that runs; by default one is started for this run, which takes seconds.
        runs_dir: Where the store is; by default a temporary folder that is gone with this process. A second run in
            the same one finds what the first has stored.
        watch: Called with "row" or "step" when a response is stored or an optimiser step is done.

    Raises:
        SpecError: The options, the character or the models are not what a spec may say.
        StageFailed: The stage failed.
        ValueError: A kind is given that the stage does not consume, or one that it consumes is not given.
    """
    given = given or {}
    _check_given(stage, given, options or {})
    runs_dir = runs_dir.absolute() if runs_dir else temporary_folder()
    kept = Kept()
    further = [giving(kind, rows, (reserve or {}).get(kind, ())) for kind, rows in given.items()]
    registry = registry_with(stage, *further, keeping(stage.name, stage.produces, kept))
    items = stage_items(further, stage, options)
    items.append({"uses": KEEPER})
    path = write_spec(runs_dir, stage, items, character, scale, models, seed)
    spec = resolved(path, registry)
    with counted() as asked:
        place = AttachedEngine(engine) if engine else registry.engines["local"]()
        folder = run(spec, registry, place, runs_dir, watch)
    events = _last_run(folder, stage.name)
    return StageOutcome(
        rows=kept.rows,
        folder=_store_folder(folder, stage.name),
        run_folder=folder,
        events=events,
        log=[event["text"] for event in events if event["event"] == "message"],
        usage=kept.usage,
        asked=dict(asked),
        cached=kept.cached,
        runs_dir=runs_dir,
    )


def stage_items(
    before: Sequence[type[Stage]], stage: type[Stage], options: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """The spec's items of the stages before the tested one, and of itself."""
    return [*({"uses": one.name} for one in before), {"uses": stage.name, "with": dict(options or {})}]


def write_spec(
    folder: Path,
    stage: type[Stage],
    items: Sequence[Mapping[str, Any]],
    character: Named,
    scale: Named,
    models: Mapping[str, Any],
    seed: int,
) -> Path:
    """The spec of a test; JSON is YAML."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"test-{stage.name}.yaml"
    spec = {
        "version": 1,
        "name": "test",
        "seed": seed,
        "engine": "local",
        "characters": [str(character.absolute()) if isinstance(character, Path) else character],
        "models": [dict(models)],
        "scales": [scale],
        "stages": items,
    }
    path.write_text(json.dumps(spec, indent=1, ensure_ascii=False), encoding="utf-8")
    return path


def _check_given(stage: type[Stage], given: Given, options: Mapping[str, Any]) -> None:
    foreign = sorted(set(given) - {*stage.consumes, *stage.optional})
    if foreign:
        raise ValueError(f"stage '{stage.name}' consumes no {', '.join(foreign)}")
    instead = {kind for kind, option in stage.instead.items() if option in options}
    lacking = sorted(set(stage.consumes) - set(given) - instead)
    if lacking:
        kinds = ", ".join(f"{kind!r}: [...]" for kind in lacking)
        raise ValueError(f"stage '{stage.name}' consumes {', '.join(lacking)}: give rows, given={{{kinds}}}")


def temporary_folder() -> Path:
    """A new folder that is gone with this process."""
    folder = Path(tempfile.mkdtemp(prefix="charrun-testing-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _last_run(folder: Path, id: str) -> list[dict[str, Any]]:
    events = RunFolder(folder).events()
    start = max(i for i, event in enumerate(events) if event["event"] == "run_started")
    return [event for event in events[start:] if event.get("stage") == id]


def _store_folder(folder: Path, id: str) -> Path:
    (cell,) = read_run(folder).cells
    found = next(stage.folder for stage in cell.stages if stage.id == id)
    assert found is not None, "it has run"
    return found
