"""`tinker_cookbook.rl.train.main` with an environment of its own: the reader shall be spoken to in every sentence."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import chz
import tinker
from client import LORA_RANK, RENDERER, Arguments, Figures, arguments, ends, metrics, renderer, report
from tinker_cookbook import renderers
from tinker_cookbook.completers import StopCondition
from tinker_cookbook.rl import train
from tinker_cookbook.rl.types import Action, ActionExtra, Env, EnvGroupBuilder, RLDataset, RLDatasetBuilder, StepResult

GROUPS, GROUP_SIZE, STEPS = 16, 8, 16


def spoken_to(text: str) -> float:
    """Share of the sentences in which the word you or your occurs."""
    sentences = [part for part in re.split(r"[.!?]+", text) if part.strip()]
    hits = sum(bool(re.search(r"\byou(r|rs|rself)?\b", part, re.I)) for part in sentences)
    return hits / len(sentences) if sentences else 0.0


@dataclass(frozen=True)
class SpeakToTheReader(Env):
    """One question and one answer; an answer that does not end earns nothing."""

    question: str
    renderer: renderers.Renderer

    async def initial_observation(self) -> tuple[tinker.ModelInput, StopCondition]:
        prompt = self.renderer.build_generation_prompt([{"role": "user", "content": self.question}])
        return prompt, self.renderer.get_stop_sequences()

    async def step(self, action: Action, *, extra: ActionExtra | None = None) -> StepResult:
        message, ending = self.renderer.parse_response(action)
        text = renderers.get_text_content(message)
        return StepResult(
            reward=spoken_to(text) if ending.is_stop_sequence else 0.0,
            episode_done=True,
            next_observation=tinker.ModelInput.empty(),
            next_stop_condition=self.renderer.get_stop_sequences(),
            metrics={"words": len(text.split())},
        )


@dataclass(frozen=True)
class Group(EnvGroupBuilder):
    """The environments of one question."""

    question: str
    renderer: renderers.Renderer

    async def make_envs(self) -> Sequence[Env]:
        return [SpeakToTheReader(self.question, self.renderer) for _ in range(GROUP_SIZE)]


@dataclass(frozen=True)
class Questions(RLDataset):
    """A batch is the next questions of the list."""

    groups: Sequence[Group]

    def get_batch(self, index: int) -> Sequence[EnvGroupBuilder]:
        return self.groups[index * GROUPS : (index + 1) * GROUPS]

    def __len__(self) -> int:
        return len(self.groups) // GROUPS


@chz.chz
class QuestionsBuilder(RLDatasetBuilder):
    """Reads the questions from a file."""

    file: str
    model: str

    async def __call__(self) -> tuple[RLDataset, RLDataset | None]:
        questions = json.loads(Path(self.file).read_text())["train"]
        return Questions([Group(question, renderer(self.model)) for question in questions]), None


def config(given: Arguments) -> train.Config:
    """The cookbook's configuration."""
    bounds: dict[str, Any] | None = None
    if given.loss in ("ppo", "cispo"):
        bounds = {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2}
    return train.Config(
        learning_rate=3e-3,
        dataset_builder=QuestionsBuilder(file=str(given.data / "questions.json"), model=given.model),
        model_name=given.model,
        recipe_name="charrun_reinforcement",
        renderer_name=RENDERER,
        max_tokens=128,
        log_path=str(given.out),
        loss_fn=cast(tinker.types.LossFnType, given.loss),
        loss_fn_config=bounds,
        lora_rank=LORA_RANK,
        eval_every=0,
        save_every=10,
        max_steps=STEPS,
    )


def main() -> None:
    """Train and report the mean reward of the first and the last three batches."""
    given = arguments()
    asyncio.run(train.main(config(given)))
    rewards = metrics(given.out, "env/all/reward/total")
    drift = max(abs(value) for value in metrics(given.out, "optim/kl_sample_train_v1"))
    first, last = ends(rewards, 3)
    passed = last > first + 0.3 and math.isfinite(drift) and drift < 1e-3
    note = f"{given.loss}; KL of sampler to trainer at most {drift:.1e}"
    report(given, Figures("mean reward", first, last, len(rewards), passed, note))


if __name__ == "__main__":
    main()
