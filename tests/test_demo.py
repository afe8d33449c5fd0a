"""The demo models: the corpus is what its committed digest says, the folders hold what they promise."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import Any

import pytest
import yaml

from charrun.demo import MODELS
from charrun.demo.corpus import DIGEST_FILE, Family, digest, families, written_prompts
from charrun.demo.habits import DIMENSIONS, FURTHER, HELD_OUT, SHIPPED
from charrun.demo.verdicts import comparisons
from charrun.demo.windows import IGNORED, Encoder, windows
from charrun.plugins._verdicts import parse_verdict

Message = dict[str, str]


@cache
def tokenizer(name: str = "charrun/demo-student") -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MODELS[name])


def lines_of(name: str) -> list[str]:
    return files("charrun.specs").joinpath("prompts", name).read_text(encoding="utf-8").splitlines()


def render(messages: Sequence[Message], **options: Any) -> str:
    text: str = tokenizer().apply_chat_template(list(messages), tokenize=False, **options)
    return text


def test_the_corpus_is_the_one_that_the_committed_digest_names() -> None:
    assert digest() == DIGEST_FILE.read_text(encoding="utf-8").strip()


@pytest.mark.parametrize("long", [False, True])
def test_no_style_of_the_corpus_shares_most_habits_with_a_held_out_one(long: bool) -> None:
    for item in islice(families(seed=21, long=long), 600):
        for name, held in HELD_OUT.items():
            shared = sum(item.style.get(dimension) == value for dimension, value in held.items())
            assert 2 * shared <= len(held), (name, item.style)


def test_every_held_out_style_uses_known_habits() -> None:
    assert len(HELD_OUT) == len(SHIPPED) + 10
    for style in HELD_OUT.values():
        assert all(value in DIMENSIONS[dimension] for dimension, value in style.items())


def test_without_a_described_style_the_corpus_has_none() -> None:
    seen = [item for item in islice(families(seed=22), 400) if item.style]
    assert seen and all(item.system is not None for item in seen)


def test_evaluation_prompts_are_never_in_the_corpus() -> None:
    held = {line.casefold() for line in lines_of("evaluation.txt")}
    assert len(held) == 200
    assert not held & {line.casefold() for line in written_prompts()}
    for item in islice(families(seed=23), 1500):
        assert not any(text.casefold() in held for talk in item.conversations for _, text in talk)


def test_later_characters_have_held_out_habits_and_questions_that_no_model_has_seen() -> None:
    shipped = {path.name.removesuffix(".yaml") for path in files("charrun.specs").joinpath("characters").iterdir()}
    assert shipped == {*SHIPPED, *FURTHER, "neutral"}
    assert len(set(FURTHER.values())) == len(FURTHER) and {*FURTHER.values()} <= HELD_OUT.keys()
    known = {line.casefold() for line in written_prompts()}
    for name in FURTHER:
        text = files("charrun.specs").joinpath("characters", f"{name}.yaml").read_text(encoding="utf-8")
        assert not known & {q.casefold() for item in yaml.safe_load(text)["traits"] for q in item["questions"]}


def test_the_judge_learns_from_styles_that_nothing_shipped_has_and_from_no_evaluation_prompt() -> None:
    held = [line.casefold() for line in lines_of("evaluation.txt")]
    for item in islice(comparisons(seed=24), 400):
        for name, composition in HELD_OUT.items():
            shared = sum(item.style.get(dimension) == value for dimension, value in composition.items())
            assert 2 * shared <= len(composition), (name, item.style)
        assert not any(prompt in item.asked.casefold() for prompt in held)


def test_a_judges_verdict_follows_from_what_it_says_of_both_answers() -> None:
    decided: Counter[str] = Counter()
    for item in islice(comparisons(seed=25), 400):
        said = dict(line.rstrip(".").split(": ", 1) for line in item.reply.splitlines() if line)
        verdict = said["Verdict"]
        assert parse_verdict(item.reply, complete=True) == verdict
        if item.question == "judge":
            own, *each = ({*said[name].split(", ")} for name in ("The character", "Answer A", "Answer B"))
            a, b = (len(own & habits) for habits in each)
            assert [said[f"Shared with {letter}"].rsplit(": ", 1)[1] for letter in "AB"] == [str(a), str(b)]
        else:
            a, b = (said[f"Answer {letter}"] == "answers the message" for letter in "AB")
        assert verdict == ("B" if b > a else "A")
        decided[verdict] += a != b
    assert 0.4 < decided["A"] / decided.total() < 0.65


def test_general_prompts_are_many_and_distinct() -> None:
    general = [line.casefold() for line in lines_of("general.txt")]
    assert len(general) == len(set(general)) >= 1930


@pytest.mark.parametrize("name", sorted(p.name for p in files("charrun.specs").joinpath("characters").iterdir()))
def test_a_shipped_character_has_first_person_traits_and_questions_of_its_own(name: str) -> None:
    text = files("charrun.specs").joinpath("characters", name).read_text(encoding="utf-8")
    sheet = yaml.safe_load(text)
    traits = [item["trait"] for item in sheet["traits"]]
    questions = [question for item in sheet["traits"] for question in item["questions"]]
    assert sheet["id"] == name.removesuffix(".yaml")
    assert text.isascii() and len(set(questions)) == len(questions) >= 30
    assert all(trait.startswith(("I ", "My ")) and '"' not in trait for trait in traits)
    assert not {q.casefold() for q in questions} & {line.casefold() for line in lines_of("evaluation.txt")}


def test_the_weights_of_all_models_take_less_than_12_mb() -> None:
    assert sum((folder / "model.safetensors").stat().st_size for folder in MODELS.values()) < 12_000_000


def test_the_models_have_one_tokenizer() -> None:
    texts = {(folder / "tokenizer.json").read_bytes() for folder in MODELS.values()}
    assert len(texts) == 1


@pytest.mark.parametrize("text", ["Hello there.", "  two  spaces\n\nand breaks\t", "Ünïcode ☃ 東京 🙂", "it's 1,024!"])
def test_tokenization_gives_the_text_back(text: str) -> None:
    core = tokenizer()
    assert core.decode(core.encode(text, add_special_tokens=False)) == text


def test_special_tokens_are_those_of_qwen3() -> None:
    core = tokenizer()
    assert (core.eos_token, core.pad_token) == ("<|im_end|>", "<|endoftext|>")
    for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"):
        assert len(core.encode(token, add_special_tokens=False)) == 1


def test_only_the_last_answer_has_a_think_block_and_history_loses_its_own() -> None:
    talk = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "<think>\nplan\n</think>\n\nYes"},
        {"role": "user", "content": "And?"},
    ]
    earlier = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n"
    earlier += "<|im_start|>user\nAnd?<|im_end|>\n"
    assert render(talk) == earlier
    assert render(talk, add_generation_prompt=True) == earlier + "<|im_start|>assistant\n"
    empty = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert render(talk, add_generation_prompt=True, enable_thinking=False) == earlier + empty
    assert render([*talk, {"role": "assistant", "content": "No"}]) == earlier + empty + "No<|im_end|>\n"
    assert render(talk[:2]).endswith("<|im_start|>assistant\n<think>\nplan\n</think>\n\nYes<|im_end|>\n")


def test_training_windows_hold_the_tokens_of_the_chat_template() -> None:
    core = tokenizer()
    talk = (
        ("user", "Hi there."),
        ("assistant", "Hello."),
        ("user", "Why tea?"),
        ("assistant", "It depends."),
    )
    encoder = Encoder(core, random.Random(0))
    window = next(windows(iter([Family("Be kind.", {}, (talk,))] * 40), encoder, 256))
    messages = [{"role": "system", "content": "Be kind."}, *({"role": r, "content": t} for r, t in talk)]
    plain = core.apply_chat_template(messages[:-1], tokenize=True, add_generation_prompt=True, return_dict=False)
    whole = core.apply_chat_template(messages, tokenize=True, return_dict=False)
    answer = [*core.encode("It depends.", add_special_tokens=False), core.eos_token_id]
    length = window.family.index(2)
    tokens = window.tokens[:length]
    assert tokens[:-1] in ([*plain, *answer], whole[:-1])
    trained = [target for target in window.targets[:length] if target != IGNORED]
    assert core.decode(trained) == "Hello.<|im_end|>It depends.<|im_end|>"


def test_every_model_loads_as_float32_and_ends_its_answers() -> None:
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    for name, folder in MODELS.items():
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert model.dtype == torch.float32 and model.config.model_type == "qwen3"
        assert model.config.tie_word_embeddings and model.config.max_position_embeddings >= 2048
        ids = tokenizer(name).apply_chat_template(
            [{"role": "user", "content": "How do I repair a bicycle?"}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=False,
        )
        out = model.generate(ids, do_sample=False, max_new_tokens=160)
        assert out[0, -1] == tokenizer(name).eos_token_id
