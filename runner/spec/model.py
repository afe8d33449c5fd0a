"""The spec as frozen data: what a file says once names are resolved and defaults are filled in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from charrun.endpoint import Endpoint
from charrun.errors import Problem
from charrun.spec.document import Node, Severity
from charrun.spec.words import slug


@dataclass(frozen=True)
class ModelRef:
    """One model in one role.

    Attributes:
        name: The name that an engine serves, or the absolute path of a local model folder.
        chat: Arguments of the model's chat template, such as `{"enable_thinking": False}`.
        endpoint: The server that samples from it in the engine's place; `None` for the engine.
    """

    name: str
    chat: Mapping[str, Any] = field(default_factory=dict)
    endpoint: Endpoint | None = None

    @property
    def folder(self) -> Path | None:
        """The local model folder, `None` for a name that an engine serves."""
        return Path(self.name) if Path(self.name).is_absolute() and self.endpoint is None else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `endpoint` only where there is one."""
        plain: dict[str, Any] = {"name": self.name, "chat": _plain(self.chat)}
        return plain if self.endpoint is None else {**plain, "endpoint": _plain(asdict(self.endpoint))}


@dataclass(frozen=True)
class ModelEntry:
    """The models of one cell by role: `teacher`, `student` and whatever further roles the stages use.

    Attributes:
        roles: The models by role.
        id: What cells and `exclude` call the entry, a slug.
    """

    roles: Mapping[str, ModelRef]
    id: str = ""

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
    """A constitution: who the model is to become. `name` is what the assistant is called.

    `licence` and `source` say what a constitution from elsewhere may be used for; empty where the file says nothing.
    """

    id: str
    name: str
    description: str
    traits: tuple[Trait, ...]
    licence: str = ""
    source: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data that reads back as the same character."""
        return {key: value for key, value in _plain(asdict(self)).items() if value != ""}


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
        instead: Kinds among `consumes` with the option that takes the place of each.
        trains: Roles that it trains, or samples from after a training.
        scores: Roles whose models it asks for log-probs of given answers.
        templates: Its prompt templates by name, each with the variables that a replacement may leave out.
    """

    options_schema: Mapping[str, Any] = field(default_factory=dict)
    consumes: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    produces: tuple[str, ...] = ()
    instead: Mapping[str, str] = field(default_factory=dict)
    trains: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()
    templates: Mapping[str, Collection[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class StageItem:
    """One item of the spec's `stages`.

    Attributes:
        id: What it is called.
        uses: The stage.
        options: All of its options, defaults filled in.
        needs: Ids of earlier items that it takes its input from.
        node: Where it is written, or where it was last changed.
        folders: Of an item that is not read from where it was written, the folders of paths among its options.
    """

    id: str
    uses: str
    options: Mapping[str, Any]
    needs: tuple[str, ...]
    node: Node = field(compare=False, repr=False)
    folders: Mapping[str, Path] = field(default_factory=dict, compare=False)

    def problem(self, code: str, message: str, severity: Severity = "error") -> Problem:
        """A problem with this item, at its place."""
        return self.node.problem(code, message, severity=severity)

    def folder_of(self, written: str) -> Path | None:
        """The folder that a path among the options is relative to: that of the file that it is written in.

        Returns:
            `None` if no option of this item is written so, as in a default or a stand-in's options.
        """
        if written in self.folders:
            return self.folders[written]
        return next((folder for text, folder in self._texts() if text == written), None)

    def folders_beside(self, folder: Path) -> dict[str, Path]:
        """Of each text among the options that is written in another folder than this, its folder."""
        found: dict[str, Path] = {}
        for text, place in self._texts():
            found.setdefault(text, place)
        return {text: place for text, place in found.items() if place.absolute() != folder.absolute()}

    def _texts(self) -> Iterator[tuple[str, Path]]:
        options = self.node.value.get("with") if isinstance(self.node.value, dict) else None
        yield from _written(options[1]) if options else ()


def _written(node: Node) -> Iterator[tuple[str, Path]]:
    """Every text in `node`, in order, with the folder of the file that it is written in."""
    match node.value:
        case dict() as entries:
            inner = [value for _, value in entries.values()]
        case list() as items:
            inner = items
        case value:
            if isinstance(value, str):
                yield value, node.source.path.parent if node.source.path else Path()
            return
    for child in inner:
        yield from _written(child)


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
class LocalPlugin:
    """A file of the spec's own with stages, and the SHA-256 of what was in it when the spec was read."""

    path: Path
    sha256: str


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
            "prices": _plain(self.prices),
            "stages": _items(self.stages),
            **({"arms": [_arm(arm) for arm in self.arms]} if self.arms else {}),
            "stand_ins": self.stand_ins
            and {
                "models": dict(self.stand_ins.models),
                "with": _plain(self.stand_ins.options),
            },
            "templates": {name: path.read_text(encoding="utf-8") for name, path in self.templates.items()},
            "plugins": [{"file": plugin.path.name, "sha256": plugin.sha256} for plugin in self.plugins],
        }


def _items(stages: Iterable[StageItem]) -> list[dict[str, Any]]:
    return [
        {"id": item.id, "uses": item.uses, "with": _plain(item.options), "needs": list(item.needs)} for item in stages
    ]


def _arm(arm: Arm) -> dict[str, Any]:
    character = {"character": arm.character.to_dict()} if arm.character else {}
    return {"name": arm.name, "description": arm.description, **character, "stages": _items(arm.stages)}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
