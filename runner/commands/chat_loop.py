"""The loop of `charrun chat`: a line in, an answer out, and a few commands."""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charrun.errors import StageFailed

if TYPE_CHECKING:
    from charrun.pipeline.conversation import Conversation, Reply

PROMPT = "you: "
Wait = Callable[[Coroutine[Any, Any, "list[Reply]"]], "list[Reply]"]

HELP = """\
/system TEXT  set the system prompt from here on; without TEXT, remove it
/reset        forget the conversation; the system prompt stays
/save FILE    write the conversation as JSON
/quit         end; Ctrl-D does too
//...         a line that begins with a slash
Ctrl-C stops waiting for an answer; at the prompt it ends."""


class Talk:
    """A conversation with whoever types, or with lines from a pipe.

    Args:
        conversation: What is talked about.
        wait: Awaits answers; raises `GivenUp` where the person no longer does.
        about: What a saved file says of the run.
        plain: Whether nothing moves and nothing stands beside each other, as a screen reader wants it.
    """

    def __init__(self, conversation: Conversation, wait: Wait, about: Mapping[str, Any], plain: bool) -> None:
        from rich.console import Console

        self.failed = False
        self._conversation = conversation
        self._wait = wait
        self._console = Console(highlight=False)
        self._about = about
        self._plain = plain
        self._terminal = sys.stdin.isatty()
        self._saved: set[Path] = set()
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": lambda _: note(HELP),
            "/reset": self._reset,
            "/save": self._save,
            "/system": self._system,
        }

    def run(self) -> None:
        """Answer lines until there are no more, or `/quit`."""
        if self._terminal:
            note("/help lists what can be typed beside questions; Ctrl-D ends")
        for line in _lines(self._terminal):
            text = line.strip()
            if text == "/quit":
                return
            if text.startswith("/") and not text.startswith("//"):
                self._command(text)
            elif text:
                self._answer(text.removeprefix("/"))

    def _answer(self, question: str) -> None:
        from charrun.pipeline.waiting import GivenUp
        from charrun.report.talk import notes, print_replies
        from charrun.report.text import safe_lines

        if not self._terminal:
            click.echo(f"{PROMPT}{safe_lines(question)}")
        try:
            replies = self._wait(self._ask(question))
        except GivenUp:
            note("\nnot waiting for that answer; the conversation is as before the question")
        except StageFailed as error:
            note(f"error: {error.render()}")
            self.failed = not self._terminal
        else:
            print_replies(self._console, replies, self._plain)
            for text in notes(replies):
                note(text)

    async def _ask(self, question: str) -> list[Reply]:
        moving = self._terminal and not self._plain
        with self._console.status("answering") if moving else contextlib.nullcontext():
            return await self._conversation.ask(question)

    def _command(self, text: str) -> None:
        name, _, rest = text.partition(" ")
        if name in self._commands:
            self._commands[name](rest.strip())
            return
        near = difflib.get_close_matches(name, [*self._commands, "/quit"], n=1)
        note(f"there is no {name}; " + (f"did you mean {near[0]}?" if near else "/help lists the commands"))
        self.failed = not self._terminal

    def _reset(self, _: str) -> None:
        self._conversation.reset()
        note("the conversation starts anew")

    def _system(self, text: str) -> None:
        self._conversation.system = text
        note("the system prompt is set" if text else "there is no system prompt now")

    def _save(self, name: str) -> None:
        from charrun.store.files import indented, write_atomic

        if not name:
            note("/save needs the name of a file")
            return
        path = Path(name).expanduser().absolute()
        if path.exists() and path not in self._saved:
            note(f"{path} exists and is left as it is; choose another name")
            return
        try:
            write_atomic(path, indented({**self._about, **self._conversation.to_dict()}))
        except OSError as error:
            note(f"{path} cannot be written: {error.strerror or error}")
            return
        self._saved.add(path)
        note(f"saved in {path}")


def note(text: str) -> None:
    """Tell what is no part of the conversation."""
    click.secho(text, err=True, dim=None if "NO_COLOR" in os.environ else True)


def _lines(terminal: bool) -> Iterator[str]:
    """Lines as they are typed, with line editing and a history that ends with the command; or those of a pipe."""
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    if not terminal:
        yield from sys.stdin
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401
    while True:
        try:
            line = input(PROMPT)
        except EOFError:
            click.echo()
            return
        yield line
