"""An interactive shell in a pseudo-terminal, for tests of completion."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_ESCAPES = re.compile(r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[()][A-Z0-9]|\x1b[=>78]|\r")
_SECONDS = 60
_HOME = "\x01"  # Ctrl-A: the cursor goes to the start of the line


class ShellAtWork:
    """A shell that is typed at. It reads keys in order, so nothing has to wait for a completion to be done."""

    def __init__(self, command: Sequence[str], folder: Path, variables: Mapping[str, str]) -> None:
        environment = {
            "HOME": os.environ["HOME"],
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "TERM": "xterm",
            "COLUMNS": "100",
            **variables,
        }
        self.seen = ""
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execvpe(command[0], list(command), environment)
        self.run("printf 'rea%s\\n' dy", "ready\n")

    def run(self, line: str, until: str) -> None:
        """Type a line and wait for what it prints."""
        self._type(f"{line}\r")
        self._wait(until)

    def completed(self, typed: str) -> list[str]:
        """The words of a command line as the shell reads them after a TAB at its end."""
        self.seen = ""
        self._type(f"{typed}\t{_HOME}printf '<%s>\\n' \r")
        self.run("printf 'do%s\\n' ne", "done\n")
        return re.findall(r"^<([^>\n]*)>$", self.seen, re.MULTILINE)

    def listed(self, typed: str, until: str) -> str:
        """What the shell shows after two TABs, at the latest when `until` has appeared."""
        self.seen = ""
        self._type(f"{typed}\t\t")
        self._wait(until)
        return self.seen

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._terminal)

    def _type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def _wait(self, until: str) -> None:
        end = time.monotonic() + _SECONDS
        raw = b""
        while until not in self.seen:
            ready, _, _ = select.select([self._terminal], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise AssertionError(f"{until!r} did not appear; the shell shows:\n{self.seen}")
            raw += os.read(self._terminal, 65536)
            text = raw.decode(errors="replace")
            if not re.search(r"\x1b[^a-zA-Z]*$", text):  # not within an escape sequence
                self.seen += _ESCAPES.sub("", text)
                raw = b""
