"""Prompt distillation: the teacher answers under a long system prompt, the student learns the answers without it.

The course of the cookbook's prompt_distillation recipe: sample, write conversations, `supervised.train.main`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from statistics import fmean

import chz
import tinker
from client import Arguments, Figures, arguments, checkpoint, metrics, renderer, report
from supervised import config
from tinker_cookbook.renderers import Message
from tinker_cookbook.supervised import train

Answers = Sequence[tuple[str, list[int]]]


async def sample(client: tinker.SamplingClient, given: Arguments, questions: Sequence[str], system: str) -> Answers:
    """One answer's tokens to each question, under the system prompt where there is one."""
    chat = renderer(given.model)

    async def one(question: str, seed: int) -> tuple[str, list[int]]:
        before: list[Message] = [{"role": "system", "content": system}] if system else []
        prompt = chat.build_generation_prompt([*before, {"role": "user", "content": question}])
        limits = tinker.SamplingParams(max_tokens=192, temperature=0.7, seed=seed, stop=chat.get_stop_sequences())
        response = await client.sample_async(prompt=prompt, num_samples=1, sampling_params=limits)
        return question, list(response.sequences[0].tokens)

    return await asyncio.gather(*(one(question, seed) for seed, question in enumerate(questions)))


async def in_character(teacher: tinker.SamplingClient, given: Arguments, answers: Answers, system: str) -> float:
    """How much likelier the teacher finds answers under the system prompt than without it, mean log-ratio a token."""
    chat = renderer(given.model)

    async def total(question: str, tokens: list[int], before: list[Message]) -> float:
        prompt = chat.build_generation_prompt([*before, {"role": "user", "content": question}])
        whole = tinker.ModelInput.from_ints([*prompt.to_ints(), *tokens])
        scores = await teacher.compute_logprobs_async(whole)
        return sum(score for score in scores[-len(tokens) :] if score is not None)

    async def ratio(question: str, tokens: list[int]) -> float:
        told = total(question, tokens, [{"role": "system", "content": system}])
        return (await told - await total(question, tokens, [])) / len(tokens)

    return fmean(await asyncio.gather(*(ratio(question, tokens) for question, tokens in answers)))


async def distil(given: Arguments) -> Figures:
    """Sample from the teacher, train the student, and score both by the teacher's own reading."""
    questions = json.loads((given.data / "questions.json").read_text())
    system = (given.data / "constitution.txt").read_text().strip()
    service = tinker.ServiceClient()
    teacher = await service.create_sampling_client_async(base_model=given.teacher)
    chat = renderer(given.teacher)
    file = given.out / "taught.jsonl"
    with file.open("w") as rows:
        for question, tokens in await sample(teacher, given, questions["train"], system):
            message, ending = chat.parse_response(tokens)
            if ending.is_clean:
                messages = [{"role": "user", "content": question}, {"role": "assistant", "content": message["content"]}]
                rows.write(json.dumps({"messages": messages}) + "\n")
    usual = config(given, str(file))
    await train.main(chz.replace(usual, recipe_name="charrun_distillation", learning_rate=2e-3, num_epochs=4))
    before = await service.create_sampling_client_async(base_model=given.model)
    after = await service.create_sampling_client_async(model_path=checkpoint(given.out, "sampler_path"))
    first = await in_character(teacher, given, await sample(before, given, questions["test"], ""), system)
    last = await in_character(teacher, given, await sample(after, given, questions["test"], ""), system)
    goal = await in_character(teacher, given, await sample(teacher, given, questions["test"], system), system)
    steps = len(metrics(given.out, "train_mean_nll"))
    note = f"without the prompt; the prompted teacher's own answers: {goal:.2f}"
    return Figures("log-ratio/token", first, last, steps, last > 0 and last - first > 0.5 * (goal - first), note)


def main() -> None:
    """Run it."""
    given = arguments()
    report(given, asyncio.run(distil(given)))


if __name__ == "__main__":
    main()
