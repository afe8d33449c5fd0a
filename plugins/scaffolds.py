"""Does the character hold where the same task comes in the clothes of other work?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Message, Stage, hookimpl, system, user
from charrun.plugins import _evaluation as evaluation
from charrun.plugins._lines import TAKEN
from charrun.plugins._rates import Conditions, ConditionsStage

if TYPE_CHECKING:
    from charrun import StageContext

_HEAD = re.compile(r"^==\s*(?P<name>[^,\n]+?)(?P<system>,\s*system)?\s*$", re.MULTILINE)
_NOTE = (
    "The same questions within other kinds of work; an answer is scored as one to the plain question, with the "
    "threshold that plain questions set. `all` is over the scaffolds; its interval counts answers to one question as "
    "far as they differ."
)


class ScaffoldsStage(ConditionsStage):
    """In-character rates by scaffold: a tool call, an e-mail, a code review, and more, around held-out questions.

    Training prompts are bare questions, so these are out of distribution; others found that a trained character is
    weaker there. Each scaffold is a part `== name` of the template `scaffolds`, which is the user's message with
    `{{ question }}` in it, and may have a part `== name, system` before it.
    """

    name: ClassVar[str] = "scaffolds"
    summary: ClassVar[str] = "in character within a tool call, an e-mail, a code review, minutes, a ticket, a form?"
    title: ClassVar[str] = "In character within other kinds of work"
    note: ClassVar[str] = _NOTE
    options_schema: ClassVar[dict[str, Any]] = evaluation.options_schema(prompts=40, fewest=10)
    templates: ClassVar[dict[str, Path]] = evaluation.templates("scaffolds")

    def template_problems(self, ctx: StageContext) -> list[str]:
        """No scaffolds, or some that hold no question."""
        mark = "a question that stands in no template"
        scaffolds = parse_scaffolds(ctx.render("scaffolds", question=mark))
        found = [] if scaffolds else ["template 'scaffolds' has no part that begins with a line `== name`"]
        for name, messages in scaffolds.items():
            if messages[-1]["role"] != "user" or mark not in messages[-1]["content"]:
                found.append(f"template 'scaffolds': the message of '{name}' does not hold the question")
            if name in TAKEN:
                found.append(f"template 'scaffolds': no scaffold can be called '{name}'")
        return found

    def names(self, ctx: StageContext) -> list[str]:
        """The scaffolds' names."""
        return list(parse_scaffolds(ctx.render("scaffolds", question="?")))

    async def conditions(self, ctx: StageContext, questions: list[str], base: evaluation.Model) -> Conditions:
        """Each question in each scaffold."""
        shown = [parse_scaffolds(ctx.render("scaffolds", question=question)) for question in questions]
        return {
            name: [evaluation.Asked(question, each[name]) for question, each in zip(questions, shown, strict=True)]
            for name in self.names(ctx)
        }


def parse_scaffolds(text: str) -> dict[str, tuple[Message, ...]]:
    """The messages of each scaffold by name: parts `== name` and `== name, system` of a text."""
    heads = list(_HEAD.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    found: dict[str, tuple[Message, ...]] = {}
    for head, end in zip(heads, ends, strict=True):
        said = text[head.end() : end].strip()
        message = system(said) if head["system"] else user(said)
        found[head["name"]] = (*found.get(head["name"], ()), message)
    return found


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `scaffolds`."""
    return [ScaffoldsStage]
