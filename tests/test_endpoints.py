"""Models at endpoints, as far as no model is needed there: requests, answers, bounds, and what is told before."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Outcome, charrun
from endpoint_proxy import EndpointProxy, before_endpoint

from charrun.chat import Chat, load_tokenizer, spoken, system, user
from charrun.endpoint import Endpoint
from charrun.errors import EXIT_BUDGET, EXIT_STAGE_FAILED, StageFailed
from charrun.pipeline.endpoint_requests import most_tokens
from charrun.service.endpoint_sampler import EndpointSampler, read
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
ASKED = """
version: 1
name: far
engine: local
characters: [pirate]
models:
  - teacher: {{name: far, endpoint: {{base_url: "{url}", max_retries: 2, concurrency: 3}}}}
    student: {{name: charrun/demo-student-small, chat: {{enable_thinking: false}}}}
scales: [{{name: tiny, pairs: 3, samples_per_prompt: 1, reflections: 1, interactions: 1, turns: 2}}]
stages: [prompts, {{uses: teacher, with: {{max_tokens: 24}}}}]
{end}
"""
MESSAGE = {"role": "assistant", "content": "Ahoy there."}


def answer(sampled: int = 5, **message: Any) -> dict[str, Any]:
    """What a server of chat completions answers."""
    choice = {"index": 0, "finish_reason": "stop", "message": {**MESSAGE, **message}}
    return {"choices": [choice], "usage": {"prompt_tokens": 50, "completion_tokens": sampled}}


@pytest.fixture
def place() -> Iterator[EndpointProxy]:
    """An endpoint that answers as the test says."""
    with before_endpoint("nowhere") as found:
        found.listed = 404, {}
        yield found


@pytest.fixture
def ask(place: EndpointProxy, tmp_path: Path) -> Callable[..., Outcome]:
    """Runs a teacher at it."""

    def run(*options: str, end: str = "") -> Outcome:
        (tmp_path / "far.yaml").write_text(ASKED.format(url=place.base_url, end=end))
        return charrun("run", tmp_path / "far.yaml", "--runs-dir", tmp_path / "runs", *options)

    return run


def chosen(tmp_path: Path) -> list[str]:
    """The teacher's answers."""
    (path,) = (tmp_path / "runs/store").glob("teacher-*/chosen-*.jsonl")
    return [json.loads(line)["answer"] for line in path.read_text().splitlines()]


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


def test_odd_answers_are_read_and_an_error_that_calls_itself_one_is_asked_again(
    place: EndpointProxy, ask: Callable[..., Outcome], tmp_path: Path
) -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "Ahoy "}, {"type": "text", "text": "you."}]
    answers = [
        {"error": {"message": "Provider returned error", "code": 502}},
        answer(content=parts),
        answer(content="bad \ud83d tail"),
        answer(),
    ]
    place.before = lambda number, body: (200, answers[number])
    outcome = ask()
    assert outcome.code == 0, outcome.text
    assert len(place.asked) == 4
    assert sorted(chosen(tmp_path)) == ["Ahoy there.", "Ahoy you.", "bad \ufffd tail"]


@pytest.mark.parametrize(
    "body",
    [
        b"<html>hi</html>",
        b'{"choices": [',
        b'{"choices": []}',
        b'{"choices": null, "error": null}',
        b'{"choices": [{"finish_reason": "stop"}]}',
        b'{"choices": [{"message": {"content": 5}}]}',
        b'"text"',
        b"[" * 100_000,
        b"\xff",
        b"",
    ],
)
def test_what_is_no_answer_is_told_with_its_address(body: bytes) -> None:
    with pytest.raises(StageFailed) as caught:
        read(body, FAR)
    assert caught.value.message.startswith("http://host/v1 gives no answer but '")
    assert len(caught.value.message) < 300 and caught.value.hint == "check base_url: at most servers it ends in /v1"


@pytest.mark.parametrize("tokens", [None, -5, "5", 1e300])
def test_numbers_of_tokens_that_cannot_be_are_not_known(tokens: Any) -> None:
    usage = {"prompt_tokens": tokens, "completion_tokens": 10.0, "prompt_tokens_details": tokens}
    found = read(json.dumps({**answer(), "usage": usage}).encode(), FAR)
    assert (found.prompt_tokens, found.cached_tokens, found.sampled_tokens) == (None, 0, 10)


def test_a_server_without_json_is_told_before_it_is_asked_for_answers_and_after(
    place: EndpointProxy, ask: Callable[..., Outcome]
) -> None:
    place.listed = 200, b"<html>hi</html>"
    place.before = lambda number, body: (200, b"<html>hi</html>")
    outcome = ask()
    assert outcome.code == EXIT_STAGE_FAILED, outcome.text
    assert f"{place.base_url} is asked for its models and answers with no JSON; check base_url" in outcome.text
    assert f"{place.base_url} gives no answer but '<html>hi</html>'" in outcome.err
    assert "defect" not in outcome.text and "Traceback" not in outcome.text


def test_a_server_that_samples_more_than_it_was_asked_for_stops_the_run_at_its_budget(
    place: EndpointProxy, ask: Callable[..., Outcome], tmp_path: Path
) -> None:
    place.before = lambda number, body: (200, answer(100_000))
    end = "prices: {far: {prefill: 1, sample: 1}}\nbudget: {usd: 0.01}"
    outcome = ask("--yes", end=end)
    assert outcome.code == EXIT_BUDGET, outcome.text
    assert "a request used 100,000 sampled tokens of 24 at most" in outcome.err


def test_a_key_that_no_header_takes_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "far.yaml").write_text(SPEC.format(more=", api_key_env: FAR_PLACE"))
    outcome = charrun(
        "run", tmp_path / "far.yaml", "--runs-dir", tmp_path / "runs", env={"FAR_PLACE": "k\u00e9y-0f-n0b0dy"}
    )
    assert outcome.code == 5 and "the variable FAR_PLACE holds characters that no key has" in outcome.err, outcome.text


@pytest.mark.parametrize("judge", ["llm", "likelihood"])
def test_preferences_want_a_scorer_of_the_engine_only_where_they_score(judge: str, tmp_path: Path) -> None:
    preferences = f"{{uses: preferences, with: {{judge: {judge}, checkpoints: {{a: b/c/d}}}}}}"
    (tmp_path / "far.yaml").write_text(SPEC.format(more="").replace("[prompts, teacher]", f"[{preferences}]"))
    told = charrun("validate", tmp_path / "far.yaml").text
    refused = "judge: likelihood scores with far: an endpoint gives no log-probs of a prompt"
    assert (refused in told) == (judge == "likelihood") and "SPEC071" not in told, told
