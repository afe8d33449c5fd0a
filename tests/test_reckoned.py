"""What a run will cost, reckoned beside it where it does not wait for that."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REPOSITORY
from rich.console import Console

from charrun import events
from charrun.commands.reckoned import Reckoned
from charrun.report.console import ConsoleWatcher

sys.path.insert(0, str(REPOSITORY / "benchmarks"))

import money
from service_sim.process import simulated

Until = Callable[[Callable[[], bool]], None]


def test_it_is_known_once_another_process_has_it_and_its_errors_are_nobodys(
    until: Until, capfd: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        os.write(1, b"nobody reads this")
        return os.getpid()

    reckoned, failed = Reckoned(work), Reckoned(lambda: 1 // 0)
    found: list[int] = []
    until(lambda: bool(found.extend([each] if (each := reckoned.found()) else []) or found))
    assert found[0] != os.getpid() and reckoned.found() is None
    until(lambda: failed.found() is None and not failed._process.is_alive())
    for each in (reckoned, failed):
        each.close()
    assert capfd.readouterr() == ("", "")


def test_it_ends_with_the_run_whether_that_closes_it_or_is_killed(tmp_path: Path, until: Until) -> None:
    def alive(process: int) -> bool:
        try:
            return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
        except FileNotFoundError:
            return False

    told = tmp_path / "pid"
    script = (
        "import os, pathlib, signal, time\n"
        "from charrun.commands.reckoned import Reckoned\n"
        "def work():\n"
        f"    pathlib.Path({str(told)!r}).write_text(str(os.getpid()) + '.')\n"
        "    time.sleep(600)\n"
        "reckoned = Reckoned(work)\n"
        f"while not pathlib.Path({str(told)!r}).exists(): time.sleep(0.01)\n"
    )
    for end in ("reckoned.close()", "os.kill(os.getpid(), signal.SIGKILL)"):
        told.unlink(missing_ok=True)
        subprocess.run([sys.executable, "-c", script + end], timeout=60)
        until(lambda: not alive(int(told.read_text().removesuffix("."))))


def test_what_is_known_later_is_shown_from_then_on() -> None:
    known: list[tuple[tuple[float, float], dict[tuple[str, str], tuple[float, float]]]] = []
    console = Console(width=200, record=True, file=io.StringIO())
    with ConsoleWatcher(console, plain=True, later=lambda: known.pop() if known else None) as watcher:
        watcher.charrun_stage_started(events.StageStarted("c", "teacher", "teacher", "works"))
        for done in (2, 5, 6):
            watcher._watches["c", "teacher"].shown -= 60
            watcher.charrun_stage_progressed(events.StageProgressed("c", "teacher", done, 10, 100, done / 10))
            if done == 2:
                known.append(((1.0, 2.0), {("c", "teacher"): (1.0, 2.0)}))
    lines = console.export_text().splitlines()
    assert [line.partition(" left, ")[2] for line in lines if " left, " in line] == [
        "$0.20", "$0.50 of $1.00 to $1.50", "$0.60 of $1.00 to $1.40",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--budget", "5", "--partial")])
def test_a_run_that_nobody_was_asked_about_shows_what_it_will_cost(words: tuple[str, ...], tmp_path: Path) -> None:
    """The service answers one at a time, so that there is something to show for minutes; then the run is killed."""
    spec = money.spec_at(tmp_path, money.TINY)
    words = (*words, "--until", "student")
    with simulated(tmp_path / "service", money.models(), tokens=40, seconds=20.0, cap=1) as service:
        ours, theirs = pty.openpty()
        env = {**os.environ, **service.environment, "COLUMNS": "160", "TERM": "xterm"}
        command = [sys.executable, "-m", "charrun", str(spec), "--runs-dir", str(tmp_path / "runs"), "--yes", *words]
        run = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
        os.close(theirs)
        shown = b""
        try:
            while block := os.read(ours, 1 << 16):
                shown += block
                if b" of $0." in shown:
                    run.kill()
        except OSError:  # it has ended
            pass
        assert run.wait() in (0, -signal.SIGKILL), shown.decode()[-2000:]
    assert b"It will cost" not in shown
    assert b" of $0." in shown and b" to $0." in shown
