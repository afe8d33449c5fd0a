"""A stage in a file beside the spec: asked for once by its content, run from the bytes that were shown."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SPECS, FinishedRun, charrun

from charrun.errors import PluginError, SpecError
from charrun.local_plugins import Allow, Candidate, LocalFile, NotAllowed
from charrun.plugin_manager import Registry, load_registry
from charrun.trust import TrustStore

STAGE = """
from charrun import Stage

class Counter(Stage):
    name = "counter"
    summary = "counts"
    produces = ("count",)
    async def run(self, ctx):
        ctx.publish("count", [{"n": 1}])
"""
SPEC = """
extends: builtin:custom-stage
name: own
plugins: [./own.py]
stages: [counter]
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of trusted files, empty."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "charrun" / "trusted.json"


@pytest.fixture
def own(tmp_path: Path) -> Callable[[str], LocalFile]:
    """Writes the file and a spec that names it."""

    def write(source: str) -> LocalFile:
        (tmp_path / "own.py").write_text(source)
        (tmp_path / "own.yaml").write_text(SPEC)
        return LocalFile(tmp_path / "own.py", "specs/own.py")

    return write


def load(file: LocalFile, allow: Allow | None = lambda candidate: True) -> Registry:
    return load_registry(third_party=False, files=[file], allow=allow)


def broken(file: LocalFile) -> str:
    with pytest.raises(SpecError) as found:
        load(file)
    return found.value.render()


def test_a_subclass_of_stage_is_registered_by_itself(own: Callable[[str], LocalFile]) -> None:
    registry = load(own(STAGE))
    assert registry.stages["counter"].summary == "counts"
    assert registry.origins["stage", "counter"] == "specs/own.py"
    digest = subprocess.run(["sha256sum", "own.py"], cwd=own(STAGE).path.parent, capture_output=True, text=True)
    assert registry.code == {"counter": digest.stdout.split()[0]}


def test_what_other_classes_build_on_and_what_is_imported_is_no_stage(own: Callable[[str], LocalFile]) -> None:
    more = """
from charrun.plugins.teacher import TeacherStage

class Base(Stage):
    async def run(self, ctx): ...

class One(Base):
    name = "one"
    summary = "of two"

class Two(One):
    name = "two"
"""
    assert set(load(own(STAGE + more)).code) == {"counter", "one", "two"}


def test_a_file_may_use_every_hook(own: Callable[[str], LocalFile]) -> None:
    more = """
from charrun import Scale, hookimpl

@hookimpl
def charrun_register_stages():
    return []

@hookimpl
def charrun_register_scales():
    return [Scale("tiny", 2, 1, 2, 1, 2)]

@hookimpl
def charrun_run_finished(event): ...
"""
    registry = load(own(STAGE + more))
    assert registry.scales["tiny"].turns == 2 and "counter" not in registry.stages
    assert "specs/own.py" in dict(registry.observers("charrun_run_finished"))


def test_without_anyone_to_ask_nothing_runs_and_the_hash_is_told(own: Callable[[str], LocalFile]) -> None:
    file = own("raise SystemExit('it ran')")
    with pytest.raises(NotAllowed) as found:
        load(file, None)
    digest = Candidate(file, file.path.read_bytes(), False).digest
    assert found.value.render().splitlines() == [
        f"specs/own.py: the stage file may not run: 26 bytes, sha256 {digest}, new",
        "  read it; then run the command in a terminal, which asks once, or add --trust",
    ]
    assert found.value.exit_code == 4


def test_what_runs_is_what_was_shown(own: Callable[[str], LocalFile]) -> None:
    file = own(STAGE)

    def allow(candidate: Candidate) -> bool:
        file.path.write_text("raise SystemExit('another file')")
        return b"Counter" in candidate.source

    assert "counter" in load(file, allow).stages


def test_a_file_is_asked_for_once_and_again_when_it_changes(own: Callable[[str], LocalFile], state: Path) -> None:
    asked: list[str] = []

    def allow(candidate: Candidate) -> bool:
        asked.append(candidate.state)
        TrustStore().remember(candidate.file.path, candidate.digest)
        return True

    for source in (STAGE, STAGE, STAGE + "# changed\n", STAGE + "# changed\n", STAGE):
        load(own(source), allow)
    assert asked == ["new", "changed since you allowed it", "changed since you allowed it"]
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    assert json.loads(state.read_text())["files"].keys() == {str(own(STAGE).path)}
    assert list(state.parent.iterdir()) == [state]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": []}', '{"files": {"x": 3}}', "\0\xff", "[" * 100_000])
def test_a_damaged_file_of_trusted_files_means_to_be_asked(
    own: Callable[[str], LocalFile], state: Path, text: str
) -> None:
    state.parent.mkdir(parents=True)
    state.write_text(text)
    with pytest.raises(NotAllowed):
        load(own(STAGE), None)
    TrustStore().remember(own(STAGE).path, Candidate(own(STAGE), STAGE.encode(), False).digest)
    assert "counter" in load(own(STAGE), None).stages


def test_trust_that_others_could_have_written_is_none(own: Callable[[str], LocalFile], state: Path) -> None:
    file = own(STAGE)
    TrustStore().remember(file.path, Candidate(file, STAGE.encode(), False).digest)
    assert "counter" in load(file, None).stages
    state.chmod(0o620)
    with pytest.raises(NotAllowed):
        load(file, None)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            "x = 1\nraise RuntimeError('no')\n",
            "specs/own.py:2:1 SPEC061 the stage file breaks: RuntimeError: no\n"
            "    2 | raise RuntimeError('no')\n"
            "      | ^",
        ),
        (
            "def f():\n    return 1 / 0\n\nf()\n",
            "specs/own.py:2:12 SPEC061 the stage file breaks: ZeroDivisionError: division by zero\n"
            "    2 |     return 1 / 0\n"
            "      |            ^",
        ),
        (
            "import sys\nsys.exit()\n",
            "specs/own.py:2:1 SPEC061 the stage file breaks: SystemExit\n    2 | sys.exit()\n      | ^",
        ),
        (
            "from charrun import hookimpl\n\n@hookimpl\ndef charrun_register_stages():\n    return [].pop()\n",
            "specs/own.py:5:12 SPEC061 the stage file breaks: IndexError: pop from empty list\n"
            "    5 |     return [].pop()\n"
            "      |            ^",
        ),
        (
            "x = 1\n",
            "specs/own.py SPEC062 the stage file registers nothing\n"
            "      define a subclass of charrun.Stage, or functions marked with charrun.hookimpl",
        ),
        (
            STAGE.replace('"counts"', '""'),
            "specs/own.py SPEC063 the stage file breaks the contract: "
            "stage 'counter': its summary is '', not one line of text",
        ),
    ],
)
def test_what_is_wrong_in_the_file_has_its_line(own: Callable[[str], LocalFile], source: str, text: str) -> None:
    assert broken(own(source)) == text


def test_a_file_that_is_no_python_is_told_with_its_line(own: Callable[[str], LocalFile]) -> None:
    assert broken(own("x = (\ny = 2\n")).startswith("specs/own.py:1:5 SPEC061 the stage file breaks: SyntaxError")
    file = own("")
    file.path.write_bytes(b"\xff\x00\n")
    assert "SPEC061 the stage file breaks" in broken(file)


def test_a_file_that_is_too_large_or_none_is_not_read(own: Callable[[str], LocalFile], tmp_path: Path) -> None:
    assert "SPEC060 cannot read the stage file: it is larger than 1 MiB" in broken(own("#" * (1 << 20) + "\n"))
    os.mkfifo(tmp_path / "pipe.py")
    assert "SPEC060 cannot read the stage file: it is no regular file" in broken(LocalFile(tmp_path / "pipe.py", "p"))


def test_a_stage_of_a_taken_name_is_refused(own: Callable[[str], LocalFile]) -> None:
    with pytest.raises(PluginError) as found:
        load(own(STAGE.replace('"counter"', '"dpo"')))
    assert found.value.message == "stage 'dpo' is registered by charrun itself and by specs/own.py"
    assert found.value.hint == "give one of them another name"


def test_two_files_do_not_know_of_each_other(own: Callable[[str], LocalFile], tmp_path: Path) -> None:
    base = load_registry(third_party=False)
    assert "counter" in load(own(STAGE)).stages and "counter" not in base.stages
    (tmp_path / "twin.py").write_text(STAGE.replace('"counter"', '"twin"'))
    both = load_registry(
        third_party=False,
        files=[own(STAGE), LocalFile(tmp_path / "twin.py", "twin.py"), LocalFile(tmp_path / "own.py", "again.py")],
        allow=lambda candidate: True,
    )
    assert both.origins["stage", "twin"] == "twin.py" and len(both.code) == 2


# -- the command line ---------------------------------------------------------------------------------------------


def test_the_command_line_refuses_what_nobody_can_be_asked_for(own: Callable[[str], LocalFile], tmp_path: Path) -> None:
    digest = Candidate(own(STAGE), STAGE.encode(), False).digest
    for command in ("validate", "run"):
        outcome = charrun(command, "own.yaml", cwd=tmp_path)
        assert outcome.code == 4
        assert "own.py" in outcome.err and digest in outcome.err and "--trust" in outcome.err
    assert charrun("validate", "own.yaml", "--trust", cwd=tmp_path).code == 0
    assert charrun("validate", "own.yaml", cwd=tmp_path).code == 4  # --trust leaves nothing behind


def test_problems_of_the_file_and_of_the_spec_come_together(own: Callable[[str], LocalFile], tmp_path: Path) -> None:
    own("raise KeyError('here')\n")
    (tmp_path / "own.yaml").write_text(SPEC + "sedd: 1\n")
    outcome = charrun("validate", "own.yaml", "--trust", cwd=tmp_path)
    assert outcome.code == 3
    assert "own.py:1:1 SPEC061 the stage file breaks: KeyError: 'here'" in outcome.err
    assert "SPEC013 unknown key 'sedd'" in outcome.err and "SPEC020" not in outcome.err


def at_terminal(answer: str, *args: str, cwd: Path) -> tuple[int, str]:
    """Run a command at a terminal of its own and answer what it asks; exit code and everything that it showed."""
    person, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "charrun", *args], stdin=terminal, stdout=terminal, stderr=terminal, cwd=cwd
    )
    os.close(terminal)
    os.write(person, answer.encode())
    shown = b""
    while True:
        try:
            piece = os.read(person, 4096)
        except OSError:  # the other end is closed
            break
        shown += piece
    os.close(person)
    return process.wait(), shown.decode().replace("\r\n", "\n")


def test_a_person_is_asked_once_and_again_after_a_change(own: Callable[[str], LocalFile], tmp_path: Path) -> None:
    digest = Candidate(own(STAGE), STAGE.encode(), False).digest
    question = f"Run code of own.py (sha256 {digest[:12]}…, new)? [y/N]"
    code, shown = at_terminal("n\n", "validate", "own.yaml", cwd=tmp_path)
    assert code == 4 and question in shown and f"{len(STAGE)} bytes, sha256 {digest}" in shown
    code, shown = at_terminal("y\n", "validate", "own.yaml", cwd=tmp_path)
    assert code == 0 and question in shown
    assert charrun("validate", "own.yaml", cwd=tmp_path).code == 0
    own(STAGE + "# changed\n")
    code, shown = at_terminal("\n", "validate", "own.yaml", cwd=tmp_path)
    assert code == 4 and "changed since you allowed it)? [y/N]" in shown


# -- the example --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """The shipped example, with a copy of its stage file."""
    folder = tmp_path_factory.mktemp("example")
    (folder / "lexicon.py").write_bytes((SPECS / "stages/lexicon.py").read_bytes())
    (folder / "own.yaml").write_text("extends: builtin:custom-stage\nname: own\nplugins: [./lexicon.py]\n")
    outcome = charrun(folder / "own.yaml", "--trust", "--runs-dir", folder / "runs")
    assert outcome.code == 0, outcome.text
    return FinishedRun(folder / "runs", outcome)


def tables(example: FinishedRun) -> list[Path]:
    return sorted((example.runs_dir / "store").glob("lexicon-*/lexicon-*.jsonl"))


def test_the_example_finds_the_characters_words(example: FinishedRun) -> None:
    (path,) = tables(example)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 30 and all(row["chosen"] > row["rejected"] for row in rows)
    assert {"ye", "sailor"} & {row["word"] for row in rows[:12]}
    assert rows[0]["log_likelihood_ratio"] > 3.84


def test_another_content_of_the_file_is_another_stage(example: FinishedRun) -> None:
    file = example.runs_dir.parent / "lexicon.py"
    file.write_text(file.read_text() + "\n# changed\n")
    outcome = charrun(example.runs_dir.parent / "own.yaml", "--trust", "--runs-dir", example.runs_dir)
    assert outcome.code == 0, outcome.text
    first, second = tables(example)
    assert first.parent != second.parent and first.read_text() == second.read_text()
    assert len(list((example.runs_dir / "store").glob("teacher-*"))) == 1
