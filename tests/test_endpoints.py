"""Models at endpoints, as far as no server is needed: requests, prefills, thoughts, bounds, and what is told before."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import charrun

from charrun.chat import Chat, load_tokenizer, spoken, system, user
from charrun.endpoint import Endpoint
from charrun.pipeline.endpoint_requests import most_tokens
from charrun.service.endpoint_sampler import EndpointSampler
from charrun.service.models import local_folder

FAR = Endpoint("http://host/v1", "there", parameters={"top_p": None, "reasoning_effort": "low"}, continues=True)
PARAMS = {"max_tokens": 9, "temperature": 0.7, "top_p": 0.95}
SPEC = """
version: 1
name: far
engine: local
characters: [pirate]
models:
  - teacher: {{name: far, endpoint: {{base_url: "http://127.0.0.1:1/v1", max_retries: 0{more}}}}}
    student: {{name: charrun/demo-student-small, chat: {{enable_thinking: false}}}}
scales: [smoke]
stages: [prompts, teacher]
"""


@pytest.fixture(scope="module")
def chat() -> Chat:
    folder = local_folder("charrun/demo-teacher")
    assert folder is not None
    return Chat(load_tokenizer(folder), {"enable_thinking": False})


def test_a_request_says_what_the_stage_and_the_spec_say() -> None:
    asked = EndpointSampler(FAR, {}).request([user("Hi")], 2, PARAMS, seed=1 << 40, prefill="<think>")
    assert asked.pop("seed") < 1 << 31
    assert asked == {
        "model": "there",
        "messages": [user("Hi"), {"role": "assistant", "content": "<think>"}],
        "max_tokens": 9,
        "temperature": 0.7,
        "n": 2,
        "reasoning_effort": "low",
        "continue_final_message": True,
        "add_generation_prompt": False,
    }


def test_a_prefill_that_opens_a_think_block_takes_the_place_of_an_empty_one(chat: Chat) -> None:
    text = chat.decode(chat.prompt([user("Why?")], "<think>\nI am I"))
    assert text.endswith("assistant\n<think>\nI am I") and text.count("<think>") == 1
    assert chat.prompt([user("Why?")], "Well") == chat.prompt([user("Why?")]) + chat.encode("Well")


def test_the_answer_after_an_open_think_block_is_what_follows_its_end(chat: Chat) -> None:
    begun = "<think>\nI am I"
    assert chat.spoken(chat.completion(" so.\n</think>\n\nAhoy."), begun) == ("Ahoy.", True)
    assert chat.spoken(chat.completion(" and so on"), begun) == ("", False)
    assert chat.spoken(chat.completion("Ahoy."), f"{begun}</think>") == ("Ahoy.", True)
    assert spoken("hm</think>Aye.", None) == ("Aye.", True)


@pytest.mark.parametrize("text", ["plain words", "日本語の文章です", "🏴‍☠️" * 20, "", "\n\n\t x" * 50])
def test_a_prompt_is_never_longer_than_it_is_reserved(text: str, chat: Chat) -> None:
    messages = [system(text), user(text)]
    assert len(chat.prompt(messages)) <= most_tokens(messages)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (", api_key_env: NO_SUCH_PLACE", "the variable NO_SUCH_PLACE is not set"),
        ("", "http://127.0.0.1:1/v1 can't be reached"),
    ],
)
def test_what_is_missing_is_told_before_anything_is_asked(more: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "far.yaml").write_text(SPEC.format(more=more))
    outcome = charrun("run", tmp_path / "far.yaml", "--runs-dir", tmp_path / "runs")
    assert outcome.code == 5, outcome.text
    assert told in outcome.err and "Traceback" not in outcome.text
