"""Does the character hold when a user asks the model to drop it?"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from charrun import Stage, hookimpl
from charrun.plugins import _evaluation as evaluation
from charrun.plugins._rates import ConditionsStage

_NOTE = (
    "Each suffix follows the question; an answer is scored as one to the plain question, with the threshold that plain "
    "questions set. `all` is over the suffixes; its interval counts answers to one question as far as they differ."
)


class RobustnessStage(ConditionsStage):
    """In-character rates of all models where a suffix tells them to drop the act, against no suffix.

    The paper's section on robustness does so with eight adversarial suffixes and a trained classifier; here the
    likelihood ratio of `evaluate` decides, on the same questions with the same seeds, and the base model's rate under
    each suffix stands beside the others. Each kind of suffix is a line `name: text` of the template `robustness`.
    """

    name: ClassVar[str] = "robustness"
    summary: ClassVar[str] = "in character when a suffix says to drop the act? eight kinds, every model"
    title: ClassVar[str] = "In character when asked to drop the act"
    note: ClassVar[str] = _NOTE
    options_schema: ClassVar[dict[str, Any]] = evaluation.options_schema(prompts=40, fewest=10)
    templates: ClassVar[dict[str, Path]] = evaluation.templates("robustness")


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `robustness`."""
    return [RobustnessStage]
