"""Arms: variations of every cell, such as controls, each a layer over the spec's stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from charrun.errors import SpecError
from charrun.spec.document import Document, KeyPath, Node, plain
from charrun.spec.draft import Draft
from charrun.spec.library import Library, character_at, is_path, load_character
from charrun.spec.merge import Merger
from charrun.spec.model import Arm
from charrun.spec.parts import Character, StageInfo, StageItem
from charrun.spec.places import specs_folder
from charrun.spec.presets import Preset
from charrun.spec.schema import shipped_schema
from charrun.spec.stages import resolve_stages
from charrun.spec.words import shown, suggest
from charrun.spec.yaml import read_yaml


def shipped_arms() -> dict[str, Path]:
    """The arms that ship with charrun, by name."""
    return {path.stem: path for path in sorted((specs_folder() / "arms").glob("*.yaml"))}


def resolve_arms(
    draft: Draft, items: Sequence[StageItem], stages: Mapping[str, StageInfo], preset: Preset, library: Library
) -> tuple[Arm, ...]:
    """The spec's arms, as far as they are sound; one without a name where it has none.

    Args:
        draft: The spec.
        items: Its stages without an arm.
        stages: The stages at hand.
        preset: Options under the items' own.
        library: The characters that may be called by name.
    """
    if not draft.items("arms"):
        return (Arm("", tuple(items)),)
    resolving = _Resolving(draft, stages, preset, library)
    for i, written in enumerate(draft.items("arms")):
        if draft.sound(("arms", i)):
            resolving.arm(("arms", i), written)
    return tuple(resolving.found.values())


@dataclass
class _Resolving:
    """Lays each arm over the spec's stages."""

    draft: Draft
    stages: Mapping[str, StageInfo]
    preset: Preset
    library: Library
    found: dict[str, Arm] = field(default_factory=dict)

    def arm(self, at: KeyPath, written: Any) -> None:
        document = self.document(at, written)
        if document is None:
            return
        root, data = document
        name = data["name"]
        if name in self.found:
            self.draft.add("SPEC031", f"arm {shown(name)} is listed twice", at, "remove one of them")
            return
        character, sound = self.character(at, data.get("character"), isinstance(written, str))
        over = root.value["stages"][1] if "stages" in data else None
        items = self.items(at, name, over, isinstance(written, str))
        if sound and items is not None:
            self.found[name] = Arm(name, items, character, data.get("description", ""))

    def document(self, at: KeyPath, written: Any) -> tuple[Node, dict[str, Any]] | None:
        """Node and data of an arm that is written out, or in a file."""
        if isinstance(written, dict):
            return self.draft.document.node(at), written
        shipped = shipped_arms()
        if written not in shipped and not is_path(written):
            hint = suggest(written, shipped, "arms")
            self.draft.add("SPEC066", f"unknown arm {shown(written)}", at, hint)
            return None
        file, told = (
            (shipped[written], str(shipped[written])) if written in shipped else self.draft.relative(written, at)
        )
        try:
            other = Draft(read_yaml(file, told))
            other.check(other.document.data, shipped_schema("arm"))
            if problems := other.problems():
                raise SpecError(problems)
        except SpecError as error:
            if error.problems[0].code != "SPEC001":
                self.draft.add_elsewhere(error.problems)
            else:
                message = f"arm file {shown(told)}: {error.problems[0].message}"
                self.draft.add("SPEC027", message, at, self.draft.paths_hint(written, at))
            return None
        return other.document.root, {"name": file.stem, **other.document.data}

    def character(self, at: KeyPath, name: Any, in_file: bool) -> tuple[Character | None, bool]:
        """Who is trained in place of the cell's character, and whether that could be told."""
        if name is None:
            return None, True
        at = at if in_file else (*at, "character")
        if isinstance(name, dict):
            return character_at(self.draft, at), True
        if name in self.library.characters:
            return load_character(self.library.characters[name]), True
        if not is_path(name) or in_file:
            hint = suggest(name, self.library.characters, "characters")
            self.draft.add("SPEC030", f"unknown character {shown(name)}", at, hint)
            return None, False
        file, told = self.draft.relative(name, at)
        try:
            return load_character(file, told), True
        except SpecError as error:
            self.draft.add_elsewhere(error.problems)
            return None, False

    def items(self, at: KeyPath, name: str, over: Node | None, in_file: bool) -> tuple[StageItem, ...] | None:
        """The stages of an arm; None if something is wrong with them."""
        document = self.draft.document
        if over is not None:
            merger = Merger()
            entries = dict(document.root.value)
            key, base = entries["stages"]
            merged = merger.merge(base, over, ("stages",))
            for problem in merger.problems:
                if in_file:
                    message = f"arm {shown(name)}: {problem.message}"
                    self.draft.add(problem.code, message, at, "this arm is for specs that have it")
                else:
                    self.draft.add_elsewhere([problem])
            if merger.problems:
                return None
            root = Node(entries | {"stages": (key, merged)}, document.root.mark, document.root.source)
            document = _with_stages(document, root, plain(merged))
        layered = Draft(document)
        layered.check(document.data, shipped_schema("spec"))
        items = resolve_stages(layered, self.stages, self.preset)
        known = {*self.draft.problems()}
        new = [problem for problem in layered.problems() if problem not in known]
        self.draft.add_elsewhere(replace(problem, message=f"arm {shown(name)}: {problem.message}") for problem in new)
        return None if new else items


def _with_stages(document: Document, root: Node, stages: Any) -> Document:
    return replace(document, root=root, data={**document.data, "stages": stages})
