"""A process that has imported what is slow to import and is forked for each start of charrun.

A start costs the runner 3 s of imports and the engine 5 s, and a test that kills them starts them a thousand times. A
child is a process of its own like any other: its environment, files and death are its own. charrun itself is not
imported before the fork.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent


class Child:
    """A running or ended child of a zygote."""

    def __init__(self, zygote: Zygote, pid: int) -> None:
        self.pid = pid
        self._zygote = zygote
        self._ended = threading.Event()
        self._code = 0

    def end(self, code: int) -> None:
        """Told by the zygote's reader."""
        self._code = code
        self._ended.set()

    def poll(self) -> int | None:
        """The exit code, minus the signal's number where one ended it; None while it runs."""
        return self._code if self._ended.is_set() else None

    def wait(self, timeout: float) -> int:
        """The exit code.

        Raises:
            TimeoutError: It still runs.
        """
        if not self._ended.wait(timeout):
            raise TimeoutError(f"process {self.pid} still runs after {timeout} s")
        return self._code

    def signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


class Zygote:
    """The parent of charrun processes; its children end with it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        self._children: dict[int, Child] = {}
        self._started: list[Child] = []
        self._news = threading.Condition()
        threading.Thread(target=self._listen, name="zygote", daemon=True).start()

    def start(self, argv: Sequence[str], env: Mapping[str, str], out: Path, err: Path) -> Child:
        """Run `charrun *argv` in a new process."""
        order = {"argv": list(argv), "env": dict(env), "out": str(out), "err": str(err)}
        with self._news:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            assert self._news.wait_for(lambda: self._started, timeout=60), "the zygote is gone"
            return self._started.pop()

    def close(self) -> None:
        """End it and its children."""
        for child in self._children.values():
            child.signal(9)
        self._process.kill()
        self._process.wait()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            news = json.loads(line)
            with self._news:
                if "started" in news:
                    child = self._children[news["started"]] = Child(self, news["started"])
                    self._started.append(child)
                    self._news.notify_all()
                else:
                    self._children.pop(news["ended"]).end(news["code"])


def _become(order: dict[str, Any]) -> None:
    """In the child: run charrun as `python -m charrun` would."""
    import runpy
    import signal

    os.setpgid(0, 0)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, path in ((1, order["out"]), (2, order["err"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(order["env"])
    sys.argv = ["__main__.py", *order["argv"]]
    runpy.run_module("charrun", run_name="__main__", alter_sys=True)


def _serve() -> None:
    """In the zygote: import, then fork for each line on stdin, and tell who ended."""
    import gc
    import selectors
    import signal

    import jinja2  # noqa: F401
    import jsonschema  # noqa: F401
    import numba  # noqa: F401
    import rich.console  # noqa: F401
    import safetensors.torch  # noqa: F401
    import tinker  # noqa: F401
    import transformers.models.auto.modeling_auto
    import transformers.models.auto.tokenization_auto  # noqa: F401
    import uvicorn  # noqa: F401

    gc.freeze()  # a child's collector need not touch, and so copy, what was imported
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    os.set_blocking(told, False)
    signal.set_wakeup_fd(tell)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    poll = selectors.DefaultSelector()
    poll.register(0, selectors.EVENT_READ)
    poll.register(told, selectors.EVENT_READ)
    while True:
        ready = [key.fd for key, _ in poll.select()]
        if told in ready:
            os.read(told, 4096)
            _reap()
        if 0 in ready:
            line = sys.stdin.buffer.raw.readline()
            if not line:
                return
            pid = os.fork()
            if pid == 0:
                _become(json.loads(line))
                os._exit(0)
            _say({"started": pid})


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        _say({"ended": pid, "code": os.waitstatus_to_exitcode(status)})


def _say(news: dict[str, int]) -> None:
    sys.stdout.write(json.dumps(news) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _serve()
