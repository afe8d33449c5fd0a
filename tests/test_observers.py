"""Everyone who watches a run hears of everything and can harm nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from jsonschema import Draft7Validator

from charrun import events, hookspecs
from charrun.pipeline.observers import HOOKS, Observers, nobody
from charrun.report.event_lines import EventLines, event_schema, plain

STARTED = events.StageStarted("pirate-x-smoke", "dpo", "dpo", "DPO of the student")
EVENTS: list[events.Event] = [
    events.RunStarted("pirate/1", Path("runs/pirate/1"), "local", {"org/a": "charrun/b"}, ("pirate-x-smoke",)),
    STARTED,
    events.StageWaits("pirate-x-smoke", "evaluate", ("sft",)),
    events.StageProgressed("pirate-x-smoke", "dpo", 3, 10, 4_000, 0.25),
    events.RowStored("pirate-x-smoke", "teacher", "org/a", 1, 30, 12),
    events.StepDone("pirate-x-smoke", "dpo", 0, 16, {"loss": 0.69}),
    events.Message("16 pairs", "pirate-x-smoke", "dpo"),
    events.StageFinished("pirate-x-smoke", "dpo", {"checkpoint": 1}, 2.5, {"steps": 16}, False),
    events.StageFailed("pirate-x-smoke", "sft", "StageFailed: no rows"),
    events.RunFailed("pirate/1", Path("runs/pirate/1"), "sft failed", 1),
    events.RunFinished("pirate/1", Path("runs/pirate/1"), 12.5),
]


class Everything:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[events.Event] = []
        for hook in HOOKS.values():
            setattr(self, hook, self.hear)

    def hear(self, event: events.Event) -> None:
        self.heard.append(event)


def test_every_kind_of_event_has_a_hook_and_every_observing_hook_an_event() -> None:
    kinds = {kind for kind in vars(events).values() if isinstance(kind, type) and kind.__module__ == events.__name__}
    assert set(HOOKS) == kinds == {type(event) for event in EVENTS}
    named = {name for name in vars(hookspecs) if name.startswith("charrun_")}
    assert set(HOOKS.values()) == {name for name in named if not name.startswith("charrun_register_")}


def test_watchers_hear_every_event_in_order() -> None:
    watcher = Everything()
    observers = Observers(lambda hook: (), [watcher])
    for event in EVENTS:
        observers.tell(event)
        nobody().tell(event)
    assert watcher.heard == EVENTS


def test_an_observer_that_fails_is_told_of_once_and_left_out() -> None:
    calls: list[events.Event] = []

    def broken(event: events.Event) -> None:
        calls.append(event)
        raise ValueError("no")

    watcher = Everything()
    find = {"charrun_stage_started": [("shaky", broken)]}
    observers = Observers(lambda hook: find.get(hook, []), [watcher])
    observers.tell(STARTED)
    observers.tell(STARTED)
    assert calls == [STARTED]
    messages = [event for event in watcher.heard if isinstance(event, events.Message)]
    assert [message.text for message in messages] == ["observer 'shaky' is left out: ValueError: no"]
    assert watcher.heard.count(STARTED) == 2


def test_a_broken_observer_of_messages_does_not_go_round_in_circles() -> None:
    def broken(event: events.Event) -> None:
        raise ValueError("no")

    find = {"charrun_message": [("one", broken), ("two", broken)]}
    Observers(lambda hook: find.get(hook, [])).tell(events.Message("hello"))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_every_event_keeps_to_the_schema_of_lines(event: events.Event) -> None:
    line = json.loads(json.dumps(plain(event)))
    Draft7Validator(event_schema()).validate(line)
    assert list(line)[:3] == ["v", "time", "event"]


def test_a_line_with_anything_else_does_not_keep_to_the_schema() -> None:
    line = {**plain(STARTED), "more": 1}
    assert list(Draft7Validator(event_schema()).iter_errors(line))


def test_progress_is_written_once_a_second_and_stored_responses_only_where_all_is_wanted() -> None:
    def names(verbose: bool) -> list[str]:
        lines: list[dict[str, Any]] = []
        observers = Observers(lambda hook: (), [EventLines(lambda line: lines.append(json.loads(line)), verbose)])
        for event in [*EVENTS, *EVENTS]:
            observers.tell(event)
        return [line["event"] for line in lines]

    assert names(False).count("stage_progressed") == 1
    assert "row_stored" not in names(False) and names(True).count("row_stored") == 2


def test_the_committed_schema_of_events_is_the_one_that_is_made() -> None:
    committed = (REPOSITORY / "schemas" / "event.schema.json").read_text()
    assert committed == json.dumps(event_schema(), indent=2) + "\n"


def test_the_schema_says_what_every_field_means() -> None:
    for branch in event_schema()["oneOf"]:
        fields = set(branch["properties"]) - {"v", "event"}
        assert all(branch["properties"][field].get("description") for field in fields), branch["title"]
