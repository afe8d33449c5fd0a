"""The demo models: small Qwen3 models in this package, so that a run without downloads means something.

They are pretrained by `charrun.demo.pretrain` on the corpus of `charrun.demo.corpus`; docs/demo-models.md says
how and with which figures. They show the pipeline working, not a model's quality.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent / "models"

MODELS: Final[dict[str, Path]] = {
    "charrun/demo-teacher": _FOLDER / "demo-teacher",
    "charrun/demo-student": _FOLDER / "demo-student",
    "charrun/demo-student-small": _FOLDER / "demo-student-small",
    "charrun/demo-judge": _FOLDER / "demo-judge",
}
"""Model name to the folder with its weights, configuration, tokenizer and chat template."""
