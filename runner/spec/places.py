"""Where spec files lie: shipped ones by name, paths relative to the text that names them."""

from __future__ import annotations

import os
from functools import cache
from importlib.resources import files
from pathlib import Path

from charrun.errors import Problem, SpecError
from charrun.spec.document import Source
from charrun.spec.words import nearest, shown, suggest

BUILTIN = "builtin:"
_NOT_SPECS = ("scales",)


def specs_folder() -> Path:
    """The folder of the shipped specs."""
    return Path(str(files("charrun.specs")))


@cache
def _builtin_specs() -> dict[str, Path]:
    return {path.stem: path for path in sorted(specs_folder().glob("*.yaml")) if path.stem not in _NOT_SPECS}


def builtin_specs() -> dict[str, Path]:
    """The shipped specs by the name that follows `builtin:`."""
    return dict(_builtin_specs())


def relative(source: Source, written: str) -> tuple[Path, str]:
    """A path in a text, relative to its folder: the file, and what to call it in problems."""
    if "://" in written:
        return Path(written), written
    expanded = os.path.expanduser(written)
    folder = source.path.absolute().parent if source.path else Path.cwd()
    path = Path(os.path.normpath(folder / expanded))
    if os.path.isabs(expanded):
        return path, written
    if source.name.startswith(BUILTIN):
        name = next((name for name, file in _builtin_specs().items() if file == path), "")
        return path, BUILTIN + name if name else str(path)
    return path, os.path.normpath(os.path.join(os.path.dirname(source.name) if source.path else "", expanded))


def path_hint(source: Source, written: str) -> str:
    """What to do where a path in a text leads to no file."""
    if "://" in written:
        return "nothing is fetched: save it as a file and name that"
    path, told = relative(source, written)
    if os.path.isdir(path):
        return "name a file in it"
    if not os.path.isdir(path.parent):
        return f"there is no folder {shown(os.path.dirname(told))}"
    if near := _near_file(path):
        return f"did you mean {shown(os.path.join(os.path.dirname(told), near))}?"
    if os.path.isabs(os.path.expanduser(written)):
        return ""
    return "paths are relative to this file" if source.path else "paths of --set are relative to the working directory"


def locate(path: str | Path) -> tuple[Path, str]:
    """The spec file and what to call it in problems.

    Raises:
        SpecError: If there is no such file, with names that are near.
    """
    name = str(path)
    if name.startswith(BUILTIN):
        shipped = _builtin_specs()
        wanted = name.removeprefix(BUILTIN)
        if wanted in shipped:
            return shipped[wanted], name
        raise SpecError([Problem("SPEC001", "no such spec", name, hint=suggest(wanted, shipped, "shipped specs"))])
    if os.path.exists(name):
        return Path(name), name
    raise SpecError([Problem("SPEC001", "no such file", name, hint=_near(name))])


def _near(name: str) -> str:
    folder, base = os.path.split(name)
    if folder and not os.path.isdir(folder):
        return f"there is no folder {shown(folder)}"
    if near := nearest(base, _yaml_files(folder or ".")):
        return f"did you mean {os.path.join(folder, near)}?"
    if Path(base).stem in _builtin_specs():
        return f"{BUILTIN}{Path(base).stem} names the spec that ships with charrun"
    return ""


def _near_file(path: Path) -> str:
    """The name of a file in the same folder that was probably meant: another suffix, or a word that is near."""
    names = [Path(name) for name in _files(path.parent)]
    same = [name.name for name in names if name.stem == path.stem]
    stems = {name.stem: name.name for name in names if name.suffix == path.suffix or not path.suffix}
    return same[0] if same else stems.get(nearest(path.stem, stems), "")


def _yaml_files(folder: str) -> list[str]:
    return [name for name in _files(folder) if name.endswith((".yaml", ".yml"))]


def _files(folder: str | Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (OSError, ValueError):
        return []
