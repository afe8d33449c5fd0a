"""The one place where the test kit calls the pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from charrun.events import RowStored, StepDone
    from charrun.pipeline.context import StageContext
    from charrun.plugin_manager import Registry
    from charrun.service.engine import Engine
    from charrun.spec import Spec
    from charrun.stage import Stage

Moment = Literal["row", "step"]
"""What a watcher is told of: a response is in the store, an optimiser step is done."""

Watch = Callable[[Moment], None]


class _Watcher:
    """An observer, as a plugin's hooks are one."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def charrun_row_stored(self, event: RowStored) -> None:
        self._watch("row")

    def charrun_step_done(self, event: StepDone) -> None:
        self._watch("step")


def registry_with(*stages: type[Stage]) -> Registry:
    """The built-in plugins and some stages; a stage takes the place of a built-in one of its name."""
    from charrun.plugin_manager import load_registry

    registry = load_registry(third_party=False)
    return replace(
        registry,
        stages={**registry.stages, **{stage.name: stage for stage in stages}},
        templates={**registry.templates, **{name: path for s in stages for name, path in s.templates.items()}},
    )


def resolved(path: Path, registry: Registry) -> Spec:
    """A spec file, checked against the stages of a registry.

    Raises:
        SpecError: With every problem.
    """
    from charrun.commands.loading import resolve

    return resolve(str(path), (), registry)


def run(spec: Spec, registry: Registry, engine: Engine, runs_dir: Path, watch: Watch | None = None) -> Path:
    """Run a spec on an engine; returns the run's folder.

    Raises:
        CharrunError: What the command line would tell.
    """
    from charrun.pipeline.choice import Choice
    from charrun.pipeline.run import run_choice

    watchers = [_Watcher(watch)] if watch else []
    return run_choice(Choice(engine, spec), registry, runs_dir, watchers).folder


def context_of(spec: Spec, registry: Registry, engine: Engine, id: str) -> StageContext:
    """The context of a stage that has not run, as `plan` and `validate` give it to a stage."""
    from charrun.pipeline.choice import Choice
    from charrun.pipeline.context import StageContext
    from charrun.pipeline.run import plan_cells

    (cell,) = plan_cells(Choice(engine, spec), registry, spec.path.parent)
    (stage,) = [stage for stage in cell.stages if stage.item.id == id]
    return StageContext(stage)
