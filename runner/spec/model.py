"""The spec as frozen data: what a file says once names are resolved and defaults are filled in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from charrun.endpoint import Endpoint
from charrun.errors import Problem
from charrun.spec.parts import Character, EngineChoice, LocalPlugin, ModelEntry, Scale, StageItem, StandIns, plain_data
from charrun.spec.words import slug


@dataclass(frozen=True)
class Arm:
    """A variation of every cell, such as a control.

    Attributes:
        name: Its name, part of the cell's; empty where the spec has no arms.
        stages: The stage items, in order.
        character: Who is trained in place of the cell's character, which evaluations still look for.
        description: What it shows.
    """

    name: str
    stages: tuple[StageItem, ...]
    character: Character | None = None
    description: str = ""


@dataclass(frozen=True)
class Exclusion:
    """Cells to leave out: those that match every key that is not `None`."""

    characters: frozenset[str] | None = None
    models: frozenset[str] | None = None
    scales: frozenset[str] | None = None
    seeds: frozenset[int] | None = None
    arms: frozenset[str] | None = None

    def matches(self, character: str, model: str, scale: str, seed: int, arm: str) -> bool:
        """Whether a cell, given by ids, names and seed, is left out."""
        return (
            (self.characters is None or character in self.characters)
            and (self.models is None or model in self.models)
            and (self.scales is None or scale in self.scales)
            and (self.seeds is None or seed in self.seeds)
            and (self.arms is None or arm in self.arms)
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, in a fixed order."""
        parts: dict[str, frozenset[Any] | None] = {
            "character": self.characters,
            "model": self.models,
            "scale": self.scales,
            "seed": self.seeds,
            "arm": self.arms,
        }
        return {key: sorted(values) for key, values in parts.items() if values is not None}


@dataclass(frozen=True)
class CellSpec:
    """One training run of the matrix.

    Attributes:
        name: A slug, the only one of its kind in the spec.
        character: Who is trained.
        looked_for: Whom evaluations look for: the same, but for an arm that trains another.
        models: The models by role.
        scale: How much of everything.
        seed: The seed.
        arm: The variation.
    """

    name: str
    character: Character
    looked_for: Character
    models: ModelEntry
    scale: Scale
    seed: int
    arm: Arm


@dataclass(frozen=True)
class Spec:
    """A resolved spec.

    Attributes:
        name: Its name.
        seeds: Every cell is run once with each.
        engine: The engine.
        characters: The matrix's characters,
        models: its models,
        scales: and its scales.
        budget_usd: What the run may cost.
        stages: The stage items, in order, without an arm.
        stage_budgets: What single stage items may cost of it, by id.
        prices: The spec's own prices by model: `prefill`, `sample`, and where they are said `cached_prefill`, `train`,
            in US dollars per million tokens.
        stand_ins: What `engine: auto` runs without credentials.
        path: The spec file.
        templates: A prompt template's name to the file that replaces it.
        exclude: The cells that are left out of the matrix.
        arms: The matrix's variations; none where every cell is done as `stages` says.
        plugins: Files of the spec's own with stages.
        warnings: What may be a mistake.
        successors: Options of the command line that take the successors of its retired models.
    """

    name: str
    seeds: tuple[int, ...]
    engine: EngineChoice
    characters: tuple[Character, ...]
    models: tuple[ModelEntry, ...]
    scales: tuple[Scale, ...]
    budget_usd: float | None
    stages: tuple[StageItem, ...]
    stand_ins: StandIns | None
    path: Path
    templates: Mapping[str, Path]
    exclude: tuple[Exclusion, ...] = ()
    arms: tuple[Arm, ...] = ()
    plugins: tuple[LocalPlugin, ...] = ()
    warnings: tuple[Problem, ...] = ()
    successors: tuple[str, ...] = ()
    stage_budgets: Mapping[str, float] = field(default_factory=dict)
    prices: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @cached_property
    def endpoints(self) -> dict[str, Endpoint]:
        """Where the models live that the engine does not serve, by name."""
        refs = [ref for entry in self.models for ref in entry.roles.values()]
        return {ref.name: ref.endpoint for ref in refs if ref.endpoint is not None}

    @cached_property
    def engine_models(self) -> list[str]:
        """Names of the models that the engine serves, in order."""
        refs = [ref for entry in self.models for ref in entry.roles.values()]
        return sorted({ref.name for ref in refs if ref.endpoint is None})

    @cached_property
    def cells(self) -> tuple[CellSpec, ...]:
        """The matrix, character by character, then by models, scale, seed and arm, without what is left out."""
        axes = self.characters, self.models, self.scales, self.seeds, self.arms or (Arm("", self.stages),)
        return tuple(
            CellSpec(
                self._cell_name(character, entry, scale, seed, arm),
                arm.character or character,
                character,
                entry,
                scale,
                seed,
                arm,
            )
            for character, entry, scale, seed, arm in product(*axes)
            if not any(out.matches(character.id, entry.id, scale.name, seed, arm.name) for out in self.exclude)
        )

    def _cell_name(self, character: Character, entry: ModelEntry, scale: Scale, seed: int, arm: Arm) -> str:
        end = f"-s{seed}" if len(self.seeds) > 1 else ""
        end += f"-{arm.name}" if arm.name else ""
        return f"{character.id}-{entry.id or slug(entry.student.name)}-{scale.name}{end}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, fit for JSON, that depends on what runs and not on where the files lie.

        Replacement templates are given by their text, stage files by their digest. Local model folders are absolute
        paths.

        Raises:
            OSError: If a template file is gone.
        """
        return {
            "version": 1,
            "name": self.name,
            "seeds": list(self.seeds),
            "engine": {"uses": self.engine.uses, "with": dict(self.engine.options)},
            "characters": [character.to_dict() for character in self.characters],
            "models": [
                {"id": entry.id, **{role: model.to_dict() for role, model in entry.roles.items()}}
                for entry in self.models
            ],
            "scales": [asdict(scale) for scale in self.scales],
            "exclude": [out.to_dict() for out in self.exclude],
            "budget": {"usd": self.budget_usd, "stages": dict(self.stage_budgets)},
            "prices": plain_data(self.prices),
            "stages": _items(self.stages),
            **({"arms": [_arm(arm) for arm in self.arms]} if self.arms else {}),
            "stand_ins": self.stand_ins
            and {
                "models": dict(self.stand_ins.models),
                "with": plain_data(self.stand_ins.options),
            },
            "templates": {name: path.read_text(encoding="utf-8") for name, path in self.templates.items()},
            "plugins": [{"file": plugin.path.name, "sha256": plugin.sha256} for plugin in self.plugins],
        }


def _items(stages: Iterable[StageItem]) -> list[dict[str, Any]]:
    return [
        {"id": item.id, "uses": item.uses, "with": plain_data(item.options), "needs": list(item.needs)}
        for item in stages
    ]


def _arm(arm: Arm) -> dict[str, Any]:
    character = {"character": arm.character.to_dict()} if arm.character else {}
    return {"name": arm.name, "description": arm.description, **character, "stages": _items(arm.stages)}
