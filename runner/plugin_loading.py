"""Loading one plugin: import it, find its hooks, ask it what it registers. What a stranger's code raises ends here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pluggy

from charrun import hookspecs
from charrun.errors import PluginError
from charrun.plugin_contract import checked_characters, checked_engines, checked_scales, checked_stages

if TYPE_CHECKING:
    from pathlib import Path

    from charrun.service.engine import Engine
    from charrun.spec import Scale
    from charrun.stage import Stage

OWN = "built in"

Observer = Callable[..., object]
"""Takes the keyword `event`, one of `charrun.events`."""

_LONGEST_REASON = 300


@dataclass(frozen=True)
class Plugin:
    """One plugin and all that it registered.

    Attributes:
        name: Module of a built-in plugin, entry point of an installed one, path of a local file.
        owner: Who brings it: `built in`, name and version of the distribution, or the path of a local file.
        stages: Its stage classes.
        engines: Its engine classes.
        characters: Its character files by id.
        scales: Its scales.
        observers: Its observer functions by hook.
        code: sha256 of a local file; empty for what is installed.
    """

    name: str
    owner: str
    stages: Sequence[type[Stage]] = ()
    engines: Sequence[type[Engine]] = ()
    characters: Mapping[str, Path] = field(default_factory=dict)
    scales: Sequence[Scale] = ()
    observers: Mapping[str, Observer] = field(default_factory=dict)
    code: str = ""

    def items(self) -> Iterator[tuple[str, str, Any]]:
        """Everything that has a name: its kind, the name, and the thing itself."""
        yield from (("stage", stage.name, stage) for stage in self.stages)
        yield from (("engine", engine.name, engine) for engine in self.engines)
        yield from (("character", id, path) for id, path in self.characters.items())
        yield from (("scale", scale.name, scale) for scale in self.scales)
        # Several stages of one plugin share a template; it is the same file then.
        templates = {(name, path) for stage in self.stages for name, path in stage.templates.items()}
        yield from (("template", name, path) for name, path in sorted(templates))


def new_manager() -> pluggy.PluginManager:
    """A plugin manager that knows the hooks."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def admit(manager: pluggy.PluginManager, name: str, owner: str, load: Callable[[], Any], code: str = "") -> Plugin:
    """Load one plugin and ask it what it registers.

    Args:
        manager: Knows the hooks.
        name: The plugin's name.
        owner: Who brings it.
        load: Imports it.
        code: sha256 of a local file.

    Raises:
        PluginError: It cannot be imported, implements an unknown hook, or registers something unsound. The message
            is the reason alone. Whatever a stranger's code raises ends here, also SystemExit; Ctrl-C does not.
    """
    with strange_code():
        module = load()
        manager.register(module, name=name)
    try:
        return _read(manager, module, Plugin(name, owner, code=code))
    except PluginError:
        manager.unregister(module)
        raise


def _read(manager: pluggy.PluginManager, module: Any, bare: Plugin) -> Plugin:
    answers: dict[str, Any] = {}
    observers: dict[str, Observer] = {}
    for caller in manager.get_hookcallers(module) or ():
        for impl in caller.get_hookimpls():
            if impl.plugin is not module or (impl.optionalhook and not caller.has_spec()):
                continue
            if not caller.has_spec():
                raise PluginError(f"there is no hook {caller.name!r}{_meant(caller.name)}")
            if impl.hookwrapper or impl.wrapper:
                raise PluginError(f"its {caller.name} is a wrapper; hooks of charrun are plain functions")
            if caller.name.startswith("charrun_register_"):
                with strange_code():
                    answers[caller.name.removeprefix("charrun_register_")] = impl.function()
            else:
                observers[caller.name] = impl.function if impl.argnames else _deaf(impl.function)
    strangers = bare.owner != OWN
    with strange_code():
        plugin = Plugin(
            bare.name,
            bare.owner,
            checked_stages(answers.get("stages", ()), schemas=strangers),
            checked_engines(answers.get("engines", ()), schemas=strangers),
            checked_characters(answers.get("characters", {})),
            checked_scales(answers["scales"]) if "scales" in answers else (),
            observers,
            bare.code,
        )
    names = [(kind, name) for kind, name, _ in plugin.items()]
    for kind, name in names:
        if names.count((kind, name)) > 1:
            raise PluginError(f"it registers two of the name {name!r}: {kind}")
    return plugin


def _deaf(function: Callable[..., object]) -> Observer:
    """An observer that does without the event: a hook function may leave arguments out."""
    return lambda event: function()


def _meant(hook: str) -> str:
    from charrun.spec.words import nearest

    match = nearest(hook, [name for name in vars(hookspecs) if name.startswith("charrun_")])
    return f"; did you mean {match!r}?" if match else ""


@contextmanager
def strange_code() -> Iterator[None]:
    """Around code of others: whatever it raises is a `PluginError` with the reason, what it prints goes to stderr."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except PluginError:
        raise
    except BaseException as error:
        if type(error) is KeyboardInterrupt:  # a person's Ctrl-C; a plugin's own kind of it is an error like any other
            raise
        raise PluginError(reason(error)) from error


def reason(error: BaseException) -> str:
    """What an exception of strange code says, in one line of bounded length that a terminal can take."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # its own text may be broken too
        text = ""
    text = "".join(character if character.isprintable() else "?" for character in text)
    if len(text) > _LONGEST_REASON:
        text = text[: _LONGEST_REASON - 1] + "…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
