"""`tinker_cookbook.preference.train_dpo.main` on pairs: an answer in character preferred to the plain one."""

from __future__ import annotations

import math

from client import LORA_RANK, RENDERER, Arguments, Figures, arguments, metrics, report
from tinker_cookbook.preference import train_dpo
from tinker_cookbook.preference.dpo_datasets import DPODatasetBuilderFromComparisons
from tinker_cookbook.preference.preference_datasets import ComparisonBuilderFromJsonl
from tinker_cookbook.supervised.types import ChatDatasetBuilderCommonConfig


def config(given: Arguments) -> train_dpo.Config:
    """The cookbook's configuration; the reference is the fresh adapter."""
    return train_dpo.Config(
        log_path=str(given.out),
        model_name=given.model,
        recipe_name="charrun_preference",
        renderer_name=RENDERER,
        dataset_builder=DPODatasetBuilderFromComparisons(
            common_config=ChatDatasetBuilderCommonConfig(
                model_name_for_tokenizer=given.model,
                renderer_name=RENDERER,
                max_length=1024,
                batch_size=16,
            ),
            comparison_builder=ComparisonBuilderFromJsonl(train_path=str(given.data / "preferences.jsonl")),
        ),
        learning_rate=3e-4,
        lr_schedule="constant",
        dpo_beta=0.1,
        lora_rank=LORA_RANK,
        save_every=8,
        eval_every=0,
        infrequent_eval_every=0,
    )


def main() -> None:
    """Train and report the loss, which begins at ln 2: policy and reference are the same model then."""
    given = arguments()
    train_dpo.main(config(given))
    loss, margin, accuracy = (metrics(given.out, name) for name in ("dpo_loss", "margin", "accuracy"))
    passed = abs(loss[0] - math.log(2)) < 1e-3 and loss[-1] < 0.5 * loss[0] and accuracy[-1] > 0.9
    note = f"margin {margin[0]:.3f} to {margin[-1]:.2f}, accuracy {accuracy[-1]:.0%}"
    report(given, Figures("DPO loss", loss[0], loss[-1], len(loss), passed, note))


if __name__ == "__main__":
    main()
