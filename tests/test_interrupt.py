"""Ctrl-C in the middle of each stage: exit 130, rows kept, engine gone; the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import SPECS

STAGES = ("teacher", "student", "dpo", "reflection", "interaction", "sft", "evaluate")
PATIENCE_SECONDS = 240


def journal(runs_dir: Path) -> list[dict[str, object]]:
    path = runs_dir / "pirate-smoke" / "1" / "journal.jsonl"
    if not path.exists():
        return []
    # What follows the last line break is still being written.
    return [json.loads(line) for line in path.read_text().rpartition("\n")[0].splitlines()]


def started(runs_dir: Path, stage: str, after: int) -> bool:
    return any(e["event"] == "stage_started" and e["stage"] == stage for e in journal(runs_dir)[after:])


def stored_rows(runs_dir: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (runs_dir / "store").glob("*/items.jsonl"))


def engines(runs_dir: Path) -> list[int]:
    """Processes whose environment or files belong to this test's engine: children of none, named by module."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes().split(b"\0")
                log = os.readlink(folder / "fd" / "2")
            except OSError:
                continue
            if b"charrun.engine" in command and log.startswith(str(runs_dir)):
                found.append(int(folder.name))
    return found


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc to see whether the engine is gone")
@pytest.mark.slow
def test_ctrl_c_in_a_stage_keeps_rows_ends_the_engine_and_can_be_continued(tmp_path: Path) -> None:
    kept = 0
    for stage in STAGES:
        seen = len(journal(tmp_path))
        process = subprocess.Popen(
            [sys.executable, "-m", "charrun", str(SPECS / "pirate-smoke.yaml"), "--runs-dir", str(tmp_path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not started(tmp_path, stage, seen) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130, (stage, out, err)
        assert "interrupted" in err and "Traceback" not in out + err
        assert engines(tmp_path) == []
        assert stored_rows(tmp_path) >= kept
        kept = stored_rows(tmp_path)
        assert journal(tmp_path)[-1]["event"] == "run_interrupted"
    done = subprocess.run(
        [sys.executable, "-m", "charrun", str(SPECS / "pirate-smoke.yaml"), "--runs-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    assert "already done" in done.stdout
