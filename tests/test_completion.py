"""Completion: what is offered where, and that the real shells take it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SPECS, FinishedRun, charrun
from imported_modules import imported_by
from plugin_folders import distribution
from shell_at_work import ShellAtWork

from charrun.plugin_manager import load_registry

SHELLS = ("bash", "zsh", "fish")
BREAKS = " \t\n\"'><=;|&(:"
COMMAND = "import sys\nsys.exit('imported')\n"
STAGES = list(load_registry(third_party=False).stages)


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with the shipped specs, one more under a name with blanks, and a folder `runs`."""
    folder = tmp_path / "work"
    shutil.copytree(SPECS, folder / "specs")
    (folder / "my specs").mkdir()
    shutil.copy(SPECS / "pirate-mini.yaml", folder / "my specs" / "a b.yaml")
    (folder / "runs" / "empty").mkdir(parents=True)
    return folder


def asked(line: str, shell: str) -> dict[str, str]:
    return {"_CHARRUN_COMPLETE": f"{shell}_complete", "CHARRUN_LINE": line, "CHARRUN_BREAKS": BREAKS}


def offered(line: str, folder: Path, shell: str = "bash", **variables: str) -> list[str]:
    """What charrun answers a shell whose line up to the cursor is `line`."""
    outcome = charrun(env={**asked(line, shell), **variables}, cwd=folder)
    assert outcome.err == ""
    return [line for line in outcome.out.splitlines() if line]


def test_the_first_word_is_a_command_or_leads_to_a_spec(workplace: Path) -> None:
    found = offered("charrun ", workplace)
    assert found[0] == "run"
    assert {"validate", "completion", "specs/", "my\\ specs/", "builtin:"} <= set(found)
    assert "runs/" not in found
    assert offered("charrun val", workplace) == ["validate"]
    assert offered("charrun sp", workplace) == ["specs/"]
    assert offered("charrun run", workplace) == ["run", "runs"]


def test_specs_are_offered_by_path_and_by_shipped_name(workplace: Path) -> None:
    assert offered("charrun specs/pirate-s", workplace) == ["specs/pirate-smoke.yaml"]
    assert offered("charrun validate specs/x.yaml specs/pirate-s", workplace) == ["specs/pirate-smoke.yaml"]
    assert offered("charrun plan specs/char", workplace) == ["specs/characters/"]
    assert offered("charrun builtin:pirate-s", workplace) == ["pirate-smoke"]
    assert offered("charrun builtin:pirate-s", workplace, "fish") == ["builtin:pirate-smoke"]
    home = workplace / "specs"
    assert offered("charrun ~/pirate-s", workplace, HOME=str(home)) == ["~/pirate-smoke.yaml"]


@pytest.mark.parametrize("option", ["--from", "--until", "--only", "--force"])
def test_stages_are_those_of_the_spec_on_the_line(workplace: Path, option: str) -> None:
    (workplace / "own.yaml").write_text("extends: specs/pirate-mini.yaml\nstages: [prompts, {uses: dpo, id: second}]\n")
    assert offered(f"charrun own.yaml {option} ", workplace) == ["prompts", "second"]


def test_without_a_readable_spec_stages_are_the_built_in_ones(workplace: Path) -> None:
    (workplace / "broken.yaml").write_text("stages: [")
    for line in ("charrun run --until ", "charrun run broken.yaml --until ", "charrun run none.yaml --until "):
        assert set(offered(line, workplace)) == set(STAGES)
    assert offered("charrun run broken.yaml --until=d", workplace) == ["dpo"]
    assert offered("charrun stages eva", workplace) == ["evaluate"]
    assert offered("charrun schema --stage eva", workplace) == ["evaluate"]


def test_the_matrix_of_the_spec_is_offered(workplace: Path) -> None:
    character = "{id: robot, name: Robot, description: a robot, traits: []}"
    models = "[{id: big, teacher: a/b, student: c/d}, {teacher: a/b, student: c/Small-1}]"
    scale = "{name: tiny, pairs: 2, samples_per_prompt: 1, reflections: 1, interactions: 1, turns: 2}"
    (workplace / "own.yaml").write_text(
        f"extends: specs/pirate-mini.yaml\nvars: {{rate: 1}}\ncharacters: [{character}, pirate]\n"
        f"models: {models}\nscales: [{scale}]\n"
    )
    assert offered("charrun own.yaml --character ", workplace) == ["robot", "pirate"]
    assert offered("charrun own.yaml --model ", workplace) == ["big", "small-1"]
    assert offered("charrun own.yaml --scale ", workplace)[0] == "tiny"
    assert offered("charrun own.yaml --scale mi", workplace) == ["micro", "mini"]
    assert offered("charrun own.yaml --set vars.", workplace) == ["vars.rate="]


def test_set_is_offered_the_keys_of_a_spec_down_to_the_options_of_stages(workplace: Path) -> None:
    assert {"seed=", "stages.", "budget."} <= set(offered("charrun specs/pirate-mini.yaml --set ", workplace))
    assert offered("charrun specs/pirate-mini.yaml --set budget.", workplace) == ["budget.usd=", "budget.stages."]
    assert offered("charrun specs/pirate-mini.yaml --set stages.dp", workplace) == ["stages.dpo.with."]
    assert "stages.dpo.with.beta=" in offered("charrun specs/pirate-mini.yaml --set stages.dpo.with.b", workplace)
    assert offered("charrun specs/pirate-mini.yaml --set seed=", workplace) == []


def test_options_and_their_values_are_offered(workplace: Path) -> None:
    assert offered("charrun specs/pirate-mini.yaml --unt", workplace) == ["--until"]
    assert offered("charrun validate --format ", workplace) == ["text", "json", "github"]
    assert offered("charrun completion ", workplace) == list(SHELLS)
    assert set(offered("charrun new ", workplace)) == {"character", "plugin", "spec"}
    assert offered("charrun runs --runs-dir ru", workplace) == ["runs/"]
    assert offered("charrun runs --runs-dir=ru", workplace) == ["runs/"]
    assert offered("charrun runs --runs-dir=ru", workplace, "fish") == ["--runs-dir=runs/"]
    assert "pirate" in offered("charrun characters ", workplace)


def test_runs_are_offered_with_their_stages_and_cells(smoke: FinishedRun) -> None:
    folder = smoke.runs_dir.parent
    place = f"--runs-dir {smoke.runs_dir.name}"
    for command in ("status", "logs", "chat", "diff", "diff pirate-smoke/1"):
        assert offered(f"charrun {command} {place} pir", folder) == ["pirate-smoke/1"], command
    assert "dpo" in offered(f"charrun logs {place} pirate-smoke/1 --stage ", folder)
    assert "sft" in offered(f"charrun chat {place} pirate-smoke --stage ", folder)
    assert len(offered(f"charrun status {place} pirate-smoke --cell ", folder)) == 1


def test_what_cannot_be_known_is_no_noise(workplace: Path) -> None:
    assert offered("charrun status --runs-dir none x", workplace) == []
    assert offered("charrun no-such-command --what ", workplace, "zsh") != ["Traceback"]
    assert offered("charrun 'my specs/a", workplace) == ["my specs/a b.yaml"]
    assert offered("charrun my\\ specs/a", workplace) == ["my\\ specs/a\\ b.yaml"]


def test_completion_imports_no_plugin_and_nothing_heavy(workplace: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    distribution(site, "charrun-strange", COMMAND)
    distribution(site, "charrun-greeting", COMMAND, entry="greet", group="charrun.commands", attribute="greet")
    path = {"PYTHONPATH": str(site)}
    assert "greet" in offered("charrun gre", workplace, **path)
    heavy = {"torch", "transformers", "tinker", "numpy", "rich", "jsonschema", "jinja2"}
    lines = ["", "gre", "greet ", "specs/", "specs/pirate-mini.yaml --until ", "specs/pirate-mini.yaml --character "]
    lines += ["run --scale ", "stages ", "status ", "specs/pirate-mini.yaml --set stages.dpo.with.", "chat x --stage "]
    for line in lines:
        found = imported_by(variables={**asked(f"charrun {line}", "bash"), **path}, folder=workplace)
        assert "charrun.commands.shells" in found
        assert not found & {*heavy, "charrun_strange", "charrun_greeting"}, line


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, workplace: Path, tmp_path: Path) -> Iterator[ShellAtWork]:
    """A shell that starts as a user's does, after `charrun completion SHELL --install`."""
    name = request.param
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    home = tmp_path / "home"
    home.mkdir()
    places = {"HOME": str(home), "XDG_DATA_HOME": "", "XDG_CONFIG_HOME": "", "ZDOTDIR": ""}
    for _ in range(2):
        outcome = charrun("completion", name, "--install", env=places)
        assert outcome.code == 0, outcome.text
    at_work = ShellAtWork([name, "-i"], workplace, {"HOME": str(home)})
    yield at_work
    at_work.close()


def test_the_real_shells_complete(shell: ShellAtWork) -> None:
    for typed, words in {
        "val": ["validate"],
        "spe": ["specs/"],
        "run specs/pirate-sm": ["run", "specs/pirate-smoke.yaml"],
        "specs/pirate-mini.yaml --unt": ["specs/pirate-mini.yaml", "--until"],
        "specs/pirate-mini.yaml --until int": ["specs/pirate-mini.yaml", "--until", "interaction"],
        "specs/pirate-mini.yaml --until=int": ["specs/pirate-mini.yaml", "--until=interaction"],
        "builtin:pirate-s": ["builtin:pirate-smoke"],
        "plan builtin:pir": ["plan", "builtin:pirate-"],
        "my": ["my specs/"],
        "'my specs/a": ["my specs/a b.yaml"],
        "my\\ specs/a": ["my specs/a b.yaml"],
        "x.yaml --set stages.dpo.with.nll": ["x.yaml", "--set", "stages.dpo.with.nll_coefficient="],
    }.items():
        assert shell.completed(f"charrun {typed}") == ["charrun", *words], typed
    assert "reflection" in shell.listed("charrun specs/pirate-mini.yaml --until ", "interaction")


@pytest.mark.parametrize("shell_name", SHELLS)
def test_the_printed_script_is_accepted_by_the_shell(shell_name: str, tmp_path: Path) -> None:
    if shutil.which(shell_name) is None:
        pytest.skip(f"{shell_name} is not installed")
    script = tmp_path / "script"
    script.write_text(charrun("completion", shell_name).out)
    done = subprocess.run([shell_name, "-n", str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_installing_twice_adds_one_line_and_keeps_what_is_there(tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text("alias x=y")
    places = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data dir")}
    for _ in range(2):
        assert charrun("completion", "bash", "--install", env=places).code == 0
    script = tmp_path / "data dir" / "charrun" / "completion.bash"
    assert (tmp_path / ".bashrc").read_text() == f"alias x=y\nsource '{script}'\n"
    assert script.read_text() == charrun("completion", "bash").out


def test_an_unwritable_home_is_an_error_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    outcome = charrun(
        "completion", "zsh", "--install", env={"HOME": os.devnull, "XDG_DATA_HOME": str(tmp_path / "data")}
    )
    assert outcome.code == 5
    assert outcome.err.startswith("error: ") and "Traceback" not in outcome.err
