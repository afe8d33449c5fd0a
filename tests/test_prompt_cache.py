"""What a plan's low end takes to be in the service's cache: whatever was sent before."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from charrun.chat import Chat, Message, load_tokenizer, system, user
from charrun.demo import MODELS
from charrun.pipeline.dry_service import DryService
from charrun.pipeline.lengths import Lengths
from charrun.pipeline.prompt_cache import PromptCache, SentBefore, WarmCache
from charrun.store.items import ItemStore, Record, Score
from charrun.store.ledger import LEDGER, Ledger, Place
from charrun.usage import Usage, of_samples

MODEL = "charrun/demo-student"
SYSTEM = system("You are an old sailor who calls everyone a shipmate and ends each answer with a toast to the sea.")


@pytest.fixture(scope="module")
def chat() -> Chat:
    return Chat(load_tokenizer(MODELS[MODEL]), {"enable_thinking": False}, name=MODEL)


def stored(runs: Path, prompt: list[int], messages: list[Message], answer: list[int]) -> None:
    items = ItemStore(runs / "store/student-0")
    given: dict[str, Any] = {"messages": json.dumps(messages), "item": "1", "max_tokens": 64}
    record: Record = {
        "key": "k",
        "start": 0,
        "model": MODEL,
        "input": given,
        "sequences": [{"text": "", "tokens": answer, "stop_reason": "stop"}],
        "prompt_tokens": len(prompt),
        "sampled_tokens": len(answer),
        "cache_hit_tokens": 0,
        "work": "student-0/1",
    }
    items.append(record)
    items.close()


def warm(runs: Path, chat: Chat) -> WarmCache:
    before = SentBefore(runs, "pirate")
    cache = WarmCache(before, MODEL, MODEL)
    for prompt, answer in before.answers(MODEL, chat):
        cache.keep([*prompt, *answer])
    return cache


def test_prefixes_and_answers_of_stored_requests_are_hits(chat: Chat, tmp_path: Path) -> None:
    messages = [SYSTEM, user("What is a good way to learn how to swim?")]
    prompt, answer = chat.prompt(messages), chat.encode("Begin in shallow water, shipmate, and breathe out. " * 4)
    stored(tmp_path, prompt, messages, answer)
    scored, other = [*prompt, *answer, chat.end_of_turn], chat.prompt([SYSTEM, user("Tell me of the moon.")])
    assert PromptCache().hits(scored) == 0
    assert warm(tmp_path, chat).hits(scored) == (len(scored) - 1) // 16 * 16
    shared = next(n for n, (a, b) in enumerate(zip(prompt, other, strict=False)) if a != b)
    assert warm(tmp_path, chat).hits(other) == shared // 16 * 16 > 0
    assert warm(tmp_path / "elsewhere", chat).hits(other) == 0


def test_what_scores_have_sent_may_be_hits_until_it_is_used_up(chat: Chat, tmp_path: Path) -> None:
    items = ItemStore(tmp_path / "store/evaluate-0")
    score: Score = {
        "key": "k",
        "model": MODEL,
        "mean_logprob": -1.0,
        "tokens": 20,
        "prompt_tokens": 100,
        "cache_hit_tokens": 64,
        "work": "evaluate-0/1",
    }
    items.append_score(score)
    items.close()
    cache = warm(tmp_path, chat)
    assert [cache.hits(list(range(start, start + 33))) for start in (0, 1000, 2000)] == [32, 4, 0]


def test_requests_in_flight_at_a_kill_and_a_trainings_own_checks_may_be_hits(tmp_path: Path) -> None:
    folder = tmp_path / "pirate/1"
    folder.mkdir(parents=True)
    ledger = Ledger(folder / LEDGER)
    ledger.reserve(Place("c", "evaluate", MODEL), of_samples(20, 0, 1, 64))
    number = ledger.reserve(Place("c", "dpo", MODEL), Usage(trained_tokens=50, prefill_tokens=10))
    assert number
    ledger.settle(number, Usage(trained_tokens=50, prefill_tokens=10))
    ledger.close()
    before = SentBefore(tmp_path, "pirate")
    base, checkpoint = (WarmCache(before, key, MODEL) for key in (MODEL, "tinker://run/weights/dpo"))
    assert base.hits(list(range(17))) == 16 and checkpoint.hits(list(range(33))) == 14, "30 tokens, whoever had them"


def test_the_fewer_answers_are_left_the_further_they_may_be_off() -> None:
    known = Lengths((10, 20, 30, 40) * 8)
    assert known.slack() < known.slack(1000) < known.slack(4) < known.slack(1)
    assert Lengths().slack(4) == 0.0


def test_an_answer_is_cut_where_an_earlier_one_was_or_was_longer() -> None:
    rng = random.Random(0)
    known = Lengths((10, 20, 20, 30) * 2, cut=(False, False, True, False) * 2)
    drawn = Counter(known.draw(rng, 20, 0.0) for _ in range(400))
    assert set(drawn) == {(10, False), (20, False), (20, True)} and drawn[20, True] > drawn[20, False]
    assert {cut for _, cut in (known.draw(rng, 31, 0.0) for _ in range(99))} == {False}
    assert known.basis == "8 earlier answers, 2 of them cut by length" and known.spread() > 0.0
    assert {cut for _, cut in (Lengths().draw(rng, 20, 1.0) for _ in range(9))} == {False}, "nothing is known"
    assert replace(known, cut=()).spread() == 0.0


async def _scored(runs: Path, prompt: list[int], answer: list[int]) -> float:
    from tinker import types

    before = SentBefore(runs, "pirate")
    service = DryService(lambda m, n: (n, False), lambda *told: None, "a b c\n" * 99, {}, lambda m, n: 0.0, before)
    await service.chat(MODEL, {"enable_thinking": False})
    sampler = await service.sampler(MODEL)
    found = await sampler.compute_logprobs(types.ModelInput.from_ints([*prompt, *answer]), len(answer))
    return float(found[-1])


async def _said(*paths: str | None) -> list[list[tuple[int, ...]]]:
    from tinker import types

    texts = " ".join(f"word{n}" for n in range(2_000))
    service = DryService(lambda m, n: (n, False), lambda *told: None, texts, {}, lambda m, n: 0.0)
    await service.chat(MODEL, {"enable_thinking": False})
    prompt, params = types.ModelInput.from_ints([1, 2, 3]), types.SamplingParams(max_tokens=8)
    found = [
        [await (await service.sampler(MODEL, path)).sample(prompt, 1, params) for _ in range(40)] for path in paths
    ]
    return [[tuple(each.sequences[0].tokens) for each in one] for one in found]


def test_in_a_dry_run_no_checkpoint_says_what_its_base_model_or_another_one_says() -> None:
    base, *trained = asyncio.run(_said(None, "tinker://a/sampler_weights/dpo", "tinker://b/sampler_weights/dpo"))
    for one, other in ((base, trained[0]), (base, trained[1]), (trained[0], trained[1])):
        assert not any(a == b for a, b in zip(one, other, strict=True))
    assert base == asyncio.run(_said(None))[0]


def test_a_dry_run_knows_stored_answers_for_a_models_own(chat: Chat, tmp_path: Path) -> None:
    messages = [SYSTEM, user("What is a good way to learn how to swim?")]
    prompt, answer = chat.prompt(messages), [*chat.encode("Begin in shallow water, shipmate."), chat.end_of_turn]
    assert asyncio.run(_scored(tmp_path, prompt, answer)) == -1.0
    stored(tmp_path, prompt, messages, answer)
    assert asyncio.run(_scored(tmp_path, prompt, answer)) == -0.5
