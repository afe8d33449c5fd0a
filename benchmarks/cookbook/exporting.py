"""The cookbook's weights tools on what the engine saves: the exported model must give the engine's log-probs.

Three ways: `build_lora_adapter` for PEFT, `build_hf_model` for a model whose output layer is tied to its embedding and
left out of the training, and `build_hf_model` for an output layer of its own, trained. The loops train the output
layer always; merged into a tied matrix it would change the embedding too, so such an adapter goes through PEFT.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import tinker
import torch
from client import LORA_RANK, Arguments, Figures, arguments, renderer, report
from peft import PeftModel
from tinker_cookbook import weights
from tinker_cookbook.renderers import TrainOnWhat
from tinker_cookbook.supervised.data import conversation_to_datum
from transformers import AutoModelForCausalLM, PreTrainedModel

Build = Callable[["Trained", str, str], PreTrainedModel]

STEPS, ROWS = 6, 16
EXACT, ROUNDED = 1e-3, 0.2
"""Tolerances: fp32 throughout, and merged weights in the bf16 that the base model is stored in."""


@dataclass(frozen=True)
class Trained:
    """A trained adapter.

    Attributes:
        folder: The base model.
        external: Path for `weights.download`.
        state: Path of the training checkpoint.
        scores: Each row's tokens with the engine's log-probs of all but the first.
    """

    folder: str
    external: str
    state: str
    scores: list[tuple[list[int], list[float]]]


def train(service: tinker.ServiceClient, given: Arguments, folder: str, unembed: bool) -> Trained:
    """A few large steps, so that a wrong merge would show."""
    lines = (given.data / "conversations.jsonl").read_text().splitlines()[:ROWS]
    chat, last = renderer(folder), TrainOnWhat.LAST_ASSISTANT_MESSAGE
    rows = [conversation_to_datum(json.loads(line)["messages"], chat, 1024, last) for line in lines]
    run = service.create_lora_training_client(folder, rank=LORA_RANK, train_unembed=unembed).result()
    for _ in range(STEPS):
        run.forward_backward(rows, "cross_entropy")
        run.optim_step(tinker.AdamParams(learning_rate=5e-3)).result()
    external, state = run.save_weights_external("away").result().path, run.save_state("on").result().path
    sampler = run.save_weights_and_get_sampling_client()
    prompts = [row.model_input for row in rows]
    futures = [sampler.compute_logprobs(prompt) for prompt in prompts]
    found = [[float(value or 0) for value in future.result()[1:]] for future in futures]
    return Trained(folder, external, state, [(p.to_ints(), f) for p, f in zip(prompts, found, strict=True)])


def difference(model: PreTrainedModel, trained: Trained) -> float:
    """Largest difference between a model's log-probs in fp32 and the engine's."""
    model = model.float().eval()
    worst = 0.0
    for tokens, expected in trained.scores:
        ids = torch.tensor([tokens])
        with torch.inference_mode():
            scores = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        worst = max(worst, float((scores - torch.tensor(expected)).abs().max()))
    return worst


def with_peft(trained: Trained, adapter: str, out: str) -> PreTrainedModel:
    """The base model with the adapter beside it."""
    weights.build_lora_adapter(base_model=trained.folder, adapter_path=adapter, output_path=out)
    base = AutoModelForCausalLM.from_pretrained(trained.folder, dtype=torch.float32)
    return PeftModel.from_pretrained(base, out)


def merged(
    trained: Trained, adapter: str, out: str, strategy: str = "auto", dtype: str = "bfloat16"
) -> PreTrainedModel:
    """A model of its own, merged shard by shard in the stored precision unless told otherwise."""
    weights.build_hf_model(
        base_model=trained.folder,
        adapter_path=adapter,
        output_path=out,
        merge_strategy=strategy,
        dtype=dtype,
    )
    return AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)


def main() -> None:
    """All ways from an external checkpoint, and the first once more from a training checkpoint."""
    given = arguments()
    service = tinker.ServiceClient()
    tied = train(service, given, given.model, True)
    part = train(service, given, given.model, False)
    own = train(service, given, given.untied, True)
    full = partial(merged, strategy="full", dtype="float32")
    ways: list[tuple[str, Trained, str, Build, float]] = [
        ("build_lora_adapter, then PEFT; tied", tied, tied.external, with_peft, EXACT),
        ("build_lora_adapter, then PEFT; from a training checkpoint", tied, tied.state, with_peft, EXACT),
        ("build_hf_model, full, fp32; untied", own, own.external, full, EXACT),
        ("build_hf_model, shards, bf16; untied", own, own.external, merged, ROUNDED),
        ("build_hf_model, shards, bf16; tied, output layer not trained", part, part.external, merged, ROUNDED),
    ]
    figures = []
    for number, (name, trained, path, build, tolerance) in enumerate(ways):
        base = AutoModelForCausalLM.from_pretrained(trained.folder, dtype=torch.float32)
        adapter = weights.download(tinker_path=path, output_dir=str(given.out / f"adapter-{number}"))
        before = difference(base, trained)
        after = difference(build(trained, adapter, str(given.out / f"built-{number}")), trained)
        passed = after < tolerance < before
        figures.append(Figures("log-prob difference to the engine's", before, after, STEPS, passed, name))
    report(given, *figures)


if __name__ == "__main__":
    main()
