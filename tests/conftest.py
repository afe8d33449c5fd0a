"""One engine and one smoke run for the whole session, and an environment in which nothing can spend money."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

if TYPE_CHECKING:
    import httpx
    import tinker
    from faults.proxy import Proxy

REPOSITORY = Path(__file__).parent.parent
SPECS = REPOSITORY / "specs"

for _name in [name for name in os.environ if name.startswith("TINKER_")]:
    del os.environ[_name]
os.environ["TINKER_TELEMETRY"] = "0"
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session", autouse=True)
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HOME without a stored login."""
    home = tmp_path_factory.mktemp("home")
    os.environ["HOME"] = str(home)
    return home


@dataclass(frozen=True)
class Outcome:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


def charrun(*args: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> Outcome:
    """Run the command line in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "charrun", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class FinishedRun:
    """A smoke run that the command line made."""

    runs_dir: Path
    outcome: Outcome

    @property
    def folder(self) -> Path:
        return self.runs_dir / "pirate-smoke" / "1"

    @property
    def events(self) -> list[dict[str, Any]]:
        events = [json.loads(line) for line in (self.folder / "journal.jsonl").read_text().splitlines()]
        return [{name: value for name, value in event.items() if name != "sum"} for event in events]

    def stage_folder(self, id: str) -> Path:
        cell = json.loads(next(self.folder.glob("cell-*.json")).read_text())
        return self.runs_dir / next(stage["folder"] for stage in cell["stages"] if stage["id"] == id)

    def rows(self, id: str, kind: str) -> list[dict[str, Any]]:
        """Published rows of a stage."""
        (path,) = self.stage_folder(id).glob(f"{kind}-*.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """`charrun specs/pirate-smoke.yaml`, run once for all workers, each of which has a copy of its own."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished"
    told = shared / "outcome.json"
    with FileLock(f"{shared}.lock"):
        if not told.exists():
            outcome = charrun(SPECS / "pirate-smoke.yaml", "--runs-dir", shared / "smoke")
            assert outcome.code == 0, outcome.text
            told.write_text(json.dumps(asdict(outcome)))
    runs_dir = Path(shutil.copytree(shared / "smoke", base / "smoke"))
    kept = json.loads(told.read_text())
    out, err = (kept[name].replace(str(shared), str(base)) for name in ("out", "err"))
    return FinishedRun(runs_dir, Outcome(kept["code"], out, err))


@dataclass(frozen=True)
class RunningEngine:
    """A local engine that serves the demo models."""

    base_url: str
    api_key: str
    storage: Path = Path()

    @property
    def address(self) -> dict[str, str]:
        return {"base_url": self.base_url, "api_key": self.api_key}


@pytest.fixture(scope="session")
def demo_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    """One engine process for all tests that talk to an engine themselves."""
    from charrun.demo import MODELS
    from charrun.engine.process import EngineProcess

    folder = tmp_path_factory.mktemp("engine")
    with EngineProcess.start(MODELS, folder / "storage", log=folder / "engine.log") as process:
        yield RunningEngine(process.base_url, process.api_key, folder / "storage")


@pytest.fixture(scope="module")
def service(demo_engine: RunningEngine) -> Iterator[tinker.ServiceClient]:
    """The SDK's client of the shared engine."""
    import tinker

    with tinker.ServiceClient(**demo_engine.address) as client:
        yield client


@pytest.fixture(scope="module")
def http(demo_engine: RunningEngine) -> Iterator[httpx.Client]:
    """A client of the shared engine that speaks HTTP alone."""
    import httpx

    headers = {"X-API-Key": demo_engine.api_key}
    with httpx.Client(base_url=demo_engine.base_url, headers=headers, timeout=60) as client:
        yield client


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Wait until something holds, looking often; a test fails that waits for too long."""

    def wait(holds: Callable[[], bool], seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, "it never came to hold"
            time.sleep(0.005)

    return wait


@pytest.fixture(scope="module")
def proxy(demo_engine: RunningEngine) -> Iterator[Proxy]:
    """A proxy before the shared engine that injects faults."""
    from faults.proxy import Proxy

    with Proxy(demo_engine.base_url) as running:
        yield running


@pytest.fixture
def sampled(tmp_path: Path) -> Path:
    """A spec that samples a little."""
    from small_runs import SAMPLED

    path = tmp_path / "tiny.yaml"
    path.write_text(SAMPLED)
    return path


@pytest.fixture
def offline(tmp_path: Path) -> Path:
    """A spec whose stages need no engine."""
    from small_runs import OFFLINE, STAGES

    (tmp_path / "stages.py").write_text(STAGES)
    path = tmp_path / "offline.yaml"
    path.write_text(OFFLINE.format(characters="pirate"))
    return path
