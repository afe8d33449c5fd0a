"""Plugins: a stage of one's own runs from a spec; whatever is broken is named and left out."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SPECS, charrun
from plugin_folders import HEAD, REGISTER, STAGE, distribution, metadata, stage

from charrun.errors import PluginError
from charrun.plugin_manager import load_registry

PACKAGE = Path(__file__).parent / "plugin_package"
SHORT = """
version: 1
name: counted
seed: 7
engine: local
characters: [pirate]
models: [{teacher: charrun/demo-teacher, student: charrun/demo-student}]
scales: [smoke]
stages: [prompts, teacher, student, pairs, {uses: wordcount, with: {side: rejected}}]
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package in tests/plugin_package, installed by pip into a folder of its own."""
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source")
    for path in PACKAGE.glob("*.*"):
        (source / path.name).write_text(path.read_text())
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(source)], check=True, capture_output=True)
    return target


def test_a_third_party_stage_runs_from_a_spec_and_what_it_asked_for_is_remembered(
    installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "spec.yaml").write_text(SHORT.replace("rejected}}", "rejected}}, {uses: wordcount, id: further}"))
    command = [tmp_path / "spec.yaml", "--runs-dir", tmp_path / "runs", "--json"]
    outcome = charrun(*command, env={"PYTHONPATH": str(installed)})
    assert outcome.code == 0, outcome.text
    paths = (tmp_path / "runs" / "store").glob("wordcount-*/wordcount-*.jsonl")
    rows = sorted((json.loads(path.read_text()) for path in paths), key=lambda row: int(row["pairs"]))
    assert [row["pairs"] for row in rows] == [18, 20] and rows[0]["words"] > 18 and rows[0]["guess"]
    again = charrun(*command, env={"PYTHONPATH": str(installed)})
    finished = [event for event in map(json.loads, again.out.splitlines()) if event["event"] == "stage_finished"]
    # The second item saw the pairs that the first had asked for, so it finds its rows only if they are there again.
    assert {event["stage"] for event in finished} > {"pairs", "wordcount", "further"}
    assert all(event["cached"] for event in finished)


def test_its_options_are_checked_against_its_own_schema(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(SHORT.replace("side:", "sid:"))
    outcome = charrun("validate", tmp_path / "spec.yaml", env={"PYTHONPATH": str(installed)})
    assert outcome.code == 3
    assert "unknown option 'sid' for stage 'wordcount'" in outcome.err and "'side'" in outcome.err


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of distributions that is on the path; its modules are forgotten afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delenv("CHARRUN_LOAD_PLUGINS", raising=False)
    yield folder
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "") or "").startswith(str(folder)):
            del sys.modules[name]


def left_out(site: Path, source: str) -> str:
    """Why a plugin is left out; all that is built in is still there."""
    distribution(site, "charrun-broken", source, entry="broken", version="2.3")
    registry = load_registry()
    assert set(registry.stages) == set(load_registry(third_party=False).stages)
    (warning,) = registry.warnings
    assert "\n" not in warning and len(warning) < 600
    assert warning.startswith("plugin 'broken' of charrun-broken 2.3 is left out: ")
    assert warning.endswith(" (pip uninstall charrun-broken, or set CHARRUN_LOAD_PLUGINS= to load none)")
    return registry.left_out["broken"]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("raise RuntimeError('no')", "RuntimeError: no"),
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("def x(:", "SyntaxError"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("class Stop(KeyboardInterrupt): pass\nraise Stop('me')", "Stop: me"),
        ("class Odd(BaseException):\n    def __str__(self): raise ValueError\nraise Odd", "Odd"),
        ("raise RuntimeError('two\\nlines \\x1b[31m' + 'x' * 5000)", "RuntimeError: two lines ?[31mxxx"),
        (HEAD + "@hookimpl\ndef charrun_register_stagez(): return []", "did you mean 'charrun_register_stages'?"),
        (HEAD + "@hookimpl\ndef charrun_run_started(evnt): ...", "Argument(s) {'evnt'}"),
        (HEAD + "@hookimpl(wrapper=True)\ndef charrun_register_stages(): yield", "is a wrapper"),
        (HEAD + "@hookimpl\ndef charrun_register_stages(): return 1 / 0", "ZeroDivisionError"),
        (HEAD + "@hookimpl\ndef charrun_register_stages(): return None", "its stages are a NoneType, not a list"),
        (HEAD + "@hookimpl\ndef charrun_register_stages(): return [3]", "hold a int, not a subclass of charrun.Stage"),
        (HEAD + "@hookimpl\ndef charrun_register_engines(): return [Stage]", "not a subclass of charrun.Engine"),
        (HEAD + "@hookimpl\ndef charrun_register_characters(): return []", "not a mapping of ids to files"),
        (HEAD + "@hookimpl\ndef charrun_register_characters(): return {'x': Path('/no')}", "is no file"),
        (HEAD + "@hookimpl\ndef charrun_register_scales(): return [1]", "not a charrun.Scale"),
        (
            HEAD + "@hookimpl\ndef charrun_register_scales(): return [Scale('x', 0, 1, 1, 1, 1)]",
            "pairs is 0, not a whole number of at least 1",
        ),
        (HEAD + STAGE.format(title="A", name="a") + REGISTER.format(titles="A, A"), "two of the name 'a'"),
    ],
)
def test_a_broken_plugin_is_named_and_left_out(site: Path, source: str, why: str) -> None:
    assert why in left_out(site, source)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("name = None", "has the name None"),
        ("name = 'No Slug'", "has the name 'No Slug': a name is at most 64 lower-case letters"),
        ("summary = ''", "summary is ''"),
        ("consumes = 'pairs'", "consumes is 'pairs', not a tuple of texts"),
        ("identity = 'all'", "identity is 'all'"),
        ("cache_version = '2'", "cache_version is '2'"),
        ("templates = {'x': Path('/no/such')}", "template 'x' is '/no/such', which is no file"),
        ("run = Stage.run", "has no `async def run(self, ctx)`"),
        ("options_schema = []", "options_schema is not a schema of type object"),
        ("options_schema = {'type': 'object', 'properties': 3}", "is not valid draft-07 at properties"),
        ("options_schema = {'type': 'object', 'x': {1, 2}}", "does not fit into JSON"),
        (
            "options_schema = {'type': 'object', 'properties': {'x': {'$ref': 'https://example.org/s.json'}}}",
            "refers to 'https://example.org/s.json': a $ref leads into the same schema, nothing is ever retrieved",
        ),
        ("options_schema = {'type': 'object', 'properties': {'x': {'$ref': '#/no'}}}", "refers to '#/no'"),
        (
            "options_schema = {'type': 'object', 'properties': {'x': {'type': 'integer', 'default': 'a'}}}",
            "gives 'x' the default 'a', which it does not allow",
        ),
    ],
)
def test_a_stage_that_breaks_the_contract_is_named(site: Path, line: str, why: str) -> None:
    source = HEAD + STAGE.format(title="Only", name="only") + f"    {line}\n" + REGISTER.format(titles="Only")
    assert why in left_out(site, source)


def test_one_broken_part_leaves_the_whole_plugin_out(site: Path) -> None:
    why = left_out(site, stage("sound") + "\n@hookimpl\ndef charrun_register_scales(): return [1]\n")
    assert "not a charrun.Scale" in why


def test_a_real_interrupt_is_none_of_a_plugins_errors(site: Path) -> None:
    distribution(site, "charrun-slow", "raise KeyboardInterrupt")  # as a signal's arrival during the import is seen
    with pytest.raises(KeyboardInterrupt):
        load_registry()


def test_what_a_plugin_prints_does_not_reach_stdout(site: Path) -> None:
    distribution(site, "charrun-chatty", "print('hello from me')\n" + stage("chatty"))
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        assert "chatty" in load_registry().stages
    assert (out.getvalue(), err.getvalue()) == ("", "hello from me\n")


def test_metadata_that_cannot_be_read_hides_no_other_plugin(site: Path) -> None:
    distribution(site, "charrun-good", stage("good"))
    metadata(site, "charrun-odd", {})
    (site / "charrun_odd-1.0.dist-info" / "entry_points.txt").write_text("[charrun]\nno equals sign\n")
    (site / "charrun_none-1.0.dist-info").mkdir()
    assert "good" in load_registry().stages


def test_a_plugin_may_register_everything_and_watch(site: Path, tmp_path: Path) -> None:
    character = tmp_path / "owl.yaml"
    character.write_text((SPECS / "characters/grump.yaml").read_text())
    source = (
        stage("only")
        + f"""
class Far(Engine):
    name = "far"
    summary = "far away"
    def connect(self, request): ...

@hookimpl
def charrun_register_engines(): return [Far]
@hookimpl
def charrun_register_characters(): return {{"owl": Path({str(character)!r})}}
@hookimpl
def charrun_register_scales(): return [Scale("tiny", 2, 1, 2, 1, 2)]
seen = []
@hookimpl
def charrun_run_finished(event): seen.append(event)
@hookimpl
def charrun_run_failed(): seen.append("failed")
@hookimpl(optionalhook=True)
def charrun_of_a_later_version(): ...
"""
    )
    distribution(site, "charrun-all", source, entry="all", version="1.2")
    registry = load_registry()
    assert registry.warnings == ()
    assert "only" in registry.stages and "far" in registry.engines
    assert registry.library.characters["owl"] == character and registry.library.scales["tiny"].pairs == 2
    for kind, name in (("stage", "only"), ("engine", "far"), ("character", "owl"), ("scale", "tiny")):
        assert registry.origins[kind, name] == "charrun-all 1.2"
    assert registry.origins["stage", "dpo"] == "built in" and registry.code == {}
    for hook, event in (("charrun_run_finished", "done"), ("charrun_run_failed", "ignored")):
        observers = dict(registry.observers(hook))
        observers["all"](event=event)
    assert sys.modules["charrun_all"].seen == ["done", "failed"]


def test_names_and_observers_come_in_the_order_of_names(site: Path) -> None:
    watch = "\n@hookimpl\ndef charrun_run_finished(event): ...\n"
    for name in ("zeta", "alpha"):
        distribution(site, f"charrun-{name}", stage(name) + watch, entry=name)
    registry = load_registry()
    for names in (list(registry.stages), [name for name, _ in registry.observers("charrun_run_finished")]):
        assert names == sorted(names) and {"alpha", "zeta"} & set(names)


def test_names_that_are_registered_twice_are_told_all_at_once(site: Path) -> None:
    template = "\nOnly.templates = {'character': Path(__file__)}\n"
    distribution(site, "charrun-one", stage("dpo"), entry="one")
    distribution(site, "charrun-two", stage("same") + template, entry="two")
    distribution(site, "charrun-three", stage("same"), entry="three")
    with pytest.raises(PluginError) as found:
        load_registry()
    assert found.value.message.splitlines() == [
        "stage 'dpo' is registered by charrun itself and by charrun-one 1.0",
        "stage 'same' is registered by charrun-three 1.0 and by charrun-two 1.0",
        "template 'character' is registered by charrun itself and by charrun-two 1.0",
    ]
    assert "pip uninstall charrun-one or pip uninstall charrun-three" in found.value.hint
    assert found.value.exit_code == 4
    assert load_registry(third_party=False).warnings == ()


def test_two_plugins_of_one_name_are_an_error_that_names_both(site: Path) -> None:
    for name in ("charrun-one", "charrun-two"):
        distribution(site, name, "raise SystemExit", entry="same")
    with pytest.raises(PluginError) as found:
        load_registry()
    assert found.value.message == "two plugins are named 'same': those of charrun-one 1.0 and of charrun-two 1.0"


@pytest.mark.parametrize(
    ("chosen", "loaded"),
    [("", set()), ("one", {"one"}), ("Charrun_TWO", {"two"}), (" one , charrun-two ", {"one", "two"})],
)
def test_a_variable_chooses_the_plugins(
    site: Path, monkeypatch: pytest.MonkeyPatch, chosen: str, loaded: set[str]
) -> None:
    for name in ("one", "two"):
        distribution(site, f"charrun-{name}", stage(name), entry=name)
    monkeypatch.setenv("CHARRUN_LOAD_PLUGINS", chosen)
    assert {"one", "two"} & set(load_registry().stages) == loaded


def test_a_variable_that_names_nothing_installed_is_told(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHARRUN_LOAD_PLUGINS", "nowhere")
    assert load_registry().warnings == ("CHARRUN_LOAD_PLUGINS names 'nowhere', which is not installed",)


def test_no_plugins_imports_none(site: Path) -> None:
    distribution(site, "charrun-broken", "raise RuntimeError")
    outcome = charrun("stages", "--no-plugins", env={"PYTHONPATH": str(site)})
    assert outcome.code == 0 and outcome.err == ""
    outcome = charrun("stages", env={"PYTHONPATH": str(site)})
    assert outcome.code == 0 and outcome.err.startswith("warning: plugin 'charrun-broken' of charrun-broken 1.0")
