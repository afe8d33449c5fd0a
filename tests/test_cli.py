"""The command line as a whole: help, mistakes, exit codes, what is imported, and output for every kind of terminal."""

from __future__ import annotations

import contextlib
import inspect
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from conftest import REPOSITORY, SPECS, Outcome, charrun
from imported_modules import imported_by
from plugin_folders import distribution

from charrun.cli import COMMANDS, cli, main

WIDTH = {"COLUMNS": "80"}
HEAVY = {"torch", "transformers", "tinker"}
SLOW_COMMAND = """
import click, time
@click.command()
def waits():
    "Wait for a signal."
    click.echo("waiting")
    while True:  # a signal that comes before one long wait would not end it
        time.sleep(0.05)
"""


def own_commands() -> Iterator[tuple[str, ...]]:
    """Every command of charrun and those under it, as words."""
    context = click.Context(cli)
    for name in COMMANDS:
        yield (name,)
        command = cli.get_command(context, name)
        if isinstance(command, click.Group):
            yield from ((name, inner) for inner in command.commands)


def told(capsys: pytest.CaptureFixture[str], *words: str) -> Outcome:
    """What `charrun WORDS` says and ends with, within this process: for what is decided before a command runs."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            main(words)
    finally:
        signal.signal(signal.SIGTERM, handler)
    said = capsys.readouterr()
    return Outcome(int(ended.value.code or 0), said.out, said.err)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plugin whose command waits."""
    site = tmp_path_factory.mktemp("site")
    distribution(site, "charrun-waiting", SLOW_COMMAND, entry="waits", group="charrun.commands", attribute="waits")
    return site


@pytest.mark.parametrize("command", [(), *own_commands()], ids=" ".join)
def test_help_fits_a_terminal_of_80_columns(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    outcome = told(capsys, *command, "--help")
    assert outcome.code == 0
    assert [line for line in outcome.out.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_of_commands_says_what_the_command_says_of_itself(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None and command.name == name
    assert inspect.cleandoc(command.help or "").splitlines()[0] == COMMANDS[name][1]


@pytest.mark.parametrize("command", [(), *own_commands()], ids=" ".join)
def test_an_unknown_option_is_a_usage_error_that_names_the_help_to_read(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = told(capsys, *command, "--zzz")
    assert outcome.code == 2
    assert f"Try '{' '.join(['charrun', *command])} --help' for help." in outcome.err
    assert outcome.err.splitlines()[-1] == "Error: No such option '--zzz'."
    assert outcome.out == ""


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("valdate", "Error: No such command 'valdate'. Did you mean 'validate'?"),
        ("wait", "Error: No such command 'wait'. Did you mean 'waits'?"),
        ("pirate-mini", "Error: No such command 'pirate-mini'. Did you mean 'charrun builtin:pirate-mini'?"),
        ("pirate-mni", "Error: No such command 'pirate-mni'. Did you mean 'charrun builtin:pirate-mini'?"),
        ("own", "Error: No such command 'own'. Did you mean 'charrun own.yaml'?"),
        ("other", "Error: No such command 'other'. Did you mean 'charrun specs/other.yaml'?"),
        ("xyz", "Error: No such command 'xyz'. A spec is named by its file, such as specs/pirate-mini.yaml."),
        ("specs", "Error: 'specs' is a folder, not a command or a spec. Name a spec in it: specs/other.yaml"),
        (
            "plain",
            "Error: No such command 'plain'. To run a file whose name does not end in .yaml: charrun run plain",
        ),
        ("--yes own.yaml", "Error: '--yes' stands before the spec. Options follow it: charrun own.yaml --yes"),
        ("--json -v runs", "Error: '--json' stands before the command. Options follow it: charrun runs --json -v"),
        ("plan own.yaml --exit-cod", "Error: No such option '--exit-cod'. Did you mean '--exit-code'?"),
        ("--dry-run own.yaml", "`charrun plan SPEC` shows what a run would do"),
        ("own.yaml --dry-run", "`charrun plan SPEC` shows what a run would do"),
        ("new plugn", "Error: No such command 'plugn'. Did you mean 'plugin'?"),
        ("completion csh", "Error: Invalid value for '{bash|zsh|fish}': 'csh' is not one of 'bash', 'zsh', 'fish'."),
        ("run", "Error: Missing argument 'SPEC'."),
    ],
)
def test_a_slip_on_the_command_line_is_answered_with_what_was_meant(
    words: str,
    answer: str,
    tmp_path: Path,
    site: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("own.yaml", "plain", "specs/other.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("version: 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(site)
    outcome = told(capsys, *words.split())
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1] == answer
    assert "--help' for help." in outcome.err
    assert outcome.out == ""


def test_a_spec_that_is_not_there_is_an_error_of_the_file(tmp_path: Path) -> None:
    outcome = charrun("specs/pirate-mni.yaml", cwd=REPOSITORY)
    assert outcome.code == 3
    assert outcome.err.splitlines()[:2] == [
        "specs/pirate-mni.yaml SPEC001 no such file",
        "      did you mean specs/pirate-mini.yaml?",
    ]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_a_signal_ends_a_command_with_130_and_no_traceback(sent: signal.Signals, code: int, site: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "charrun", "waits"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(site)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.split()) == (code, ["interrupted"])


def test_help_and_validate_import_nothing_heavy() -> None:
    for words in (["--help"], ["--version"], ["validate", "--help"], ["completion", "bash"]):
        assert not imported_by(*words) & {*HEAVY, "numpy", "rich", "jsonschema", "jinja2"}, words
    assert not imported_by("--help") & {"yaml", "pluggy", "charrun.spec"}
    specs = [str(path) for path in SPECS.glob("pirate-*.yaml")]
    assert not imported_by("validate", *specs) & {*HEAVY, "numpy", "rich", "jsonschema"}
    for words in (["stages"], ["stages", "dpo"], ["characters"], ["plugins"], ["schema"], ["runs"]):
        assert not imported_by(*words) & {*HEAVY, "numpy"}, words


PLAN = ("plan", "specs/pirate-mini.yaml", "--runs-dir", "no-such-folder")
CHEAP = [
    ("--help",),
    ("valdate",),
    ("validate", "specs/pirate-mini.yaml", "tests/errors/scalars.yaml"),
    PLAN,
    ("stages",),
    ("stages", "dpo"),
    ("characters", "pirate"),
    ("plugins",),
    ("runs", "--runs-dir", "no-such-folder"),
    ("status", "--runs-dir", "no-such-folder"),
    ("doctor", "--no-engine", "--runs-dir", "no-such-folder"),
]
DRAWN = re.compile("[\u2500-\u259f\u2800-\u28ff]")
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:[34]\d|9\d|10\d)[;m\d]*")


@pytest.mark.parametrize("command", CHEAP, ids=" ".join)
@pytest.mark.parametrize("variables", [{"NO_COLOR": "1", "TERM": "xterm"}, {"TERM": "dumb"}], ids=str)
def test_piped_output_has_no_escape_sequences(command: tuple[str, ...], variables: dict[str, str]) -> None:
    outcome = charrun(*command, env={**WIDTH, **variables}, cwd=REPOSITORY)
    assert "\x1b" not in outcome.text
    assert "Traceback" not in outcome.text


def test_tables_fit_80_columns() -> None:
    for command in (("--help",), ("stages",), ("stages", "dpo"), ("characters",), ("plugins",)):
        outcome = charrun(*command, env=WIDTH, cwd=REPOSITORY)
        assert [line for line in outcome.out.splitlines() if len(line) > 80] == [], command
    lines = charrun(*PLAN, env=WIDTH, cwd=REPOSITORY).out.splitlines()
    # Sentences are left to the terminal to break.
    assert [line for line in lines if line.startswith("  ") and len(line) > 80] == []


def test_a_terminal_without_colours_gets_none() -> None:
    assert not COLOUR.search(on_a_terminal(*PLAN, NO_COLOR="1", TERM="xterm-256color"))
    assert "\x1b" not in on_a_terminal(*PLAN, TERM="dumb")


def test_plain_mode_draws_no_boxes_bars_or_columns() -> None:
    for words, variables in ((["--plain"], {}), ([], {"CHARRUN_PLAIN": "1"})):
        text = on_a_terminal(*PLAN, *words, TERM="xterm-256color", **variables)
        assert "  dpo: to do (" in text
        assert not DRAWN.search(text)
        assert not re.search(r"\S {2,}\S", text)


def on_a_terminal(*words: str, **variables: str) -> str:
    """What `charrun WORDS` writes to a terminal of 80 columns."""
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (24, 80))
    environment = {**os.environ, **WIDTH, **variables}
    command = [sys.executable, "-m", "charrun", *words]
    process = subprocess.Popen(command, stdin=child, stdout=child, stderr=child, env=environment, cwd=REPOSITORY)
    os.close(child)
    text = b""
    with contextlib.suppress(OSError):  # a terminal whose other side is closed
        while piece := os.read(parent, 65536):
            text += piece
    os.close(parent)
    assert process.wait(timeout=60) == 0
    return text.decode()


def test_the_process_ends_with_its_code_whatever_its_threads_do() -> None:
    """The SDK's threads never end; one that is in compiled code must not be met by an interpreter that is gone."""
    script = (
        "import atexit, sys, threading, time\n"
        "threading.Thread(target=lambda: [time.sleep(0) for _ in iter(int, 1)], daemon=True).start()\n"
        "atexit.register(lambda: print('put away'))\n"
        "from charrun.cli import run\n"
        "sys.argv = ['charrun', *sys.argv[1:]]\n"
        "run()\n"
    )
    for words, code in ((["--version"], 0), (["nonsense"], 2)):
        done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
        assert done.returncode == code and "put away" in done.stdout
        assert "charrun, version" in done.stdout or "No such command" in done.stderr
