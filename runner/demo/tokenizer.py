"""The demo models' tokenizer: byte-level BPE with Qwen3's special tokens, trained on the corpus.

`python -m charrun.demo.tokenizer FOLDER` writes it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from charrun.demo.corpus import families, written_prompts

SPECIAL_TOKENS: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
PLAIN_TOKENS: Final = ("<think>", "</think>")
"""Those that a decoder keeps as text, as Qwen3's does."""
VOCABULARY: Final = 2048
TEMPLATE: Final = Path(__file__).with_name("chat_template.jinja")
# Runs of line breaks stay whole wherever they stand: a prompt's tokens are a prefix of the conversation's.
_SPLIT: Final = r" ?[\p{L}]+|'[\p{L}]+|\p{N}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"


def _texts(count: int) -> Iterator[str]:
    for item in islice(families(seed=11), count):
        yield item.system or ""
        yield from (text for talk in item.conversations for _, text in talk)
    yield from written_prompts()


def train_tokenizer(count: int = 6000) -> PreTrainedTokenizerFast:
    """A tokenizer trained on the first `count` families of the corpus.

    Returns:
        The tokenizer with chat template; end of sequence is `<|im_end|>`, padding `<|endoftext|>`.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_texts(count), trainer)
    settings = json.loads(core.to_str())
    for token in settings["added_tokens"]:
        token["special"] = token["content"] not in PLAIN_TOKENS
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(settings)),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
        chat_template=TEMPLATE.read_text(encoding="utf-8").rstrip("\n"),
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes the tokenizer's files, with the chat template in its configuration too."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings |= {"chat_template": tokenizer.chat_template, "tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Train the demo models' tokenizer.")
    parser.add_argument("folder", type=Path)
    save_tokenizer(train_tokenizer(), parser.parse_args().folder)


if __name__ == "__main__":
    main()
