"""Built-in plugins keep the contract that everybody's plugins keep, and the rest works without any one of them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, SPECS

from charrun import hookspecs
from charrun.commands.loading import resolve
from charrun.errors import SpecError
from charrun.local_plugins import LocalFile
from charrun.plugin_contract import checked_engines, checked_stages
from charrun.plugin_manager import BUILT_IN, Registry, extend, load_registry

SOLO = """
from charrun import Stage

class Solo(Stage):
    name = "solo"
    summary = "needs nothing"
    async def run(self, ctx):
        pass
"""
INLINE = """
version: 1
name: inline
characters: [{id: me, name: Me, description: I am here., traits: [{trait: I am., questions: ["Are you?"]}]}]
models: [{teacher: a/teacher, student: a/student}]
scales: [{name: tiny, pairs: 2, samples_per_prompt: 1, reflections: 1, interactions: 1, turns: 2}]
stages: [solo]
"""


@pytest.fixture(scope="module")
def whole() -> Registry:
    return load_registry(third_party=False)


def without(module: str) -> Registry:
    return load_registry(third_party=False, built_in=[name for name in BUILT_IN if name != module])


def names_of(registry: Registry) -> set[tuple[str, str]]:
    return {(kind, name) for kind, name in registry.origins if kind != "template"}


def test_what_is_built_in(whole: Registry) -> None:
    assert set(whole.stages) == {
        "expand", "prompts", "teacher", "student", "pairs", "dpo", "reflection", "interaction", "sft", "evaluate",
        "robustness", "second_turn", "prefill_attack", "off_switch", "scaffolds", "judge", "coherence", "preferences",
        "capability", "measurable", "merge", "export",
    }  # fmt: skip
    assert set(whole.engines) == {"local", "tinker"}
    assert set(whole.characters) == {path.stem for path in (SPECS / "characters").glob("*.yaml")}
    assert list(whole.scales) == ["full", "half", "micro", "mini", "paper", "quarter", "smoke"]
    assert whole.scales["mini"].reflections == 1500 and whole.warnings == ()
    assert set(whole.origins.values()) == {"built in"}


def test_built_in_stages_and_engines_keep_the_whole_contract(whole: Registry) -> None:
    checked_stages(list(whole.stages.values()))
    checked_engines(list(whole.engines.values()))
    for owner in (*whole.stages.values(), *whole.engines.values()):
        for option, schema in owner.options_schema["properties"].items():
            assert schema["description"].endswith("."), f"{owner.name}.{option}"


@pytest.mark.parametrize("module", BUILT_IN)
def test_the_rest_works_without(module: str, whole: Registry, tmp_path: Path) -> None:
    (plugin,) = [one for one in whole.plugins if one.name == module]
    own = {(kind, name) for kind, name, _ in plugin.items() if kind != "template"}
    smaller = without(module)
    assert names_of(whole) - names_of(smaller) == own
    (tmp_path / "solo.py").write_text(SOLO)
    (tmp_path / "inline.yaml").write_text(INLINE)
    file = LocalFile(tmp_path / "solo.py", "solo.py")
    resolve(str(tmp_path / "inline.yaml"), (), extend(smaller, [file], lambda candidate: True))
    for kind, name in own:
        spec = tmp_path / f"{kind}-{name}.yaml"
        spec.write_text(using(kind, name, whole))
        resolve(str(spec), (), whole)
        with pytest.raises(SpecError) as found:
            resolve(str(spec), (), smaller)
        assert f"unknown {kind} '{name}'" in found.value.render()


def using(kind: str, name: str, whole: Registry) -> str:
    """A spec that uses what a plugin registers."""
    text = (SPECS / "pirate-smoke.yaml").read_text()
    if kind == "character":
        return text.replace("[pirate]", f"[{name}]")
    if kind == "scale":
        return text.replace("[smoke]", f"[{name}]")
    if kind == "stage" and not re.search(rf"(- |uses: ){name}\b", text):
        return text.replace("  - evaluate ", f"  - {name}\n  - evaluate ")
    return text.replace("engine: auto", f"engine: {name}") if kind == "engine" else text


def test_what_a_stage_says_of_itself_is_true_in_every_arm(whole: Registry) -> None:
    """Arms change who writes the introspection and what SFT begins with."""
    for name in ("reflection", "interaction", "sft"):
        assert not re.search(r"DPO|checkpoint|teacher", whole.stages[name].summary), name


def test_every_hook_has_a_built_in_plugin_that_uses_it(whole: Registry) -> None:
    used = {hook for plugin in whole.plugins for hook in plugin.observers}
    for hook in hooks():
        kind = hook.removeprefix("charrun_register_").removesuffix("s")
        if hook.startswith("charrun_register_"):
            assert any(found == kind for found, _ in whole.origins), hook
        else:
            assert hook in used or hook in watched(), hook


def hooks() -> list[str]:
    return [name for name in vars(hookspecs) if name.startswith("charrun_")]


def watched() -> set[str]:
    """Hooks that the console and the event lines of a run implement: they watch through the same door."""
    from charrun.report.console import ConsoleWatcher
    from charrun.report.event_lines import EventLines

    return {hook for hook in hooks() if hasattr(ConsoleWatcher, hook) or hasattr(EventLines, hook)}


def test_the_core_names_no_stage(whole: Registry) -> None:
    """Outside the list of built-in plugins, no module of the core holds a stage's name as a word of its own."""
    kinds = {kind for stage in whole.stages.values() for kind in (*stage.produces, *stage.roles)}
    found = []
    for path in (REPOSITORY / "runner").rglob("*.py"):
        inside = path.relative_to(REPOSITORY / "runner")
        if inside.parts[0] in ("demo", "engine", "spec"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in set(whole.stages) - kinds:
                found.append(f"{inside}:{node.lineno} {node.value!r}")
    assert found == []


def test_the_core_reads_no_shipped_character_or_scale_by_itself() -> None:
    for path in (REPOSITORY / "runner").rglob("*.py"):
        assert not re.search(r"/ \"(scales|characters)", path.read_text()), path


def test_loading_what_is_built_in_imports_nothing_heavy() -> None:
    heavy = (
        "torch transformers tinker numpy rich jsonschema jinja2 asyncio ssl click charrun.pipeline charrun.spec.resolve"
    )
    code = (
        "import sys; from charrun.plugin_manager import load_registry; load_registry(third_party=False);"
        f"print(*[name for name in {heavy.split()} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
