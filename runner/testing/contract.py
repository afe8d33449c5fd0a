"""What a stage declares: everything that `charrun stages`, the editor's schema and the pipeline rely on."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from charrun.errors import CharrunError, PluginError
from charrun.stage import IDENTITY, Estimate, Stage
from charrun.testing.around import giving
from charrun.testing.engines import DEMO_MODELS
from charrun.testing.pipeline import context_of, registry_with, resolved
from charrun.testing.running import stage_items, write_spec

_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\Z")
_CHARACTER_FIELDS = ("name", "traits", "questions")
_LONGEST_SUMMARY = 100
_ANNOTATION = "x-charrun-"


def assert_stage_contract(
    stage: type[Stage],
    *,
    options: Mapping[str, Any] | None = None,
    models: Mapping[str, Any] = DEMO_MODELS,
    variables: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Check what a stage declares, without running it.

    What charrun wants of every stage that it loads, and what a user of the stage will miss: kinds and roles are
    slugs; the summary is one sentence; the options schema is closed and describes each option, which has a default
    or is required, and `x-charrun-identity` stands where it counts; templates render with their variables; names are
    no built-in ones; `estimate`, `problems` and `further_inputs` answer at the smoke scale.

    Args:
        stage: The class.
        options: Values for options that have no default.
        models: Names by role, as `run_stage` takes them.
        variables: By template the variables to render it with, where stand-ins for them do not do.

    Raises:
        AssertionError: With everything that is wrong, one line each.
    """
    problems = contract_problems(stage, options=options, models=models, variables=variables)
    assert not problems, f"stage '{getattr(stage, 'name', stage)}':\n" + "\n".join(f"- {text}" for text in problems)


def contract_problems(
    stage: type[Stage],
    *,
    options: Mapping[str, Any] | None = None,
    models: Mapping[str, Any] = DEMO_MODELS,
    variables: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[str]:
    """What `assert_stage_contract` would say, as a list."""
    from charrun.plugin_contract import checked_stages

    try:
        checked_stages([stage])
    except PluginError as error:
        return [error.message]
    problems = [*_identity(stage), *_kinds(stage), *_options(stage), *_templates(stage, variables or {})]
    # A stage that is not sound is not asked: what it would answer has the same causes.
    return problems or list(_answers(stage, options or {}, models))


def _identity(stage: type[Stage]) -> Iterator[str]:
    from charrun.plugin_manager import load_registry

    built_in = load_registry(third_party=False)
    if built_in.stages.get(stage.name, stage) is not stage:
        yield f"name: '{stage.name}' is the name of a built-in stage"
    for name, path in stage.templates.items():
        if built_in.templates.get(name, path) != path:
            yield f"template '{name}': a built-in template has this name; choose one that begins with '{stage.name}'"
    summary = stage.summary
    if ". " in summary or summary.endswith(".") or len(summary) > _LONGEST_SUMMARY:
        yield f"summary: it should be one sentence of at most {_LONGEST_SUMMARY} characters, without a full stop"
    if stage.cache_version < 1:
        yield f"cache_version: {stage.cache_version} is less than 1"


def _kinds(stage: type[Stage]) -> Iterator[str]:
    for field in ("consumes", "optional", "produces", "roles", "trains", "scores"):
        values = getattr(stage, field)
        if len(set(values)) < len(values):
            yield f"{field}: it names one twice"
        yield from (f"{field}: {value!r} is no slug" for value in values if not _SLUG.match(value))
    if twice := set(stage.consumes) & set(stage.optional):
        yield f"optional: {_listed(twice)} is consumed anyway"
    if unknown := set(stage.trains) - set(stage.roles):
        yield f"trains: {_listed(unknown)} is not among the roles"
    if unknown := set(stage.measures) - {*stage.roles, *stage.templates}:
        yield f"measures: {_listed(unknown)} is among neither roles nor templates"
    if unknown := set(stage.scores) - set(stage.roles):
        yield f"scores: {_listed(unknown)} is not among the roles"
    if stage.trains and stage.identity != "content":
        yield f"identity: '{stage.identity}' lets a training on other rows be taken for this one; say 'content'"
    if unknown := set(stage.character_fields) - set(_CHARACTER_FIELDS):
        yield f"character_fields: {_listed(unknown)} is none of {', '.join(_CHARACTER_FIELDS)}"


def _options(stage: type[Stage]) -> Iterator[str]:
    schema = stage.options_schema
    if schema.get("additionalProperties") is not False:
        yield "options_schema: say additionalProperties: False, or a misspelled option is taken in silence"
    required = schema.get("required", ())
    for option, said in schema.get("properties", {}).items():
        description = str(said.get("description", ""))
        if not description.strip():
            yield f"option '{option}': it has no description"
        elif "default" not in said and option not in required and "by default" not in description:
            yield f"option '{option}': it has no default, is not required, and does not say what holds 'by default'"
        yield from (f"option '{option}': {key} means nothing there" for key in _meaningless(said, top=True))


def _meaningless(schema: Any, *, top: bool = False) -> Iterator[str]:
    """Annotations that charrun would not see: misspelled, or within an option."""
    inner = list(schema) if isinstance(schema, list | tuple) else []
    if isinstance(schema, Mapping):
        inner = [value for key, value in schema.items() if key not in ("default", "enum", "const", "examples")]
        keys = (key for key in schema if isinstance(key, str) and key.startswith(_ANNOTATION))
        yield from (key for key in keys if not (top and key == IDENTITY))
    for value in inner:
        yield from _meaningless(value)


def _templates(stage: type[Stage], variables: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    from jinja2 import Environment, TemplateSyntaxError, meta

    from charrun.pipeline.prompts import Prompts

    named: set[str] = set()
    for name, path in stage.templates.items():
        try:
            named |= meta.find_undeclared_variables(Environment().parse(path.read_text(encoding="utf-8")))
        except TemplateSyntaxError as error:
            yield f"template '{name}': {path}:{error.lineno}: {error.message}"
            return
    # One includes another, so each gets the variables of all.
    stand_ins: dict[str, Any] = {each: _StandIn(each) for each in named}
    for name in stage.templates:
        try:
            text = Prompts(dict(stage.templates)).render(name, **{**stand_ins, **variables.get(name, {})})
        except CharrunError as error:
            yield f"template '{name}': {error.render().splitlines()[0]}"
        except Exception as error:  # whatever a filter makes of a stand-in
            yield f"template '{name}': {type(error).__name__}: {error}; give assert_stage_contract its variables"
        else:
            if not text:
                yield f"template '{name}': it renders to nothing"


class _StandIn(str):
    """A text that also serves as a list of one and as a thing with attributes, for variables of an unknown type."""

    def __getattr__(self, name: str) -> _StandIn:
        if name.startswith("__"):
            raise AttributeError(name)
        return _StandIn(f"{self}.{name}")

    def __iter__(self) -> Iterator[str]:
        yield _StandIn(f"one of {str.__str__(self)}")


def _answers(stage: type[Stage], options: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    """What the stage says when it is asked before a run."""
    given = [giving(kind, [], []) for kind in stage.consumes]
    registry = registry_with(stage, *given)
    items = stage_items(given, stage, options)
    with tempfile.TemporaryDirectory(prefix="charrun-testing-") as folder:
        path = write_spec(Path(folder), stage, items, "pirate", "smoke", models, 7)
        try:
            spec = resolved(path, registry)
            ctx = context_of(spec, registry, registry.engines["local"](), stage.name)
            yield from _asked(stage(), ctx)
        except CharrunError as error:
            yield f"in a spec: {error.render()}"


def _asked(stage: Stage, ctx: Any) -> Iterator[str]:
    estimate = stage.estimate(ctx)
    if not isinstance(estimate, Estimate) or min(estimate.rows, estimate.requests) < 0:
        yield f"estimate: {estimate!r} is no Estimate of numbers from 0"
    problems = stage.problems(ctx)
    if not isinstance(problems, list) or not all(isinstance(text, str) for text in problems):
        yield f"problems: {problems!r} is no list of sentences"
    try:
        first, second = (json.dumps(stage.further_inputs(ctx), sort_keys=True, allow_nan=False) for _ in range(2))
    except (TypeError, ValueError) as error:
        yield f"further_inputs: it is not of JSON types: {error}"
    else:
        if first != second:
            yield "further_inputs: it differs from one call to the next, so that nothing is ever found done"


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))
