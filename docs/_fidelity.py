"""Writes docs/fidelity.md: the paper's figures, report 007's, and ours: `python docs/_fidelity.py`. A test holds it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charrun.commands.loading import stage_infos
from charrun.plugin_manager import Registry, load_registry
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
    """

    what: str
    paper: str
    report: str
    at: tuple[str, str] | None = None
    ours: str = ""
    preset: str = ""


FIGURES: dict[str, tuple[Figure, ...]] = {
    "Constitution and prompts": (
        Figure("traits x seed questions", "10 x 5 (one of 15)", "7 to 11 lines, no questions", ours="7 to 9 x 5"),
        Figure("questions a trait after expansion", "50", "-", ("expand", "per_trait")),
        Figure("words shared with a kept question, at most", "50%", "-", ours="50%", preset="50%"),
        Figure("general prompts", "1,330 of LIMA", "576,576 by templates", ours="2,000 of its own", preset="the same"),
        Figure("preference pairs", "9,150: 5 of 1,830 prompts", "250 to 750", ours="the scale's", preset="9,150"),
    ),
    "Teacher and student": (
        Figure("temperature", "0.7", "0.7", ("teacher", "temperature")),
        Figure("top_p", "0.95", "0.95", ("teacher", "top_p")),
        Figure("longest answer, tokens", "4,096", "512", ("teacher", "max_tokens")),
        Figure("system prompt of the student", "none", "one line, in raw text", ours="none", preset="none"),
        Figure("longest pair, tokens with template", "1,024", "4,096", ("pairs", "max_length")),
    ),
    "DPO": (
        Figure("beta", "0.1", "0.1", ("dpo", "beta")),
        Figure("coefficient of the chosen answer's NLL", "0.1", "0.1", ("dpo", "nll_coefficient")),
        Figure("coefficient of the mean squared log-prob difference", "0.001", "-", ("dpo", "kl_coefficient")),
        Figure("learning rate", "5e-5", "1e-4", ("dpo", "learning_rate")),
        Figure("schedule", "cosine", "constant", ("dpo", "lr_schedule")),
        Figure("lowest rate, share of the highest", "0.1", "-", ("dpo", "min_lr_ratio")),
        Figure("warm-up, share of the steps", "0.1", "0", ("dpo", "warmup_ratio")),
        Figure("batch", "32", "16", ("dpo", "batch_size")),
        Figure("Adam's beta1", "0.9", "0.9", ("dpo", "beta1")),
        Figure("Adam's beta2", "0.98", "0.95", ("dpo", "beta2")),
        Figure("Adam's epsilon", "1e-8", "1e-12", ("dpo", "eps")),
        Figure("largest gradient norm", "1.0", "0 (none)", ("dpo", "grad_clip_norm")),
        Figure("LoRA rank", "64", "64", ("dpo", "lora_rank")),
        Figure("epochs", "1", "1", ours="1", preset="1"),
    ),
    "Introspection": (
        Figure("kinds of reflection", "10", "10", ours="10", preset="10"),
        Figure("reflections", "10,000", "1,500, 3,000, 6,000", ours="the scale's", preset="`paper`"),
        Figure("longest reflection, tokens", "2,048", "768", ("reflection", "max_tokens")),
        Figure("conversations x messages", "2,000 x 10", "150 x 8 to 600 x 10", ours="the scale's", preset="`paper`"),
        Figure("share of guided conversations", "one half", "one half", ("interaction", "guided_share")),
        Figure("longest message, tokens", "1,024", "768", ("interaction", "max_tokens")),
    ),
    "SFT": (
        Figure("from", "the distilled model", "the DPO checkpoint", ("sft", "start")),
        Figure("learning rate", "5e-5", "2.5e-5 (0.25 x DPO's)", ("sft", "learning_rate")),
        Figure("schedule", "cosine", "constant", ("sft", "lr_schedule")),
        Figure("lowest rate, share of the highest", "0.1", "-", ("sft", "min_lr_ratio")),
        Figure("warm-up, share of the steps", "0.1", "0", ("sft", "warmup_ratio")),
        Figure("batch", "32", "16", ("sft", "batch_size")),
        Figure("Adam's beta2", "0.98", "0.95", ("sft", "beta2")),
        Figure("largest gradient norm", "1.0", "0 (none)", ("sft", "grad_clip_norm")),
        Figure("longest row, tokens", "3,072", "4,096", ("sft", "max_length")),
    ),
}  # fmt: skip


def page() -> str:
    """The page's text."""
    registry = load_registry(third_party=False)
    preset = load_preset(shipped_presets()["paper"], stage_infos(registry))
    parts = []
    for title, figures in FIGURES.items():
        parts.append(f"## {title}\n\n| | paper | report 007 | default | preset paper |\n|---|---|---|---|---|\n")
        parts += [_line(figure, registry, preset) for figure in figures]
        parts.append("\n")
    return TEMPLATE.read_text(encoding="utf-8").replace("{{ tables }}\n", "".join(parts))


def _line(figure: Figure, registry: Registry, preset: Any) -> str:
    if figure.at is None:
        return f"| {figure.what} | {figure.paper} | {figure.report} | {figure.ours} | {figure.preset or '-'} |\n"
    stage, option = figure.at
    default = registry.stages[stage].options_schema["properties"][option].get("default")
    given = preset.get(stage, {}).get(option, default)
    name = f"{figure.what} (`{stage}.{option}`)"
    return f"| {name} | {figure.paper} | {figure.report} | {_told(default)} | {_told(given)} |\n"


def _told(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else json.dumps(value).strip('"')


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
