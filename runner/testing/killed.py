"""`python -m charrun.testing.killed`: runs a stage as told on stdin, and kills itself at the moment that is named."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from charrun.stage import Stage
from charrun.testing.engines import RunningEngine
from charrun.testing.running import run_stage


def main() -> None:
    """Do what the order says."""
    order = json.load(sys.stdin)
    seen = 0

    def watch(moment: str) -> None:
        nonlocal seen
        seen += moment == order["moment"]
        if seen >= order["after"]:
            os.kill(os.getpid(), signal.SIGKILL)

    arguments = order["arguments"]
    run_stage(
        _stage(order["module"], Path(order["file"]), order["name"]),
        **{**arguments, "runs_dir": Path(arguments["runs_dir"])},
        engine=RunningEngine(**order["engine"]) if order["engine"] else None,
        watch=watch,
    )


def _stage(module: str, file: Path, name: str) -> type[Stage]:
    """The class by its module's name, or from its file where that name leads elsewhere, as in a test module."""
    try:
        found = getattr(importlib.import_module(module), name)
        if Path(str(sys.modules[module].__file__)).samefile(file):
            return _checked(found)
    except (ImportError, AttributeError):
        pass
    spec = importlib.util.spec_from_file_location(module, file)
    assert spec is not None and spec.loader is not None, f"{file} is no Python module"
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[module] = loaded
    spec.loader.exec_module(loaded)
    return _checked(getattr(loaded, name))


def _checked(found: Any) -> type[Stage]:
    assert isinstance(found, type) and issubclass(found, Stage), f"{found} is no stage"
    return found


if __name__ == "__main__":
    main()
