"""`tinker_cookbook.supervised.train.main` on conversations in character."""

from __future__ import annotations

import asyncio

from client import LORA_RANK, RENDERER, Arguments, Figures, arguments, metrics, report
from tinker_cookbook.renderers import TrainOnWhat
from tinker_cookbook.supervised import train
from tinker_cookbook.supervised.data import FromConversationFileBuilder
from tinker_cookbook.supervised.types import ChatDatasetBuilderCommonConfig


def config(given: Arguments, file: str) -> train.Config:
    """The cookbook's configuration of a run on one file of conversations, 32 of them held out."""
    dataset = FromConversationFileBuilder(
        common_config=ChatDatasetBuilderCommonConfig(
            model_name_for_tokenizer=given.model,
            renderer_name=RENDERER,
            max_length=1024,
            batch_size=16,
            train_on_what=TrainOnWhat.LAST_ASSISTANT_MESSAGE,
        ),
        file_path=file,
        test_size=32,
    )
    return train.Config(
        log_path=str(given.out),
        model_name=given.model,
        recipe_name="charrun_supervised",
        renderer_name=RENDERER,
        dataset_builder=dataset,
        learning_rate=1e-3,
        lora_rank=LORA_RANK,
        num_epochs=2,
        eval_every=5,
        save_every=10,
        rolling_save_every=3,
    )


def main() -> None:
    """Train and report the held-out loss."""
    given = arguments()
    asyncio.run(train.main(config(given, str(given.data / "conversations.jsonl"))))
    held_out = metrics(given.out, "test/nll")
    steps = len(metrics(given.out, "train_mean_nll"))
    report(given, Figures("held-out NLL/token", held_out[0], held_out[-1], steps, held_out[-1] < 0.7 * held_out[0]))


if __name__ == "__main__":
    main()
