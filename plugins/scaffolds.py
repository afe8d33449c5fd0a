"""Does the character hold where the same task comes in the clothes of other work?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Estimate, Message, Stage, hookimpl, system, user
from charrun.plugins import _evaluation as evaluation
from charrun.plugins._lines import TAKEN
from charrun.plugins._rates import PLAIN, Conditions, answer_rows, by_condition, measure, requests, table

if TYPE_CHECKING:
    from charrun import StageContext

_HEAD = re.compile(r"^==\s*(?P<name>[^,\n]+?)(?P<system>,\s*system)?\s*$", re.MULTILINE)
_NOTE = (
    "The same questions within other kinds of work; an answer is scored as one to the plain question, with the "
    "threshold that plain questions set. `all` is over the scaffolds; its interval counts answers to one question as "
    "far as they differ."
)


class ScaffoldsStage(Stage):
    """In-character rates by scaffold: a tool call, an e-mail, a code review, and more, around held-out questions.

    Training prompts are bare questions, so these are out of distribution; others found that a trained character is
    weaker there. Each scaffold is a part `== name` of the template `scaffolds`, which is the user's message with
    `{{ question }}` in it, and may have a part `== name, system` before it.
    """

    name: ClassVar[str] = "scaffolds"
    summary: ClassVar[str] = "in character within a tool call, an e-mail, a code review, minutes, a ticket, a form?"
    consumes: ClassVar[tuple[str, ...]] = evaluation.CONSUMES
    instead: ClassVar[Mapping[str, str]] = evaluation.INSTEAD
    optional: ClassVar[tuple[str, ...]] = evaluation.OPTIONAL
    produces: ClassVar[tuple[str, ...]] = ("measurements",)
    roles: ClassVar[tuple[str, ...]] = evaluation.ROLES
    scores: ClassVar[tuple[str, ...]] = evaluation.SCORES
    options_schema: ClassVar[dict[str, Any]] = evaluation.options_schema(prompts=40, fewest=10)
    templates: ClassVar[dict[str, Path]] = {
        name: evaluation.TEMPLATES / f"{name}.j2" for name in ("character", "scaffolds")
    }

    def estimate(self, ctx: StageContext) -> Estimate:
        """The plain question and each scaffold."""
        return requests(ctx, 1 + len(parse_scaffolds(ctx.render("scaffolds", question="?"))))

    def problems(self, ctx: StageContext) -> list[str]:
        """What stands in the way of an evaluation, or a template without scaffolds around a question."""
        mark = "a question that stands in no template"
        scaffolds = parse_scaffolds(ctx.render("scaffolds", question=mark))
        found = [] if scaffolds else ["template 'scaffolds' has no part that begins with a line `== name`"]
        for name, messages in scaffolds.items():
            if messages[-1]["role"] != "user" or mark not in messages[-1]["content"]:
                found.append(f"template 'scaffolds': the message of '{name}' does not hold the question")
            if name in TAKEN:
                found.append(f"template 'scaffolds': no scaffold can be called '{name}'")
        return evaluation.problems(ctx) + found

    def further_inputs(self, ctx: StageContext) -> Any:
        """As every evaluation."""
        return evaluation.further_inputs(ctx)

    async def run(self, ctx: StageContext) -> None:
        """Put each question into each scaffold, score, compare."""
        names = list(parse_scaffolds(ctx.render("scaffolds", question="?")))

        async def conditions(questions: list[str], base: evaluation.Model) -> Conditions:
            shown = [parse_scaffolds(ctx.render("scaffolds", question=question)) for question in questions]
            asked = {PLAIN: evaluation.plainly(questions)}
            for name in names:
                asked[name] = [
                    evaluation.Asked(question, each[name]) for question, each in zip(questions, shown, strict=True)
                ]
            return asked

        found = await measure(ctx, conditions, units=1 + len(names))
        rows, differences = by_condition(found, PLAIN)
        ctx.write("answers.jsonl", answer_rows(found))
        title = "In character within other kinds of work"
        ctx.publish("measurements", [table(self.name, title, found, rows, differences, _NOTE)])


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
