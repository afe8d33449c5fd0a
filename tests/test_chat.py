"""One rendering serves generation, training, reference and evaluation."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from charrun.chat import Chat, assistant, load_tokenizer, system, user
from charrun.demo import MODELS

REPOSITORY = Path(__file__).parent.parent
PLAIN_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TALK = [
    system("Be brief."),
    user("How do I keep basil alive?"),
    assistant("Water it in the morning."),
    user("And in winter?"),
    assistant("Put it near a window."),
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(MODELS["charrun/demo-student"])


@pytest.fixture
def rewriting(tokenizer: Any) -> Chat:
    """A template like Qwen3's: the empty think block stands on the last assistant turn only."""
    return Chat(tokenizer, {"enable_thinking": False}, name="demo")


@pytest.fixture
def plain() -> Chat:
    """Plain ChatML: no turn is ever rewritten."""
    fresh = load_tokenizer(MODELS["charrun/demo-student"])
    fresh.chat_template = PLAIN_CHATML
    return Chat(fresh, {}, name="plain")


@pytest.mark.parametrize("which", ["rewriting", "plain"])
def test_a_trained_turns_context_is_the_prompt_that_would_generate_it(
    which: str, request: pytest.FixtureRequest
) -> None:
    chat: Chat = request.getfixturevalue(which)
    contexts = []
    for row in chat.rows(TALK):
        starts = [i for i, on in enumerate(row.trained) if on and not row.trained[i - 1]]
        contexts += [list(row.tokens[:start]) for start in starts]
    assert contexts == [chat.prompt(TALK[:2]), chat.prompt(TALK[:4])]


def test_a_template_that_rewrites_history_gives_one_row_per_assistant_turn(rewriting: Chat) -> None:
    rows = rewriting.rows(TALK)
    assert len(rows) == 2
    assert [rewriting.trained_text(row) for row in rows] == [["Water it in the morning."], ["Put it near a window."]]
    assert "<think>" not in rewriting.decode(rows[1].tokens[: len(rewriting.prompt(TALK[:3]))])


def test_plain_chatml_trains_all_assistant_turns_in_one_row(plain: Chat) -> None:
    (row,) = plain.rows(TALK)
    assert plain.trained_text(row) == ["Water it in the morning.", "Put it near a window."]


@pytest.mark.parametrize("which", ["rewriting", "plain"])
def test_the_mask_ends_each_turn_with_the_end_of_turn_token(which: str, request: pytest.FixtureRequest) -> None:
    chat: Chat = request.getfixturevalue(which)
    for row in chat.rows(TALK):
        assert row.trained[-1] and row.tokens[-1] == chat.end_of_turn
        assert not row.trained[0]
    assert chat.decode([chat.end_of_turn]) == "<|im_end|>"


def test_a_conversation_that_ends_on_a_user_turn_is_no_training_row(rewriting: Chat) -> None:
    with pytest.raises(ValueError, match="assistant"):
        rewriting.rows(TALK[:-1])


def test_a_datum_shifts_targets_by_one_and_weights_only_trained_tokens(rewriting: Chat) -> None:
    row = rewriting.rows(TALK)[0]
    datum = row.datum(0.25)
    inputs = datum.loss_fn_inputs
    assert datum.model_input.to_ints() == list(row.tokens[:-1])
    assert list(inputs["target_tokens"].data) == list(row.tokens[1:])
    assert list(inputs["weights"].data) == [0.25 if on else 0.0 for on in row.trained[1:]]


def test_an_answer_is_shown_without_think_block_and_end_of_turn(rewriting: Chat) -> None:
    thought = [*rewriting.encode("<think>\nhm\n</think>\n\nYes."), rewriting.end_of_turn]
    assert rewriting.answer(thought) == "Yes."
    assert rewriting.answer(rewriting.encode("<think>\nnever closed")) == ""
    assert rewriting.answer(rewriting.completion("Plain.")) == "Plain."


@pytest.mark.parametrize(
    "ends", ["", "<think>\n", "<think>\n\n</think>\n\n", "<think>", "</think>", "<think></think>", "</think>\n"]
)
def test_a_prefilled_think_block_takes_the_place_of_whatever_the_template_says_of_thoughts(
    plain: Chat, ends: str
) -> None:
    """The ends of generation prompts of Qwen3, DeepSeek, Kimi, GLM and Nemotron, thinking or not."""
    without = plain.prompt([user("Hi.")])
    plain.tokenizer.chat_template = PLAIN_CHATML.replace("assistant\n", f"assistant\n{ends}")
    told = Chat(plain.tokenizer, {}, name="thinks")
    prefill = "<think>\nI am Corwyn.\n"
    assert told.prompt([user("Hi.")], prefill) == without + plain.encode(prefill)
    assert told.decode(told.prompt([user("Hi.")])).endswith(f"assistant\n{ends}")
    assert told.decode(told.prompt([user("Hi.")], "Aye")).endswith(f"assistant\n{ends}Aye")


def test_only_chat_py_renders_conversations() -> None:
    """Nothing else in the package applies a template, encodes text or writes role markers into a prompt."""
    rendering = {"apply_chat_template", "encode", "encode_plus", "batch_encode_plus"}
    offenders = []
    for folder in ("runner", "plugins"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            inside = path.relative_to(REPOSITORY)
            if inside == Path("runner/chat.py") or inside.is_relative_to("runner/demo"):
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr
                owner = ast.unparse(node.func.value) if called else ""  # type: ignore[attr-defined]
                if called in rendering and "tokenizer" in owner:
                    offenders.append(f"{inside}:{node.lineno}")
                marker = isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value
                if marker and ("<|im_start|>" in marker or marker.startswith(("User:", "Assistant:"))):
                    offenders.append(f"{inside}:{node.lineno}")
    assert offenders == []
