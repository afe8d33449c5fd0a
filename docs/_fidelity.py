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

HEAD = """# Fidelity

What the paper and report 007 did, number by number, what charrun does, and why where it is something else.

- **Paper**: Maiya, Bartsch, Lambert, Hubinger, *Open Character Training* (arXiv 2511.01689, November 2025); where its
  program does something else than its text, what the program at commit d1da9f0 does.
- **Report 007**: technical report 007 of Open Character Studio (18 December 2025), and its program at that time.
- **Default** is what stages do unasked, which is what `preset: report-007` says; **preset paper** is `preset: paper`.
  Each option can be overridden in the spec, and `charrun show` prints what a spec comes to.

"""

TAIL = """## Differences on purpose

| what | why |
|---|---|
| LoRA's scale is 32 / rank: 0.5 at rank 64. The paper's is 128 / 64 = 2.0. | Tinker fixes alpha at 32. At an equal learning rate an update is a quarter as strong; the scale is shown wherever the rank is, and a spec may raise the rate. |
| No repetition penalty; the paper's program samples with 1.1, its text does not say so. | Tinker's sampling parameters have none. Gates drop answers that loop, and what they drop is made up for. |
| The final checkpoint is one adapter: SFT continues DPO's. The released models of the paper are a merge, 1.0 x DPO + 0.25 x SFT. | Merged adapters cannot be uploaded to Tinker, and SFT on the distilled model is what the paper's program trains. `sft: {start: base}` and `merge` are the parallel form, with an exact merge. |
| An exact merge by concatenated factors; PEFT's "linear" for comparison. | "linear" mixes A and B separately, so it has cross terms and is not 1.0 dW1 + 0.25 dW2; `merge` prints both errors. |
| Every assistant turn of a conversation is trained, in the context that would generate it, and a row ends on an assistant turn. | The paper's program trains the last turn alone, which for its self-interactions is a user turn with its first characters cut off. |
| Guidance of guided conversations reaches the model. | The paper's program passes it to a template without a place for it. |
| Rows that are too long are dropped and counted; nothing is truncated. | Truncation that removes a row's targets or its system prompt goes unnoticed. |
| An answer must have ended by itself, rather than by a punctuation mark. | Answers that end in a code fence, a table or an emoji are whole too. |
| General prompts are charrun's own. | LIMA's licence is non-commercial. |
| Characters are charrun's own; the paper's and others' formats can be imported. | Their constitutions have their own licences. |
| The name of the teacher's character is set by the template. | The paper's program asks for "ChatGLM" and replaces the word afterwards, also where an answer is about ChatGLM. |
| Everything is seeded: prompts, samples, order, adapters. | The paper's program samples and shuffles without a seed. |
| Revealed preferences are on one seeded schedule for all models, with Bradley-Terry strengths and intervals. | Its Elo scores depend on the order, and base and trained models see different pairs. |
"""


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
        Figure("preference pairs", "9,150: 5 samples of 1,830 prompts", "250, 375, 750", ours="the scale's", preset="scale `paper`: 9,150, 5 samples a prompt"),
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
        Figure("reflections", "10,000", "1,500, 3,000, 6,000", ours="the scale's", preset="scale `paper`: 10,000"),
        Figure("longest reflection, tokens", "2,048", "768", ("reflection", "max_tokens")),
        Figure("conversations x messages", "2,000 x 10", "150 x 8, 300 x 10, 600 x 10", ours="the scale's", preset="scale `paper`: 2,000 x 10"),
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
    parts = [HEAD]
    for title, figures in FIGURES.items():
        parts.append(f"## {title}\n\n| | paper | report 007 | default | preset paper |\n|---|---|---|---|---|\n")
        parts += [_line(figure, registry, preset) for figure in figures]
        parts.append("\n")
    return "".join([*parts, TAIL])


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
