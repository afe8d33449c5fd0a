"""An engine that can be killed and started again at its address, and runs of charrun against it."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from faults.zygote import Child, Zygote

MODEL = "charrun/demo-student-small"
_KEY = "tml-faults-harness"
_START_SECONDS = 120.0
_POLL = 0.005


def environment(**more: str) -> dict[str, str]:
    """The environment of what a test starts: nothing in it can spend money, and no fault is left over."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith("TINKER_") and n != "CHARRUN_FAULT"}
    fixed = {"TINKER_TELEMETRY": "0", "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive", "CHARRUN_ENGINE_KEY": _KEY}
    return {**kept, **fixed, **more}


class Engine:
    """`charrun engine serve` at one port with one storage and one key, whichever process it is right now.

    Attributes:
        base_url: Where it answers.
        storage: Its checkpoints.
        starts: How often it was started.
    """

    api_key = _KEY

    def __init__(self, zygote: Zygote, folder: Path) -> None:
        self._zygote = zygote
        self._folder = folder
        self._port = _free_port()
        self._child: Child | None = None
        self.base_url = f"http://127.0.0.1:{self._port}"
        self.storage = folder / "storage"
        self.starts = 0

    def start(self, fault: str = "") -> None:
        """Start it and wait until it answers; it may be told to die at a point of `charrun.faults`."""
        self.launch(fault)
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            code = self._running.poll()
            assert code is None and time.monotonic() < deadline, f"engine {code}: {self.log()[-2000:]}"
            time.sleep(0.02)

    def launch(self, fault: str = "") -> None:
        """Start it and wait for nothing."""
        assert self._child is None or self._child.poll() is not None, "it runs"
        self._folder.mkdir(parents=True, exist_ok=True)
        self.starts += 1
        argv = ["engine", "serve", "--port", str(self._port), "--storage", str(self.storage), "--threads", "1"]
        argv += ["--drain", "0", "--model", MODEL]
        env = environment(**({"CHARRUN_FAULT": fault} if fault else {}))
        self._child = self._zygote.start(argv, env, self._folder / "out", self._folder / "log")

    def kill(self) -> float:
        """End it with SIGKILL; returns when it was dead, on the monotonic clock."""
        self._running.signal(signal.SIGKILL)
        self._running.wait(30)
        return time.monotonic()

    def alive(self) -> bool:
        """Whether it runs."""
        return self._child is not None and self._child.poll() is None

    def wait(self, timeout: float) -> int:
        """Its exit code."""
        return self._running.wait(timeout)

    def log(self) -> str:
        """What it wrote on stderr."""
        path = self._folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def weights(self, path: str, name: str = "adapter_model.safetensors") -> Path:
        """The file of a checkpoint that a tinker:// path names."""
        found = re.fullmatch(r"tinker://([^/]+)/([^/]+)/([^/]+)", path)
        assert found is not None, path
        run, kind, checkpoint = found.groups()
        return self.storage / run.replace(":", "_") / kind / checkpoint / name

    @property
    def _running(self) -> Child:
        assert self._child is not None, "it was never started"
        return self._child

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.base_url}/api/v1/healthz", timeout=2).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True


@contextmanager
def engine(folder: Path, zygote: Zygote) -> Iterator[Engine]:
    """A started engine, gone afterwards."""
    served = Engine(zygote, folder)
    try:
        served.start()
        yield served
    finally:
        if served.alive():
            served.kill()


@dataclass(frozen=True)
class Ended:
    """A charrun process that has ended."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def text(self) -> str:
        return self.out + self.err

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.code == -signal.SIGKILL


class Runner:
    """A charrun process.

    Args:
        zygote: Its parent.
        spec: The spec file.
        runs_dir: `--runs-dir`.
        base_url: Address of the engine, or of a proxy before it.
        args: Further options.
        fault: `point:n`, at which it dies.
        env: Further variables.
    """

    def __init__(
        self,
        zygote: Zygote,
        spec: Path,
        runs_dir: Path,
        base_url: str,
        *args: str,
        fault: str = "",
        env: Mapping[str, str] | None = None,
    ) -> None:
        runs_dir.mkdir(parents=True, exist_ok=True)
        number = len(list(runs_dir.parent.glob(f"{runs_dir.name}.*.out")))
        self._out, self._err = (runs_dir.parent / f"{runs_dir.name}.{number}.{each}" for each in ("out", "err"))
        variables = {"TINKER_API_KEY": _KEY, "TINKER_BASE_URL": base_url, **(env or {})}
        if fault:
            variables["CHARRUN_FAULT"] = fault
        self.began = time.monotonic()
        argv = [str(spec), "--runs-dir", str(runs_dir), "--yes", "--plain", *args]
        self._child = zygote.start(argv, environment(**variables), self._out, self._err)

    def alive(self) -> bool:
        """Whether it runs."""
        return self._child.poll() is None

    def kill(self) -> float:
        """End it with SIGKILL; returns when it was dead, on the monotonic clock."""
        self._child.signal(signal.SIGKILL)
        self._child.wait(30)
        return time.monotonic()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._child.signal(number)

    def wait(self, timeout: float = 300.0) -> Ended:
        """Wait for its end; one that takes too long is killed, and a test fails with what it wrote."""
        try:
            code = self._child.wait(timeout)
        except TimeoutError:
            self.kill()
            raise AssertionError(f"it took longer than {timeout} s\n{self._read()[1]}") from None
        return Ended(code, *self._read(), time.monotonic() - self.began)

    def _read(self) -> tuple[str, str]:
        out, err = (path.read_text(errors="replace") if path.exists() else "" for path in (self._out, self._err))
        return out, err


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
