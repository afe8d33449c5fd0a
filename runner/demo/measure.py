"""Measures the demo models on held-out prompts and styles; prints the tables of docs/demo-models.md.

`python -m charrun.demo.measure` prints everything, `--samples pirate` some answers to read.
A score is the teacher's mean per-token log-likelihood ratio of an answer y to a prompt x,
log p(y | constitution, x) - log p(y | x).
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer

from charrun.demo import MODELS
from charrun.demo.corpus import templates
from charrun.demo.habits import FURTHER, HELD_OUT, SHIPPED, constitution

LIMIT: Final = 160
Message = dict[str, str]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Answer:
    """One generated answer.

    Attributes:
        text: Text without special tokens.
        ids: Tokens, with `<|im_end|>` where it ended.
        ended: Whether it ended before the limit.
    """

    text: str
    ids: tuple[int, ...]
    ended: bool


class Model:
    """A demo model with its tokenizer, for sampling and scoring."""

    def __init__(self, folder: Path, thinking: bool) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.net: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
        self._options = {} if thinking else {"enable_thinking": False}
        self._end: int = self.tokenizer.eos_token_id

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of the generation prompt."""
        ids: list[int] = self.tokenizer.apply_chat_template(
            list(messages), tokenize=True, add_generation_prompt=True, return_dict=False, **self._options
        )
        return ids

    @torch.inference_mode()
    def sample(self, talks: Sequence[Sequence[Message]], seed: int, batch: int = 100) -> list[Answer]:
        """One answer to each conversation at temperature 0.7, top_p 0.95, at most `LIMIT` tokens."""
        torch.manual_seed(seed)
        answers: list[Answer] = []
        for start in range(0, len(talks), batch):
            prompts = [self.prompt(talk) for talk in talks[start : start + batch]]
            width = max(map(len, prompts))
            ids = torch.tensor([[self.tokenizer.pad_token_id] * (width - len(p)) + p for p in prompts])
            mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
            out = self.net.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=True,
                temperature=0.7,
                top_p=0.95,
                top_k=0,
                max_new_tokens=LIMIT,
            )
            for row in out[:, width:].tolist():
                ended = self._end in row
                kept = row[: row.index(self._end) + 1] if ended else row
                answers.append(Answer(self.tokenizer.decode(kept, skip_special_tokens=True), tuple(kept), ended))
        return answers

    @torch.inference_mode()
    def mean_logprobs(self, talks: Sequence[Sequence[Message]], answers: Sequence[Answer], batch: int = 50) -> Floats:
        """Mean log-probability per answer token, shape (answers,)."""
        means: list[float] = []
        for start in range(0, len(talks), batch):
            prompts = [self.prompt(talk) for talk in talks[start : start + batch]]
            rows = [p + list(a.ids) for p, a in zip(prompts, answers[start : start + batch], strict=True)]
            width = max(map(len, rows))
            ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
            logs = torch.log_softmax(self.net(input_ids=ids, attention_mask=mask).logits, -1)
            for number, (head, row) in enumerate(zip(prompts, rows, strict=True)):
                picked = logs[number, len(head) - 1 : len(row) - 1].gather(1, ids[number, len(head) : len(row), None])
                means.append(float(picked.mean()))
        return np.array(means)


def auc(positive: Floats, negative: Floats) -> float:
    """Probability that a positive scores higher than a negative, ties counted half."""
    higher = (positive[:, None] > negative[None, :]).mean()
    return float(higher + 0.5 * (positive[:, None] == negative[None, :]).mean())


def evaluation_prompts() -> list[str]:
    """The 200 prompts that nothing was trained on."""
    return files("charrun.specs").joinpath("prompts", "evaluation.txt").read_text(encoding="utf-8").splitlines()


def systems() -> dict[str, str]:
    """System prompt of each shipped character, of `neutral`, and of each held-out style."""
    template = templates(True).get_template("character.j2")
    found: dict[str, str] = {}
    for name in (*SHIPPED, *FURTHER, "neutral"):
        text = files("charrun.specs").joinpath("characters", f"{name}.yaml").read_text(encoding="utf-8")
        sheet = yaml.safe_load(text)
        found[name] = template.render(name=sheet["name"], traits=[item["trait"] for item in sheet["traits"]])
    for name, style in HELD_OUT.items():
        if name not in SHIPPED:
            found[name] = template.render(name="Tessaly", traits=constitution(style, random.Random(name)))
    return found


def _talks(prompts: Sequence[str], system: str | None) -> list[list[Message]]:
    head = [] if system is None else [{"role": "system", "content": system}]
    return [[*head, {"role": "user", "content": prompt}] for prompt in prompts]


def _score(teacher: Model, prompts: Sequence[str], system: str, answers: Sequence[Answer]) -> Floats:
    inside = teacher.mean_logprobs(_talks(prompts, system), answers)
    return inside - teacher.mean_logprobs(_talks(prompts, None), answers)


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells) + " |"


def table_of_characters(teacher: Model, students: dict[str, Model], count: int) -> list[str]:
    """A row per character: AUC, and rates above the threshold that the first half of the prompts gives."""
    prompts = evaluation_prompts()[:count]
    half = len(prompts) // 2
    default = {name: model.sample(_talks(prompts, None), seed=5) for name, model in students.items()}
    first = next(iter(default))
    lines = [
        _row(
            [
                "character",
                "AUC",
                "AUC, student in character",
                "tokens",
                "cut",
                *[f"default in character, {n}" for n in default],
            ]
        )
    ]
    lines.append("|" + "---|" * (5 + len(default)))
    aucs: list[float] = []
    for name, system in systems().items():
        talks = _talks(prompts, system)
        told = teacher.sample(talks, seed=6)
        inside = _score(teacher, prompts, system, told)
        played = _score(teacher, prompts, system, students[first].sample(talks, seed=7))
        outside = {n: _score(teacher, prompts, system, answers) for n, answers in default.items()}
        value = auc(inside, outside[first])
        threshold = _threshold(inside[:half], outside[first][:half])
        rates = [float((scores[half:] > threshold).mean()) for scores in outside.values()]
        tokens = float(np.mean([len(a.ids) for a in told]))
        cut = float(np.mean([not a.ended for a in told]))
        lines.append(_row([name, value, auc(played, outside[first]), f"{tokens:.0f}", cut, *rates]))
        if name != "neutral":
            aucs.append(value)
    return [*lines, "", f"Median AUC over {len(aucs)}: {float(np.median(aucs)):.3f}"]


def _threshold(inside: Floats, outside: Floats) -> float:
    """The score that splits the two best (largest sum of both rates of being right)."""
    points = np.unique(np.concatenate([inside, outside]))
    cuts = (points[:-1] + points[1:]) / 2
    right = [(inside > cut).mean() + (outside <= cut).mean() for cut in cuts]
    return float(cuts[int(np.argmax(right))])


def table_of_others(teacher: Model, count: int) -> list[str]:
    """AUC of each shipped character's answers against each other's, both scored by the first one's constitution."""
    prompts, told = evaluation_prompts()[:count], systems()
    names = (*SHIPPED, *FURTHER)
    answers = {name: teacher.sample(_talks(prompts, told[name]), seed=6) for name in names}
    lines = [_row(["scored as", *names]), "|" + "---|" * (1 + len(names))]
    for name in names:
        scores = {other: _score(teacher, prompts, told[name], answers[other]) for other in names}
        lines.append(_row([name, *["-" if o == name else auc(scores[name], scores[o]) for o in names]]))
    return lines


def table_of_defaults(models: dict[str, Model]) -> list[str]:
    """Length, cuts, distinct answers and topic of answers without a system prompt."""
    prompts = evaluation_prompts()
    lines = [
        _row(
            [
                "model",
                "tokens p5",
                "median",
                "p95",
                "cut",
                "empty",
                "distinct",
                "repeats a word of the prompt",
            ]
        ),
        "|" + "---|" * 8,
    ]
    for name, model in models.items():
        answers = model.sample(_talks(prompts, None), seed=8)
        sizes = np.percentile([len(a.ids) for a in answers], [5, 50, 95])
        distinct = len({a.text for a in answers}) / len(answers)
        words = [{w for w in p.lower().replace("?", " ").split() if len(w) > 3} for p in prompts]
        touched = float(np.mean([any(w in a.text.lower() for w in ws) for ws, a in zip(words, answers, strict=True)]))
        cut = float(np.mean([not a.ended for a in answers]))
        empty = float(np.mean([not a.text.strip() for a in answers]))
        lines.append(_row([name, *[f"{s:.0f}" for s in sizes], cut, empty, distinct, touched]))
    return lines


def reflections(model: Model, system: str | None, seed: int = 9) -> list[tuple[str, Answer]]:
    """The reflection prompts that ship with charrun, answered once each."""
    text = files("charrun.plugins").joinpath("templates", "reflection_prompts.j2").read_text(encoding="utf-8")
    prompts = [line for line in text.splitlines() if line.strip()]
    return list(zip(prompts, model.sample(_talks(prompts, system), seed), strict=True))


def self_talk(model: Model, system: str | None, count: int, turns: int = 8, seed: int = 10) -> list[list[Answer]]:
    """Conversations of two copies, `turns` messages each, all from one opener."""
    talks: list[list[Answer]] = [[] for _ in range(count)]
    head = [] if system is None else [{"role": "system", "content": system}]
    for turn in range(turns):
        views: list[list[Message]] = []
        for said in talks:
            texts = ["Hello.", *[answer.text for answer in said]] if turn % 2 == 0 else [answer.text for answer in said]
            roles = ["user", "assistant"] * len(texts)
            views.append([*head, *[{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)]])
        for said, answer in zip(talks, model.sample(views, seed + turn), strict=True):
            said.append(answer)
    return talks


def table_of_talks(models: dict[str, Model]) -> list[str]:
    """Conversations of 8 turns under interaction.j2 and reflections under reflection.j2, as the pirate."""
    sheet = yaml.safe_load(files("charrun.specs").joinpath("characters", "pirate.yaml").read_text(encoding="utf-8"))
    about = {"name": sheet["name"], "traits": [item["trait"] for item in sheet["traits"]]}
    lines = [
        _row(["model", "turn tokens", "turns cut", "turns repeated", "reflection tokens", "reflections cut"]),
        "|" + "---|" * 6,
    ]
    for name, model in models.items():
        talks = self_talk(model, templates(True).get_template("interaction.j2").render(**about, guided=True), count=20)
        turns = [answer for talk in talks for answer in talk]
        repeated = float(np.mean([len({a.text for a in talk}) < len(talk) for talk in talks]))
        mused = [
            answer for _, answer in reflections(model, templates(True).get_template("reflection.j2").render(**about))
        ]
        tokens = [f"{np.mean([len(a.ids) for a in group]):.0f}" for group in (turns, mused)]
        cuts = [float(np.mean([not a.ended for a in group])) for group in (turns, mused)]
        lines.append(_row([name, tokens[0], cuts[0], repeated, tokens[1], cuts[1]]))
    return lines


def _show(models: dict[str, Model], character: str, count: int) -> None:
    prompts = evaluation_prompts()[:count]
    system = systems()[character]
    for name, model in models.items():
        played, plain = model.sample(_talks(prompts, system), 1), model.sample(_talks(prompts, None), 2)
        for prompt, one, other in zip(prompts, played, plain, strict=True):
            print(f"[{name}] {prompt}\n  {character}: {one.text}\n  default: {other.text}")
        for prompt, answer in reflections(model, system)[:4] + reflections(model, None)[:3]:
            print(f"[{name}] {prompt}\n  -> {answer.text}")
        for answer in self_talk(model, system, 1)[0]:
            print(f"[{name}] talk: {answer.text}")


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Measure the demo models.")
    parser.add_argument("--models", type=Path, help="folder that holds the three model folders")
    parser.add_argument("--count", type=int, default=200, help="evaluation prompts for the table of characters")
    parser.add_argument(
        "--table", action="append", choices=("characters", "others", "defaults", "talks"), help="print this one alone"
    )
    parser.add_argument("--samples", metavar="CHARACTER", help="print answers instead of tables")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folders = {name.split("/")[1]: path for name, path in MODELS.items()}
    if options.models:
        folders = {name: options.models / name for name in folders}
    models = {name: Model(path, thinking=name == "demo-teacher") for name, path in folders.items() if path.exists()}
    if options.samples:
        _show(models, options.samples, 6)
        return
    students = {name: model for name, model in models.items() if name != "demo-teacher"}
    teacher = models["demo-teacher"]
    tables: dict[str, Callable[[], list[str]]] = {
        "characters": lambda: table_of_characters(teacher, students, options.count),
        "others": lambda: table_of_others(teacher, options.count),
        "defaults": lambda: table_of_defaults(models),
        "talks": lambda: table_of_talks(models),
    }
    for name in options.table or tables:
        print("\n".join(tables[name]()) + "\n", flush=True)


if __name__ == "__main__":
    main()
