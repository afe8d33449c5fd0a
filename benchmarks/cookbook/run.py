"""tinker-cookbook's own training loops, unmodified, against a local engine: does each learn?

    python benchmarks/cookbook/run.py [--only PROGRAM ...] [--loss ppo] [--keep FOLDER] [--environment FOLDER]

Makes an environment with the cookbook from the package index (once), the data, an engine that serves the demo
models under their folders, and runs each program there. Prints a table; ends with 1 where a program fails or does not
learn. Nothing but the package index is contacted, and the cookbook's code is called as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import data
from safetensors.torch import load_file, save_file

from charrun.demo import MODELS
from charrun.engine.process import EngineProcess

COOKBOOK = ("tinker-cookbook==0.5.8", "tinker>=0.38,<0.39", "peft>=0.18")
PROGRAMS = ("rendering", "supervised", "preference", "reinforcement", "distillation", "resume", "exporting")
TIMEOUT = 600.0
HERE = Path(__file__).resolve().parent


def main() -> int:
    """Runs the programs and prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PROGRAMS, default=PROGRAMS, metavar="PROGRAM")
    parser.add_argument("--loss", default="importance_sampling", help="the loss of reinforcement, such as ppo")
    parser.add_argument("--keep", type=Path, help="work there and leave everything, logs too")
    parser.add_argument("--environment", type=Path, default=default_environment(), help="the cookbook's environment")
    options = parser.parse_args()
    python = environment(options.environment)
    with ExitStack() as stack:
        work = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        data.write(work / "data")
        models = {**MODELS, "untied": untied(MODELS["charrun/demo-student"], work / "demo-student-untied")}
        engine = EngineProcess.start(models, work / "storage", log=work / "engine.log")
        stack.enter_context(engine)
        folders = {name: str(folder.resolve()) for name, folder in models.items()}
        rows = [row for name in options.only for row in run(name, python, work, engine, folders, options.loss)]
    print(table(rows))
    return 0 if all(row["passed"] for row in rows) else 1


def default_environment() -> Path:
    """In the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "charrun" / COOKBOOK[0].replace("==", "-")


def environment(folder: Path) -> Path:
    """The python of an environment with the cookbook, made where it is not there yet."""
    python, done = folder / "bin" / "python", folder / "charrun-complete"
    if not done.exists():
        print(f"installing {', '.join(COOKBOOK)} into {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *COOKBOOK], check=True, stdout=sys.stderr)
        done.touch()
    return python


def untied(source: Path, folder: Path) -> Path:
    """A copy of a model whose output layer is a matrix of its own, with the same values."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    tensors = load_file(str(source / "model.safetensors"))
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    described = json.loads((source / "config.json").read_text()) | {
        "tie_word_embeddings": False,
        "architectures": ["Qwen3ForCausalLM"],
    }
    (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n")
    return folder


def run(
    name: str, python: Path, work: Path, engine: EngineProcess, folders: Mapping[str, str], loss: str
) -> list[dict[str, Any]]:
    """One program's figures, or one row that says that it failed."""
    out = work / name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    options = {
        "--model": folders["charrun/demo-student"],
        "--teacher": folders["charrun/demo-teacher"],
        "--untied": folders["untied"],
        "--data": str(work / "data"),
        "--out": str(out),
        "--loss": loss,
    }
    command = [str(python), str(HERE / f"{name}.py"), *(part for option in options.items() for part in option)]
    started = time.monotonic()
    with (out / "log").open("wb") as log:
        code = _wait(command, log.fileno(), client_environment(engine, work))
    seconds = time.monotonic() - started
    if code:
        lines = (out / "log").read_text(errors="replace").splitlines()
        print("\n".join([f"{name} ended with {code}:", *lines[-15:]]), file=sys.stderr)
        nothing = {"measure": "failed", "first": None, "last": None, "steps": 0, "passed": False}
        return [{**nothing, "program": name, "seconds": seconds, "note": lines[-1] if lines else ""}]
    figures: list[dict[str, Any]] = json.loads((out / "figures.json").read_text())
    return [{"program": name, "seconds": seconds, **each} for each in figures]


def _wait(command: list[str], log: int, env: Mapping[str, str]) -> int:
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, timeout=TIMEOUT
        ).returncode
    except subprocess.TimeoutExpired:
        return -1


def client_environment(engine: EngineProcess, work: Path) -> dict[str, str]:
    """All that a Tinker program needs to use the engine instead of the hosted service, and no hub."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TINKER_", "PYTHON", "HF_"))}
    return kept | {
        "TINKER_BASE_URL": engine.base_url,
        "TINKER_API_KEY": engine.api_key,
        "TINKER_TELEMETRY": "0",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(work / "hf"),
        "HOME": str(work),
        "OMP_WAIT_POLICY": "passive",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore::FutureWarning",  # the cookbook calls the SDK's older names
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a markdown table; a program's seconds are those of its whole process."""
    lines = ["| program | measured | first | last | steps | seconds | | |", "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        first, last = ("-" if row[end] is None else f"{row[end]:.4g}" for end in ("first", "last"))
        verdict = "ok" if row["passed"] else "**no**"
        lines.append(
            f"| {row['program']} | {row['measure']} | {first} | {last} | {row['steps'] or '-'} | {row['seconds']:.0f} "
            f"| {verdict} | {row['note']} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
