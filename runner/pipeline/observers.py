"""Telling plugins, console and journal readers what happens; whoever watches can never harm a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from charrun import events
from charrun.errors import CharrunError
from charrun.plugin_loading import reason
from charrun.plugin_manager import BUILT_IN

HOOKS: Mapping[type[Any], str] = {
    events.RunStarted: "charrun_run_started",
    events.RunFinished: "charrun_run_finished",
    events.RunFailed: "charrun_run_failed",
    events.StageStarted: "charrun_stage_started",
    events.StageWaits: "charrun_stage_waits",
    events.StageProgressed: "charrun_stage_progressed",
    events.StageFinished: "charrun_stage_finished",
    events.StageFailed: "charrun_stage_failed",
    events.RowStored: "charrun_row_stored",
    events.StepDone: "charrun_step_done",
    events.Message: "charrun_message",
}
"""The hook of each event."""

Observe = Callable[..., Any]
Find = Callable[[str], Iterable[tuple[str, Observe]]]


class Observers:
    """Everyone who watches a run.

    Args:
        find: What plugins implement a hook: names and functions, in the order in which they are told.
        watchers: Further ones: objects with methods called as the hooks that they want.
    """

    def __init__(self, find: Find, watchers: Iterable[object] = ()) -> None:
        self._functions = {kind: list(find(hook)) for kind, hook in HOOKS.items()}
        found = [named for functions in self._functions.values() for named in functions]
        self._own = [function for name, function in found if name in BUILT_IN]
        for watcher in watchers:
            for kind, hook in HOOKS.items():
                if hasattr(watcher, hook):
                    self._functions[kind].append((type(watcher).__name__, getattr(watcher, hook)))
                    self._own.append(getattr(watcher, hook))

    def tell(self, event: events.Event) -> None:
        """Call every observer of this kind of event; one that fails is told of once and not called again."""
        functions = self._functions[type(event)]
        for named in tuple(functions):
            if named not in functions:
                continue  # left out meanwhile: telling of one failure met another
            name, function = named
            try:
                function(event=event)
            except (Exception, SystemExit) as error:
                if isinstance(error, CharrunError) and function in self._own:
                    raise  # the terminal's pipe broke, a disk is full
                if named in functions:
                    functions.remove(named)
                self.tell(events.Message(f"observer '{name}' is left out: {reason(error)}"))


def nobody() -> Observers:
    """Observers of which there are none."""
    return Observers(lambda hook: ())
