"""The spec as frozen data: what a file says once names are resolved and defaults are filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ModelRef:
    """One model in one role.

    Attributes:
        name: The name that an engine serves, or the absolute path of a local model folder.
        chat: Arguments of the model's chat template, such as `{"enable_thinking": False}`.
    """

    name: str
    chat: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path | None:
        """The local model folder, `None` for a name that an engine serves."""
        return Path(self.name) if Path(self.name).is_absolute() else None


@dataclass(frozen=True)
class ModelEntry:
    """The models of one cell by role: `teacher`, `student` and whatever further roles the stages use."""

    roles: Mapping[str, ModelRef]

    @property
    def teacher(self) -> ModelRef:
        """The model that answers in character."""
        return self.roles["teacher"]

    @property
    def student(self) -> ModelRef:
        """The model that is trained."""
        return self.roles["student"]


@dataclass(frozen=True)
class Trait:
    """One first-person sentence of a constitution and the questions meant to bring it out."""

    trait: str
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Character:
    """A constitution: who the model is to become. `name` is what the assistant is called."""

    id: str
    name: str
    description: str
    traits: tuple[Trait, ...]


@dataclass(frozen=True)
class Scale:
    """How much of everything a run makes.

    Attributes:
        name: Its name, part of the cell's.
        pairs: Preference pairs after the gates.
        samples_per_prompt: Sampled answers to one prompt.
        reflections: Self-reflection rows.
        interactions: Self-interaction conversations.
        turns: Generated messages in one conversation.
    """

    name: str
    pairs: int
    samples_per_prompt: int
    reflections: int
    interactions: int
    turns: int


@dataclass(frozen=True)
class StageInfo:
    """What the spec needs to know of a stage plugin.

    Attributes:
        options_schema: Draft-07 schema of the stage's options, with defaults.
        consumes: Kinds that an earlier stage must produce.
        optional: Kinds that the stage uses where an earlier stage produces them.
        produces: Kinds that it produces.
    """

    options_schema: Mapping[str, Any] = field(default_factory=dict)
    consumes: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    produces: tuple[str, ...] = ()


@dataclass(frozen=True)
class StageItem:
    """One item of the spec's `stages`: `options` are complete; it is written at `line` and `column`."""

    id: str
    uses: str
    options: Mapping[str, Any]
    needs: tuple[str, ...]
    line: int
    column: int


@dataclass(frozen=True)
class EngineChoice:
    """The engine by name (`auto` lets charrun choose) and its options as written."""

    uses: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StandIns:
    """What `engine: auto` runs without credentials.

    Attributes:
        models: Model name in the spec to the name (or absolute folder) of the model that stands in for it.
        options: Stage options by item id, merged over the item's own.
    """

    models: Mapping[str, str]
    options: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Spec:
    """A resolved spec. `templates` maps a prompt template's name to the file that replaces it."""

    name: str
    seed: int
    engine: EngineChoice
    characters: tuple[Character, ...]
    models: tuple[ModelEntry, ...]
    scales: tuple[Scale, ...]
    budget_usd: float | None
    stages: tuple[StageItem, ...]
    stand_ins: StandIns | None
    path: Path
    templates: Mapping[str, Path]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, fit for JSON, that depends on what runs and not on where the files lie.

        Replacement templates are given by their text. Local model folders are absolute paths.

        Raises:
            OSError: If a template file is gone.
        """
        return {
            "version": 1,
            "name": self.name,
            "seed": self.seed,
            "engine": {"uses": self.engine.uses, "with": dict(self.engine.options)},
            "characters": [_plain(asdict(character)) for character in self.characters],
            "models": [{role: _plain(asdict(model)) for role, model in entry.roles.items()} for entry in self.models],
            "scales": [asdict(scale) for scale in self.scales],
            "budget": {"usd": self.budget_usd},
            "stages": [
                {"id": item.id, "uses": item.uses, "with": _plain(item.options), "needs": list(item.needs)}
                for item in self.stages
            ],
            "stand_ins": self.stand_ins
            and {
                "models": dict(self.stand_ins.models),
                "with": _plain(self.stand_ins.options),
            },
            "templates": {name: path.read_text(encoding="utf-8") for name, path in self.templates.items()},
        }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
