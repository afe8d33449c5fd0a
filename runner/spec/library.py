"""Characters and scales: those that ship with charrun, and those that a spec brings along."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from charrun.errors import SpecError
from charrun.spec.document import KeyPath
from charrun.spec.draft import Draft
from charrun.spec.kind_words import other_kind
from charrun.spec.parts import Character, Scale, Trait
from charrun.spec.schema import shipped_schema
from charrun.spec.words import as_slug, shown, suggest
from charrun.spec.yaml import read_yaml


@dataclass(frozen=True)
class Library:
    """What a spec may call by name: character files by id, and scales."""

    characters: Mapping[str, Path]
    scales: Mapping[str, Scale]


def load_character(path: Path, name: str = "") -> Character:
    """Read a character file.

    Args:
        path: The file.
        name: What to call it in problems; `path` itself if empty.

    Raises:
        SpecError: With every problem found in the file.
    """
    draft = Draft(read_yaml(path, name))
    _refuse_other_kinds(draft, "character")
    draft.check(draft.document.data, shipped_schema("character"))
    character = character_at(draft, ()) if draft.sound(()) else None
    if problems := draft.problems():
        raise SpecError(problems)
    assert character is not None
    return character


def character_at(draft: Draft, at: KeyPath) -> Character:
    """The character written at `at`, which its schema has found sound; adds what the schema cannot see."""
    data = draft.document.at(at)
    _check_questions(draft, at, data["traits"])
    traits = tuple(Trait(item["trait"], tuple(item["questions"])) for item in data["traits"])
    told = (data.get("licence", ""), data.get("source", ""))
    return Character(data["id"], data["name"], data["description"], traits, *told)


def _check_questions(draft: Draft, at: KeyPath, traits: list[dict[str, Any]]) -> None:
    seen: dict[str, int] = {}
    for i, trait in enumerate(traits):
        for j, question in enumerate(trait["questions"]):
            path = (*at, "traits", i, "questions", j)
            folded = " ".join(question.split()).casefold()
            if folded in seen:
                hint = f"it is already there in line {seen[folded]}: ask something else"
                draft.add("SPEC032", f"repeated question {shown(question)}", path, hint)
            seen.setdefault(folded, draft.document.mark(path).line)


def resolve_characters(draft: Draft, library: Library) -> tuple[Character, ...]:
    """The spec's characters, as far as they are sound."""
    found: dict[str, Character] = {}
    files = _Files(draft, "character", load_character)
    for i, item in enumerate(draft.items("characters")):
        path = ("characters", i)
        if not draft.sound(path):
            continue
        character = character_at(draft, path) if isinstance(item, dict) else _named(files, path, item, library)
        if character is None:
            continue
        if character.id in found:
            hint = "remove one of them" + (", or give this one another id" if isinstance(item, dict) else "")
            draft.add("SPEC031", f"character {character.id!r} is listed twice", path, hint)
        found[character.id] = character
    return tuple(found.values())


def _named(files: _Files[Character], path: KeyPath, name: str, library: Library) -> Character | None:
    if name in library.characters:
        return files.read(path, library.characters[name], str(library.characters[name]))
    if is_path(name):
        return files.read(path, *files.draft.relative(name, path))
    hint = _names_hint(name, library.characters, "characters")
    files.draft.add("SPEC030", f"unknown character {shown(name)}", path, hint)
    return None


def resolve_scales(draft: Draft, library: Library) -> tuple[Scale, ...]:
    """The spec's scales, as far as they are sound."""
    found: dict[str, Scale] = {}
    files = _Files(draft, "scale", load_scale)
    for i, item in enumerate(draft.items("scales")):
        path = ("scales", i)
        if not draft.sound(path):
            continue
        scale = Scale(**item) if isinstance(item, dict) else _named_scale(files, path, item, library)
        if scale is None:
            continue
        if scale.name in found:
            hint = "remove one of them" + (", or give this one another name" if isinstance(item, dict) else "")
            draft.add("SPEC031", f"scale {scale.name!r} is listed twice", path, hint)
        found[scale.name] = scale
    return tuple(found.values())


def _named_scale(files: _Files[Scale], path: KeyPath, name: str, library: Library) -> Scale | None:
    if name in library.scales:
        return library.scales[name]
    if is_path(name):
        return files.read(path, *files.draft.relative(name, path))
    files.draft.add("SPEC033", f"unknown scale {shown(name)}", path, _names_hint(name, library.scales, "scales"))
    return None


def _names_hint(name: str, known: Iterable[str], what: str) -> str:
    hint = suggest(name, known, what)
    return hint if hint.startswith("did") else f"{hint}; a file's name ends in .yaml"


_T = TypeVar("_T")


@dataclass
class _Files(Generic[_T]):
    """Reads the files that a spec names, each once: it takes its time, and a list may name one a thousand times."""

    draft: Draft
    what: str
    load: Callable[[Path, str], _T]
    kept: dict[Path, _T | SpecError] = field(default_factory=dict)

    def read(self, path: KeyPath, file: Path, told: str) -> _T | None:
        """What a file holds; `None`, with its problems, if it cannot be read."""
        if file not in self.kept:
            try:
                self.kept[file] = self.load(file, told)
            except SpecError as error:
                self.kept[file] = error
                self.draft.add_elsewhere(error.problems if error.problems[0].code != "SPEC001" else ())
        found = self.kept[file]
        if not isinstance(found, SpecError):
            return found
        if found.problems[0].code == "SPEC001":
            message = f"{self.what} file {shown(told)}: {found.problems[0].message}"
            written = self.draft.document.at(path)
            self.draft.add("SPEC027", message, path, self.draft.paths_hint(written, path))
        return None


def _refuse_other_kinds(draft: Draft, wanted: str) -> None:
    """Tell in one problem that a file is of another kind, rather than of each of its keys that it is unknown."""
    root = draft.document.root
    if isinstance(root.value, dict) and (other := other_kind(root.value, wanted)):
        problem = root.problem("SPEC027", f"not a {wanted}, but {other}", f"name a file that holds a {wanted}")
        raise SpecError([*draft.document.problems, problem])


def load_scale(path: Path, name: str = "") -> Scale:
    """Read a scale file; a scale that has no name is called as its file.

    Args:
        path: The file.
        name: What to call it in problems; `path` itself if empty.

    Raises:
        SpecError: With every problem found in the file.
    """
    draft = Draft(read_yaml(path, name))
    _refuse_other_kinds(draft, "scale")
    numbers = draft.document.data
    if isinstance(numbers, dict) and "name" not in numbers:
        numbers["name"] = path.stem
        if as_slug(path.stem) != path.stem:
            hint = f"the file's name is no slug: add 'name: {as_slug(path.stem) or 'my-scale'}'"
            draft.add("SPEC015", "missing key 'name'", (), hint)
            raise SpecError(draft.problems())
    draft.check(numbers, shipped_schema("scale"))
    if problems := draft.problems():
        raise SpecError(problems)
    return Scale(**{key: value for key, value in numbers.items() if key != "version"})


def is_path(name: str) -> bool:
    """Whether the name of a character or scale is the path of its file."""
    return "/" in name or name.endswith((".yaml", ".yml"))
