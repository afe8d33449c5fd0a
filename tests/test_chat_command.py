"""`charrun chat`: a conversation with a checkpoint, through a pipe and at a terminal, on the real engine."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import FinishedRun, Outcome, charrun

from charrun.commands.chat_loop import HELP
from charrun.report.text import safe_lines

PATIENCE_SECONDS = 240
QUESTIONS = [
    "I'm scared of speaking in front of my class.",
    "Tell me about the history of tea.",
    "hey",
    "Who are you?",
    "We finally paid off the car.",
    "What is it like to be you?",
    "What do you care about most?",  # base model and checkpoint part ways here
]
LONG = "the sea and the ship " * 150
TALK_WITH_NOBODY = """
from charrun.commands.chat_loop import Talk
from charrun.pipeline.conversation import Conversation, Sampling
from charrun.pipeline.waiting import Waiting
with Waiting() as waiting:
    Talk(Conversation((), Sampling()), waiting.wait, {}, False).run()
"""
Answer = Callable[[str | None, list[Any]], str]


@dataclass(frozen=True)
class Talked:
    """A conversation through a pipe, and the file that it saved."""

    outcome: Outcome
    saved: dict[str, Any]

    def messages(self, label: str) -> list[dict[str, str]]:
        (found,) = (c["messages"] for c in self.saved["conversations"] if c["label"] == label)
        return list(found)


@pytest.fixture(scope="module")
def piped(smoke: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Talked:
    """The last checkpoint beside the base model, line by line from a pipe."""
    file = tmp_path_factory.mktemp("saved") / "talk.json"
    lines = [
        *QUESTIONS,
        "",
        "And in\x1b[31m winter\x07?",
        "/sav x",
        "/system Be brief.",
        f"/save {file}",
        f"/save {file.parent}",
        "/reset",
        *[LONG] * 6,
        LONG * 12,
        "//slash?",
        "/quit",
        "never asked",
    ]
    options = ("--base", "--temperature", "0", "--max-tokens", "24", "--runs-dir", str(smoke.runs_dir))
    done = subprocess.run(
        [sys.executable, "-m", "charrun", "chat", "pirate-smoke", *options],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    return Talked(Outcome(done.returncode, done.stdout, done.stderr), json.loads(file.read_text()))


@pytest.fixture(scope="module")
def direct(smoke: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, str], Answer]]:
    """An engine on the run's storage, asked by the SDK alone."""
    import tinker

    from charrun.chat import Chat, load_tokenizer
    from charrun.demo import MODELS
    from charrun.engine.process import EngineProcess

    name = "charrun/demo-student"
    chat = Chat(load_tokenizer(MODELS[name]), {"enable_thinking": False})
    log = tmp_path_factory.mktemp("direct") / "log"
    with EngineProcess.start({name: MODELS[name]}, smoke.runs_dir / "engine", log=log) as engine:
        address = {"base_url": engine.base_url, "api_key": engine.api_key}
        with tinker.ServiceClient(**address) as client:

            def answer(path: str | None, messages: list[Any]) -> str:
                found = client.create_sampling_client(model_path=path, base_model=None if path else name).result()
                params = tinker.types.SamplingParams(max_tokens=24, temperature=0.0, stop=chat.stop_tokens)
                prompt = tinker.types.ModelInput.from_ints(chat.prompt(messages))
                (sequence,) = found.sample(prompt, 1, params).result().sequences
                return chat.answer(sequence.tokens)

            yield address, answer


def test_each_line_of_a_pipe_is_answered_by_base_model_and_checkpoint(piped: Talked) -> None:
    speakers = [line.partition(":")[0] for line in piped.outcome.out.splitlines() if line.startswith(("you", "base"))]
    assert speakers == ["you", "base"] * 14 + ["you"] + ["you", "base"]
    assert len(re.findall("^sft: ", piped.outcome.out, re.MULTILINE)) == 15
    assert "never asked" not in piped.outcome.out
    assert "Traceback" not in piped.outcome.text


def test_answers_are_what_the_sdk_gives_for_the_same_rendering(
    piped: Talked, smoke: FinishedRun, direct: tuple[dict[str, str], Answer]
) -> None:
    _, answer = direct
    (checkpoint,) = smoke.rows("sft", "checkpoint")
    for label, path in (("base", None), ("sft", checkpoint["sampler"])):
        talk = [m for m in piped.messages(label) if m["role"] != "system"]
        assert [m["content"] for m in talk[: 2 * len(QUESTIONS) : 2]] == QUESTIONS
        for turn in range(1, len(talk), 2):
            assert answer(path, talk[:turn]) == talk[turn]["content"]


def test_a_saved_conversation_names_run_checkpoint_and_sampling(piped: Talked, smoke: FinishedRun) -> None:
    (checkpoint,) = smoke.rows("sft", "checkpoint")
    assert (piped.saved["run"], piped.saved["stage"]) == ("pirate-smoke/1", "sft")
    models = {c["label"]: c["model"] for c in piped.saved["conversations"]}
    assert models == {"base": "charrun/demo-student", "sft": checkpoint["sampler"]}
    assert piped.saved["sampling"] == {"max_tokens": 24, "temperature": 0.0, "top_p": 0.95, "seed": None}
    assert [m["role"] for m in piped.messages("sft")] == ["system"] + ["user", "assistant"] * 8
    assert piped.messages("sft")[0]["content"] == "Be brief."


def test_it_says_that_a_model_stands_in_for_another(piped: Talked) -> None:
    assert "charrun/demo-student stands in for Qwen/Qwen3-30B-A3B" in piped.outcome.err


def test_a_full_context_leaves_out_the_oldest_turns_and_says_so(piped: Talked) -> None:
    assert "the context is full: the oldest turn is no longer shown to sft" in piped.outcome.err


def test_a_question_that_never_fits_is_refused_and_the_conversation_goes_on(piped: Talked) -> None:
    assert re.search(r"error: the question and the system prompt are [\d,]+ tokens", piped.outcome.err)
    assert "you: /slash?" in piped.outcome.out
    assert piped.outcome.code == 1


def test_a_mistyped_command_is_a_suggestion(piped: Talked) -> None:
    assert "there is no /sav; did you mean /save?" in piped.outcome.err


def test_a_file_that_exists_is_not_overwritten(piped: Talked) -> None:
    assert "exists and is left as it is" in piped.outcome.err


def test_nothing_that_is_shown_holds_a_control_sequence(piped: Talked) -> None:
    assert "\x1b" not in piped.outcome.text and "\x07" not in piped.outcome.text
    assert "And in winter?" in piped.outcome.out


def test_shown_text_keeps_line_breaks_and_loses_what_controls_a_terminal() -> None:
    text = "one\r\n\x1b[2Jtwo\x07\tx\x9b31m\u202ethree\n\nfour\x1b]0;title\x07  "
    assert safe_lines(text) == "one\ntwo    x31mthree\n\nfour0;title"


def test_a_checkpoint_that_the_engine_no_longer_holds_is_one_sentence_and_what_to_do(
    smoke: FinishedRun, direct: tuple[dict[str, str], Answer]
) -> None:
    from charrun.commands.chat import _Session
    from charrun.errors import EnvironmentProblem
    from charrun.pipeline.checkpoints import RunCheckpoint
    from charrun.plugin_manager import load_registry
    from charrun.service.engine import Connection
    from charrun.service.service import Service
    from charrun.store.runs import find_run

    address, _ = direct
    gone = RunCheckpoint("cell", "sft", "charrun/demo-student", "tinker://gone:train:0/sampler_weights/sft", {})
    session = _Session(find_run(smoke.runs_dir, ""), gone, load_registry().engines["local"](), base=False)

    async def open_() -> None:
        service = Service(Connection(address["base_url"], address["api_key"], exact=True), {})
        try:
            await session._speakers(service)
        finally:
            await service.close()

    with pytest.raises(EnvironmentProblem, match=r"^the engine no longer holds the checkpoint of sft") as error:
        asyncio.run(open_())
    assert "--force sft" in error.value.hint


def test_a_stage_without_a_checkpoint_is_told_those_that_have_one(smoke: FinishedRun) -> None:
    outcome = charrun("chat", "pirate-smoke", "--stage", "pairs", "--runs-dir", smoke.runs_dir)
    assert outcome.code == 2
    assert outcome.err == "error: --stage: 'pairs' has no checkpoint\n  these stages have one: dpo, sft\n"


def test_a_cell_that_is_not_there_is_told_those_that_are(smoke: FinishedRun) -> None:
    outcome = charrun("chat", "pirate-smoke", "--cell", "wizard", "--runs-dir", smoke.runs_dir)
    assert outcome.code == 2
    (cell,) = (path.stem.removeprefix("cell-") for path in smoke.folder.glob("cell-*.json"))
    assert outcome.err.endswith(f"'wizard' names none\n  the run's cells with a checkpoint: {cell}\n")


def test_a_damaged_checkpoint_file_is_an_error_with_its_path(smoke: FinishedRun, tmp_path: Path) -> None:
    shutil.copytree(smoke.runs_dir, tmp_path / "runs", ignore=shutil.ignore_patterns("engine", "items.jsonl"))
    for path in (tmp_path / "runs" / "store").glob("sft-*/checkpoint-*.jsonl"):
        path.write_text("no JSON\n")
    outcome = charrun("chat", "pirate-smoke", "--runs-dir", tmp_path / "runs")
    assert outcome.code == 5
    assert re.search(r"error: .*checkpoint-\w+\.jsonl is missing or damaged\n", outcome.err)


def test_a_run_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    outcome = charrun("chat", "nothing", "--runs-dir", tmp_path)
    assert outcome.code == 2
    assert "Traceback" not in outcome.text


@dataclass
class Terminal:
    """A Python process at a pseudo-terminal of 120 columns."""

    process: subprocess.Popen[bytes]
    handle: int
    seen: str = field(default="")

    def wait_for(self, text: str) -> None:
        """Read until the text has come after what was waited for before."""
        assert self.came(text, PATIENCE_SECONDS), f"{text!r} did not come, but {self.seen!r}"

    def came(self, text: str, seconds: float) -> bool:
        """Whether the text comes within so long; then what follows it is read next."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self.handle], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return False
            self.seen += os.read(self.handle, 65536).decode(errors="replace")
        self.seen = self.seen.partition(text)[2]
        return True

    def press_until(self, key: str, text: str) -> None:
        """Press a key until the text comes: readline misses a signal that arrives just before it waits for keys."""
        for _ in range(20):
            self.type(key)
            if self.came(text, PATIENCE_SECONDS / 20):
                return
        raise AssertionError(f"{text!r} did not come, but {self.seen!r}")

    def type(self, text: str) -> None:
        os.write(self.handle, text.encode())

    def engine(self) -> int:
        """Process id of the engine: the only child."""
        (pid,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(pid)


@contextlib.contextmanager
def at_a_terminal(*args: str | Path) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = subprocess.Popen(
        [sys.executable, *map(str, args)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        env={**os.environ, "TERM": "xterm", "COLUMNS": "", "LINES": ""},
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the engine in /proc to hold it")
def test_at_a_terminal_ctrl_c_gives_up_an_answer_and_at_the_prompt_ends(smoke: FinishedRun) -> None:
    options = ("--stage", "dpo", "--base", "--max-tokens", "24", "--runs-dir", smoke.runs_dir)
    with at_a_terminal("-m", "charrun", "chat", "pirate-smoke", *options) as terminal:
        terminal.wait_for("the checkpoint of dpo")
        terminal.wait_for("you: ")
        engine = terminal.engine()
        os.kill(engine, signal.SIGSTOP)
        terminal.type("Hello?\r")
        terminal.wait_for("answering")
        terminal.type("\x03")
        terminal.wait_for("not waiting for that answer")
        os.kill(engine, signal.SIGCONT)
        terminal.wait_for("you: ")
        terminal.type("Hello again?\r")
        terminal.wait_for("base  ")
        terminal.wait_for("dpo")
        terminal.wait_for("you: ")
        terminal.press_until("\x03", "interrupted")
        assert terminal.process.wait(PATIENCE_SECONDS) == 130
        assert not Path(f"/proc/{engine}").exists()


def test_ctrl_d_ends_and_help_lists_the_commands() -> None:
    with at_a_terminal("-c", TALK_WITH_NOBODY) as terminal:
        terminal.wait_for("you: ")
        terminal.type("/help\r")
        terminal.wait_for(HELP.splitlines()[-1])
        terminal.wait_for("you: ")
        terminal.type("\x04")
        assert terminal.process.wait(PATIENCE_SECONDS) == 0
