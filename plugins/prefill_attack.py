"""Does the character hold when the model's turn begins out of character?"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from charrun import Stage, hookimpl, user
from charrun.plugins import _evaluation as evaluation
from charrun.plugins._rates import ConditionsStage

_NOTE = (
    "The model's own turn begins with these words; what follows them is scored as an answer to the plain question, "
    "with the threshold that plain questions set."
)


class PrefillAttackStage(ConditionsStage):
    """In-character rates of what models say after a neutral beginning of their own turn.

    Another attack than the paper's of that name, which is the stage `second_turn`. Each beginning is a line
    `name: text` of the template `prefill_attack`.
    """

    name: ClassVar[str] = "prefill_attack"
    summary: ClassVar[str] = "in character after a neutral beginning that is put into the model's own turn?"
    title: ClassVar[str] = "In character after a neutral beginning of the model's own turn"
    note: ClassVar[str] = _NOTE
    options_schema: ClassVar[dict[str, Any]] = evaluation.options_schema(prompts=60, fewest=10)
    templates: ClassVar[dict[str, Path]] = evaluation.templates("prefill_attack")

    def asked(self, question: str, text: str) -> evaluation.Asked:
        """The question, and how the answer to it begins."""
        return evaluation.Asked(question, (user(question),), prefill=text)


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `prefill_attack`."""
    return [PrefillAttackStage]
