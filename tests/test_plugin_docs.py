"""docs/plugins.md names every hook with its exact signature, every event with its fields, and every contract."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
from dataclasses import fields
from typing import get_args

import pytest
from conftest import REPOSITORY

from charrun import events, hookspecs
from charrun.pipeline.context import StageContext
from charrun.pipeline.observers import HOOKS
from charrun.plugin_metadata import LOAD_VARIABLE
from charrun.service.engine import Engine
from charrun.spec import Scale
from charrun.stage import Stage

PAGE = (REPOSITORY / "docs/plugins.md").read_text()
EVENTS = get_args(events.Event)


def hooks() -> list[str]:
    return [name for name in vars(hookspecs) if name.startswith("charrun_")]


def test_the_page_is_what_its_generator_writes() -> None:
    spec = importlib.util.spec_from_file_location("plugins_page", REPOSITORY / "docs/_plugins.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.page() == PAGE


@pytest.mark.parametrize("name", hooks())
def test_every_hook_has_its_signature_and_one_sentence(name: str) -> None:
    (signature,) = re.findall(rf"^def {name}\((.*)\) -> (.*): \.\.\.$", PAGE, re.MULTILINE)
    function = getattr(hookspecs, name)
    told = inspect.signature(function)
    assert signature == (
        ", ".join(f"{p.name}: {p.annotation}" for p in told.parameters.values()),
        told.return_annotation,
    )
    sentence = inspect.getdoc(function) or ""
    assert sentence.endswith(".") and "\n" not in sentence and sentence in PAGE


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: str(event.__name__))
def test_every_event_has_its_fields_and_its_hook(event: type) -> None:
    section = PAGE.split(f"#### {event.__name__}\n")[1].split("\n#")[0]
    for field in fields(event):  # type: ignore[arg-type]
        assert re.search(rf"^\| `{field.name}` \| `.+` \| .+ \|$", section, re.MULTILINE), field.name
    (annotation,) = inspect.signature(getattr(hookspecs, HOOKS[event])).parameters.values()
    assert annotation.annotation == f"events.{event.__name__}"


def test_every_event_has_one_hook_and_every_observing_hook_one_event() -> None:
    assert set(HOOKS) == set(EVENTS)
    assert sorted(HOOKS.values()) == sorted(name for name in hooks() if "register" not in name)


@pytest.mark.parametrize("contract", [Stage, Engine, Scale], ids=lambda contract: str(contract.__name__))
def test_every_attribute_of_a_contract_is_told(contract: type) -> None:
    for name in inspect.get_annotations(contract):
        assert re.search(rf"^\| `{name}` \| `.+` \| .+ \|$", PAGE, re.MULTILINE), name
    for name, method in vars(contract).items():
        if inspect.isfunction(method) and not name.startswith("_"):
            assert f"def {name}(self" in PAGE, name


def offered(described: type) -> dict[str, object]:
    return {name: found for base in described.__mro__[:-1] for name, found in vars(base).items()}


def test_everything_that_the_context_offers_has_its_signature() -> None:
    section = PAGE.split("### StageContext\n")[1].split("\n## ")[0]
    for name, found in offered(StageContext).items():
        if name.startswith("_"):
            continue
        if isinstance(found, property):
            assert re.search(rf"^\| `{name}` \| `.+` \| .+ \|$", section, re.MULTILINE), name
        else:
            (told,) = re.findall(rf"^(?:async )?def {name}\(([^`]*?)\) -> .*: \.\.\.$", section, re.MULTILINE)
            for parameter in inspect.signature(found).parameters:
                assert re.search(rf"\b{parameter}\b", told), (name, parameter)


def test_the_environment_variables_and_options_are_told() -> None:
    options = (REPOSITORY / "runner/commands/options.py").read_text()
    for name in (LOAD_VARIABLE, "XDG_STATE_HOME", "--trust", "--no-plugins"):
        assert f"`{name}`" in PAGE
    assert '"--trust"' in options and '"--no-plugins"' in options
    assert os.environ.get(LOAD_VARIABLE) is None
