"""Characters and scales: those that ship with charrun, and those that a spec brings along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charrun.errors import SpecError
from charrun.spec.document import KeyPath
from charrun.spec.draft import Draft
from charrun.spec.model import Character, Scale, Trait
from charrun.spec.schema import shipped_schema
from charrun.spec.words import shown, suggest
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
    return Character(data["id"], data["name"], data["description"], traits)


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
    for i, item in enumerate(draft.items("characters")):
        path = ("characters", i)
        if not draft.sound(path):
            continue
        character = character_at(draft, path) if isinstance(item, dict) else _named(draft, path, item, library)
        if character is None:
            continue
        if character.id in found:
            draft.add("SPEC031", f"character {character.id!r} is listed twice", path, "remove one of them")
        found[character.id] = character
    return tuple(found.values())


def _named(draft: Draft, path: KeyPath, name: str, library: Library) -> Character | None:
    if name in library.characters:
        file, told = library.characters[name], str(library.characters[name])
    elif is_path(name):
        file, told = draft.relative(name, path)
    else:
        hint = suggest(name, library.characters, "characters") + " (a file's name ends in .yaml)"
        draft.add("SPEC030", f"unknown character {shown(name)}", path, hint)
        return None
    try:
        return load_character(file, told)
    except SpecError as error:
        if error.problems[0].code == "SPEC001":
            message = f"character file {shown(told)}: {error.problems[0].message}"
            draft.add("SPEC027", message, path, draft.paths_hint(path))
        else:
            draft.add_elsewhere(error.problems)
        return None


def resolve_scales(draft: Draft, library: Library) -> tuple[Scale, ...]:
    """The spec's scales, as far as they are sound."""
    found: dict[str, Scale] = {}
    for i, item in enumerate(draft.items("scales")):
        path = ("scales", i)
        if not draft.sound(path):
            continue
        scale = Scale(**item) if isinstance(item, dict) else _named_scale(draft, path, item, library)
        if scale is None:
            continue
        if scale.name in found:
            draft.add("SPEC031", f"scale {scale.name!r} is listed twice", path, "remove one of them")
        found[scale.name] = scale
    return tuple(found.values())


def _named_scale(draft: Draft, path: KeyPath, name: str, library: Library) -> Scale | None:
    if name in library.scales:
        return library.scales[name]
    if not is_path(name):
        hint = suggest(name, library.scales, "scales") + " (a file's name ends in .yaml)"
        draft.add("SPEC033", f"unknown scale {shown(name)}", path, hint)
        return None
    file, told = draft.relative(name, path)
    try:
        return load_scale(file, told)
    except SpecError as error:
        if error.problems[0].code == "SPEC001":
            message = f"scale file {shown(told)}: {error.problems[0].message}"
            draft.add("SPEC027", message, path, draft.paths_hint(path))
        else:
            draft.add_elsewhere(error.problems)
        return None


def load_scale(path: Path, name: str = "") -> Scale:
    """Read a scale file; a scale that has no name is called as its file.

    Args:
        path: The file.
        name: What to call it in problems; `path` itself if empty.

    Raises:
        SpecError: With every problem found in the file.
    """
    draft = Draft(read_yaml(path, name))
    numbers = draft.document.data
    if isinstance(numbers, dict) and "name" not in numbers:
        numbers["name"] = path.stem
    draft.check(numbers, shipped_schema("scale"))
    if problems := draft.problems():
        raise SpecError(problems)
    return Scale(**{key: value for key, value in numbers.items() if key != "version"})


def is_path(name: str) -> bool:
    """Whether the name of a character or scale is the path of its file."""
    return "/" in name or name.endswith((".yaml", ".yml"))
