"""The cookbook's renderer against the model's own chat template, token for token."""

from __future__ import annotations

import json
from collections.abc import Iterator

from client import Arguments, Figures, arguments, renderer, report
from tinker_cookbook.renderers import Message, TrainOnWhat
from tinker_cookbook.tokenizer_utils import get_tokenizer

Conversation = list[Message]


def conversations(given: Arguments) -> Iterator[Conversation]:
    """Each file's conversation alone, under a system prompt, and after another one."""
    system: Message = {"role": "system", "content": (given.data / "constitution.txt").read_text()}
    before: Conversation = []
    for line in (given.data / "conversations.jsonl").read_text().splitlines():
        talk: Conversation = json.loads(line)["messages"]
        yield talk
        yield [system, *before, *talk]
        before = talk


def equal(given: Arguments, talk: Conversation) -> tuple[bool, bool]:
    """Whether the generation prompt, and the training example, are the template's tokens.

    The example ends with the end token, the template with a line break after it, as Qwen3's does.
    """
    chat, tokenizer = renderer(given.model), get_tokenizer(given.model)
    options = {"tokenize": True, "return_dict": False, "enable_thinking": False}
    prompt = chat.build_generation_prompt(talk[:-1]).to_ints()
    example = chat.build_supervised_example(talk, train_on_what=TrainOnWhat.LAST_ASSISTANT_MESSAGE)[0].to_ints()
    whole = tokenizer.apply_chat_template(talk, **options)
    same = prompt == tokenizer.apply_chat_template(talk[:-1], add_generation_prompt=True, **options)
    return same, example == whole[:-1] and tokenizer.decode(whole[-1:]) == "\n"


def main() -> None:
    """Compare all and report how many are equal."""
    given = arguments()
    pairs = [equal(given, talk) for talk in conversations(given)]
    prompts, examples = (sum(each) for each in zip(*pairs, strict=True))
    figures = [
        Figures(f"{kind} equal to the template's", len(pairs), count, 0, count == len(pairs), "of how many, how many")
        for kind, count in (("prompts", prompts), ("training examples", examples))
    ]
    report(given, *figures)


if __name__ == "__main__":
    main()
