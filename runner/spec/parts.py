"""What a spec is made of, as frozen data: models, characters, scales, stage items, the engine."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from charrun.endpoint import Endpoint
from charrun.errors import Problem
from charrun.spec.document import Node, Severity


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
        plain: dict[str, Any] = {"name": self.name, "chat": plain_data(self.chat)}
        return plain if self.endpoint is None else {**plain, "endpoint": plain_data(asdict(self.endpoint))}


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
        return {key: value for key, value in plain_data(asdict(self)).items() if value != ""}


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


def plain_data(value: Any) -> Any:
    """Mappings as dicts and sequences as lists, all the way down."""
    if isinstance(value, Mapping):
        return {key: plain_data(item) for key, item in value.items()}
    return [plain_data(item) for item in value] if isinstance(value, list | tuple) else value
