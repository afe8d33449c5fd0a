"""Stage files that a spec brings along: shown and asked for once, then run from the very bytes that were shown."""

from __future__ import annotations

import hashlib
import inspect
import linecache
import os
import re
import stat
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from charrun.errors import PluginError, Problem, SpecError
from charrun.hookspecs import hookimpl
from charrun.plugin_loading import Plugin, admit
from charrun.stage import Stage
from charrun.trust import TrustStore

if TYPE_CHECKING:
    import pluggy

LARGEST = 1 << 20


@dataclass(frozen=True)
class LocalFile:
    """A file that a spec names under `plugins:`; `told` is what to call it."""

    path: Path
    told: str


@dataclass(frozen=True)
class Candidate:
    """A file that wants to run.

    Attributes:
        file: The file.
        source: Its bytes; what is shown, hashed and run is this.
        changed: Whether other content of the file was allowed before.
    """

    file: LocalFile
    source: bytes
    changed: bool

    @property
    def digest(self) -> str:
        """sha256 of the bytes."""
        return hashlib.sha256(self.source).hexdigest()

    @property
    def text(self) -> str:
        """Size, hash and whether it is new, in one line."""
        return f"{len(self.source):,} bytes, sha256 {self.digest}, {self.state}"

    @property
    def state(self) -> str:
        """Whether it is new."""
        return "changed since you allowed it" if self.changed else "new"


Allow = Callable[[Candidate], bool]
"""Asks a person whether a file may run."""


class NotAllowed(PluginError):
    """Stage files that nobody has allowed to run, each as a problem."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(f"{problem.file}: {problem.message}" for problem in problems), problems[0].hint)
        self.problems = tuple(problems)


def load_files(files: Sequence[LocalFile], allow: Allow | None, manager: pluggy.PluginManager) -> list[Plugin]:
    """Read, ask for and run the files of a spec.

    Args:
        files: The files; one that is named twice counts once.
        allow: Asked about each file whose content is not trusted yet; without it none of these may run.
        manager: Knows the hooks.

    Raises:
        NotAllowed: Files may not run.
        SpecError: A file cannot be read, breaks while it is run, or registers nothing sound; all problems of all
            files.
    """
    store = TrustStore()
    problems: list[Problem] = []
    candidates: list[Candidate] = []
    for file in {os.path.realpath(file.path): file for file in files}.values():
        try:
            source = _read(file.path)
        except OSError as error:
            problems.append(Problem("SPEC060", f"cannot read the stage file: {error.strerror or error}", file.told))
        else:
            candidates.append(Candidate(file, source, store.knows(file.path)))
    _ask(candidates, allow, store)
    plugins = []
    for candidate in candidates:
        try:
            plugins.append(_load(candidate, manager))
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(problems)
    return plugins


def _read(path: Path) -> bytes:
    """All bytes of a regular file.

    Raises:
        OSError: It cannot be read, is no file, or is larger than any stage file should be.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("it is no regular file")
        source = file.read(LARGEST + 1)
    if len(source) > LARGEST:
        raise OSError(f"it is larger than {LARGEST >> 20} MiB")
    return source


def _ask(candidates: Sequence[Candidate], allow: Allow | None, store: TrustStore) -> None:
    strangers = [one for one in candidates if not store.trusts(one.file.path, one.digest)]
    if not strangers:
        return
    if allow is None:
        hint = "read it; then run the command in a terminal, which asks once, or add --trust"
        raise NotAllowed([_refusal(one, hint) for one in strangers])
    refused = [one for one in strangers if not allow(one)]
    if refused:
        raise NotAllowed([_refusal(one, "") for one in refused])


def _refusal(candidate: Candidate, hint: str) -> Problem:
    message = f"the stage file may not run: {candidate.text}"
    return Problem("SPEC064", message, candidate.file.told, hint=hint)


def _load(candidate: Candidate, manager: pluggy.PluginManager) -> Plugin:
    """Run one file and ask it what it registers.

    Raises:
        SpecError: It breaks, or registers nothing sound.
    """
    told = candidate.file.told
    module = _module(candidate)

    def load() -> ModuleType:
        if module.__name__ not in sys.modules:  # one content of one file runs once a process
            _execute(candidate, module)
        return sys.modules[module.__name__]

    try:
        plugin = admit(manager, told, told, load, candidate.digest)
    except PluginError as error:
        raise SpecError([_problem(candidate, error)]) from error
    if not any(True for _ in plugin.items()) and not plugin.observers:
        hint = "define a subclass of charrun.Stage, or functions marked with charrun.hookimpl"
        raise SpecError([Problem("SPEC062", "the stage file registers nothing", told, hint=hint)])
    return plugin


def _module(candidate: Candidate) -> ModuleType:
    path = os.path.realpath(candidate.file.path)
    mark = hashlib.sha256(f"{path}\0{candidate.digest}".encode()).hexdigest()[:12]
    module = ModuleType(f"charrun_local_{re.sub(r'[^0-9A-Za-z]+', '_', candidate.file.path.stem)}_{mark}")
    module.__file__ = path
    return module


def _execute(candidate: Candidate, module: ModuleType) -> None:
    """Run the bytes as the module; its stages become registered unless it says itself which are."""
    assert module.__file__ is not None
    code = compile(candidate.source, module.__file__, "exec", dont_inherit=True)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(code, module.__dict__)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    # Tracebacks show what ran, whatever the file holds by then.
    lines = candidate.source.decode("utf-8", errors="replace").splitlines(keepends=True)
    linecache.cache[module.__file__] = (len(candidate.source), None, lines, module.__file__)
    if not hasattr(module, "charrun_register_stages"):
        stages = _own_stages(module)

        @hookimpl
        def charrun_register_stages() -> list[type[Stage]]:
            return stages

        if stages:
            vars(module)["charrun_register_stages"] = charrun_register_stages


def _own_stages(module: ModuleType) -> list[type[Stage]]:
    """Subclasses of `Stage` that the file defines; a nameless one that others of its classes build on is no stage."""
    classes = [one for one in vars(module).values() if inspect.isclass(one) and issubclass(one, Stage)]
    own = list(dict.fromkeys(one for one in classes if one.__module__ == module.__name__))
    bases = {base for one in own for base in one.__mro__[1:]}
    return [one for one in own if one not in bases or "name" in vars(one)]


def _problem(candidate: Candidate, error: PluginError) -> Problem:
    """The problem at its line of the file where there is one."""
    cause: Any = error.__cause__
    told, path = candidate.file.told, os.path.realpath(candidate.file.path)
    line, column = 0, 1
    if isinstance(cause, SyntaxError) and cause.filename in (path, None):
        line, column = cause.lineno or 1, max(1, cause.offset or 1)
    elif cause is not None:
        inside = [frame for frame in traceback.extract_tb(cause.__traceback__) if frame.filename == path]
        if inside:
            line, column = inside[-1].lineno or 0, (inside[-1].colno or 0) + 1
    if not line:
        return Problem("SPEC063", f"the stage file breaks the contract: {error.message}", told)
    lines = candidate.source.decode("utf-8", errors="replace").splitlines()
    shown = lines[line - 1].replace("\t", " ") if line <= len(lines) else ""
    shown = "".join(character if character.isprintable() else "?" for character in shown)
    return Problem("SPEC061", f"the stage file breaks: {error.message}", told, line, column, source=shown)
