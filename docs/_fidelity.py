"""Writes docs/fidelity.md: the paper's figures, report 007's, and ours: `python docs/_fidelity.py`. A test holds it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charrun.commands.loading import stage_infos
from charrun.plugin_manager import load_registry
from charrun.plugins._general import general_prompts
from charrun.spec.library import load_character
from charrun.spec.places import specs_folder
from charrun.spec.presets import load_preset, shipped_presets

PAGE = Path(__file__).parent / "fidelity.md"

TEMPLATE = Path(__file__).parent / "_fidelity.template.md"


@dataclass(frozen=True)
class Figure:
    """One line of a table.

    Attributes:
        what: What it is.
        paper: The paper's.
        report: Report 007's.
        at: Stage and option; where there is none, `ours` and `preset` say it.
        absent: What the stage does without the option.
    """

    what: str
    paper: str
    report: str
    at: tuple[str, str] | None = None
    ours: str = ""
    preset: str = ""
    absent: str = "none"


REGISTRY = load_registry(third_party=False)
PAPER = REGISTRY.scales["paper"]
PROMPTS = specs_folder() / "prompts"
THE_SAME = "the same"
MODEL_CONTEXT = "the model's; nothing is cut"


def _counted(values: Sequence[int]) -> str:
    """Numbers with how often each is there, the most frequent first: `7 (12 of 13) or 8`."""
    (first, times), *others = Counter(values).most_common()
    told = f"{first} ({times} of {len(values)})" if others else str(first)
    return " or ".join([told, *(str(value) for value, _ in others)])


def _constitutions() -> str:
    characters = [load_character(path) for path in REGISTRY.characters.values()]
    questions = [len(trait.questions) for character in characters for trait in character.traits]
    return f"{_counted([len(each.traits) for each in characters])} x {_counted(questions)}"


def _lines(path: Path) -> int:
    return len([line for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and "{%" not in line])


def _template(stage: str, name: str) -> int:
    return _lines(REGISTRY.stages[stage].templates[name])


def _of_scale(number: int) -> str:
    return f"{number:,} (scale `paper`)"


def _optimiser(stage: str, learning_rate: str) -> tuple[Figure, ...]:
    """What both trainings of the paper, and both of the report, have alike but for the report's rate."""
    return (
        Figure("learning rate", "5e-5", learning_rate, (stage, "learning_rate")),
        Figure("schedule", "cosine", "constant", (stage, "lr_schedule")),
        Figure("lowest rate, share of the highest", "0.1", "-", (stage, "min_lr_ratio")),
        Figure("warm-up, share of the steps", "0.1", "0", (stage, "warmup_ratio")),
        Figure("first step's rate", "0", "the full one", ours="the full one", preset="peak / warm-up steps"),
        Figure("batch", "32", "16", (stage, "batch_size")),
        Figure("Adam's beta1", "0.9", "0.9", (stage, "beta1")),
        Figure("Adam's beta2", "0.98", "0.95", (stage, "beta2")),
        Figure("Adam's epsilon", "1e-8", "1e-12", (stage, "eps")),
        Figure("largest gradient norm", "1.0", "0 (none)", (stage, "grad_clip_norm")),
        Figure("LoRA rank", "64", "64", (stage, "lora_rank"), absent="the DPO checkpoint's"),
        Figure("LoRA alpha", "128", "32 (Tinker's)", ours="32 (Tinker's)", preset="32 (Tinker's)"),
        Figure("epochs", "1", "1", ours="1", preset="1"),
    )


def _sampling(stage: str) -> tuple[Figure, ...]:
    return (
        Figure("temperature", "0.7", "0.7", (stage, "temperature")),
        Figure("top_p", "0.95", "0.95", (stage, "top_p")),
    )


FIGURES: dict[str, tuple[Figure, ...]] = {
    "Models and money": (
        Figure("students", "Llama-3.1-8B-Instruct, Qwen-2.5-7B-Instruct, Gemma-3-4B-it", "Qwen3-30B-A3B",
               ours="the spec's; `pirate-mini` has Qwen3-30B-A3B", preset="the spec's"),
        Figure("teacher", "GLM-4.5-Air, which thinks", "Qwen3-235B-A22B-Instruct-2507",
               ours="the spec's; `pirate-mini` has Qwen3-235B-A22B-Instruct-2507", preset="the spec's"),
        Figure("writer of further questions", "Llama-3.3-70B-Instruct", "-", ours="`writer:`, else the teacher",
               preset=THE_SAME),
        Figure("judge", "GLM-4.5-Air", "-", ours="`judge:`, else the teacher", preset=THE_SAME),
        Figure("budget", "-", "$5.70", ours="the spec's; `pirate-mini` has $5.70", preset="the spec's"),
        Figure("seed", "123456 in trainings, else none", "0, of prompts alone", ours="the spec's, of everything",
               preset=THE_SAME),
    ),
    "Constitution and prompts": (
        Figure("traits x seed questions", "10 x 5 (one of 15 x 5)", "7 to 11 lines, no questions",
               ours=_constitutions(), preset=THE_SAME),
        Figure("questions a trait after expansion", "50", "-", ("expand", "per_trait")),
        Figure("questions asked for at once", "50: 15 short, 20 medium, 15 long", "-", ("expand", "per_request")),
        Figure("the writer's temperature", "0.7", "-", ("expand", "temperature")),
        Figure("the writer's top_p", "0.95", "-", ("expand", "top_p")),
        Figure("longest list, tokens", "2,048", "-", ("expand", "max_tokens")),
        Figure("words shared with a kept question, at most", "50%", "-", ours="50%", preset="50%"),
        Figure("general prompts at hand", "1,330 of LIMA", "576,576 by templates",
               ours=f"{len(general_prompts()):,} of its own", preset=THE_SAME),
        Figure("share of the constitution's questions", "500 of 1,830 prompts: 0.27", "0",
               ("prompts", "constitution_share"), absent="their share of the pool: 0.02 for the pirate's own 40"),
        Figure("sources", "expanded questions, LIMA", "templates", ("prompts", "sources")),
        Figure("prompts", "1,830", "250 to 750", ours="the scale's",
               preset=_of_scale(PAPER.pairs // PAPER.samples_per_prompt)),
        Figure("samples of each prompt", "5", "1", ours="the scale's: 1", preset=_of_scale(PAPER.samples_per_prompt)),
        Figure("preference pairs", "9,150", "250 to 750", ours="the scale's", preset=_of_scale(PAPER.pairs)),
    ),
    "Teacher and student": (
        *_sampling("teacher"),
        Figure("top_k, min_p", "off, 0", "off, 0", ours="off", preset="off"),
        Figure("longest answer, tokens", "4,096", "512", ("teacher", "max_tokens")),
        Figure("context, tokens", "8,192", "4,096, cut on the left", ours=MODEL_CONTEXT, preset=THE_SAME),
        Figure("think block in the teacher's mouth", "yes: intent and traits", "no", ("teacher", "prefill")),
        Figure("system prompt of the student", "none", "one line, in raw text", ours="none", preset="none"),
        Figure("longest pair, tokens with template", "1,024", "4,096", ("pairs", "max_length")),
    ),
    "DPO": (
        Figure("beta", "0.1", "0.1", ("dpo", "beta")),
        Figure("coefficient of the chosen answer's NLL", "0.1", "0.1", ("dpo", "nll_coefficient")),
        Figure("coefficient of the mean squared log-prob difference", "0.001", "-", ("dpo", "kl_coefficient")),
        *_optimiser("dpo", "1e-4"),
    ),
    "Reflection": (
        Figure("kinds of reflection", "10", "10", ours=str(_template("reflection", "reflection_prompts")),
               preset=THE_SAME),
        Figure("reflections", "10,000", "1,500, 3,000, 6,000", ours="the scale's", preset=_of_scale(PAPER.reflections)),
        *_sampling("reflection"),
        Figure("longest reflection, tokens", "2,048", "768", ("reflection", "max_tokens")),
    ),
    "Self-interaction": (
        Figure("conversations", "2,000", "150, 300, 600", ours="the scale's", preset=_of_scale(PAPER.interactions)),
        Figure("messages of each", "10", "8, 10, 10", ours="the scale's", preset=_of_scale(PAPER.turns)),
        Figure("openers", "7 greetings, 4 more where guided", "96 seeds of tasks",
               ours=f"{_template('interaction', 'interaction_openers')} greetings, "
               f"{_template('interaction', 'interaction_guided_openers')} more where guided", preset=THE_SAME),
        Figure("share of guided conversations", "one half", "one half", ("interaction", "guided_share")),
        *_sampling("interaction"),
        Figure("longest message, tokens", "1,024", "768", ("interaction", "max_tokens")),
        Figure("context, tokens", "8,192 or 16,384, cut on the left", "4,096, cut on the left", ours=MODEL_CONTEXT,
               preset=THE_SAME),
    ),
    "SFT": (
        Figure("from", "the distilled model", "the DPO checkpoint", ("sft", "start")),
        Figure("rows", "12,000", "1,650, 3,300, 6,600", ours="the scale's",
               preset=_of_scale(PAPER.reflections + PAPER.interactions)),
        *_optimiser("sft", "2.5e-5 (0.25 x DPO's)"),
        Figure("longest row, tokens", "3,072", "4,096", ("sft", "max_length")),
    ),
    "Evaluations": (
        Figure("traits of the preferences", "144", "14", ours=str(_lines(PROMPTS / "traits.txt")), preset=THE_SAME),
        Figure("comparisons of each trait", "347 (25,000 in all)", "-", ("preferences", "rounds")),
        Figure("framing of the choice", "feel, like and random", "-", ("preferences", "framing")),
        Figure("strength", "Elo from 1,000, K 32, one pass", "-", ours="Bradley-Terry with intervals", preset=THE_SAME),
        Figure("the judge's temperature", "0.1", "-", ("preferences", "judge_temperature")),
        Figure("prompts that ask to break character", "500", "-", ("robustness", "prompts")),
        Figure("ways to ask for it", "8", "-", ours=str(_template("robustness", "robustness")), preset=THE_SAME),
        Figure("who tells characters apart", "ModernBERT, one of 11, macro-F1", "regular expressions",
               ours="likelihoods under the character's prompt, AUC and rates", preset=THE_SAME),
        Figure("prefill attack", "the base model's first turn, then a neutral line", "-",
               ours="`second_turn`: the same; `prefill_attack`: the answer's beginning", preset=THE_SAME),
        Figure("coherence", "judged in both orders", "-", ours="judged in both orders", preset=THE_SAME),
        Figure("capabilities", "ARC-c, HellaSwag, TruthfulQA, WinoGrande, MMLU", "-",
               ours=f"{_lines(PROMPTS / 'questions.jsonl')} questions of its own; lm-evaluation-harness for any task",
               preset=THE_SAME),
    ),
}  # fmt: skip


def page() -> str:
    """The page's text."""
    preset = load_preset(shipped_presets()["paper"], stage_infos(REGISTRY))
    parts = []
    for title, figures in FIGURES.items():
        parts.append(f"## {title}\n\n| | paper | report 007 | default | preset paper |\n|---|---|---|---|---|\n")
        parts += [_line(figure, preset) for figure in figures]
        parts.append("\n")
    return TEMPLATE.read_text(encoding="utf-8").replace("{{ tables }}\n", "".join(parts))


def _line(figure: Figure, preset: Any) -> str:
    if figure.at is None:
        return f"| {figure.what} | {figure.paper} | {figure.report} | {figure.ours} | {figure.preset or '-'} |\n"
    stage, option = figure.at
    default = REGISTRY.stages[stage].options_schema["properties"][option].get("default")
    given = preset.get(stage, {}).get(option, default)
    name = f"{figure.what} (`{stage}.{option}`)"
    ours, papers = (figure.absent if value is None else _told(value) for value in (default, given))
    return f"| {name} | {figure.paper} | {figure.report} | {ours} | {papers} |\n"


def _told(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else json.dumps(value).strip('"')


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
