"""The local engine through the real SDK, with a small random model: its numbers against transformers, PEFT, torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tinker
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tinker import types
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from charrun.engine.process import EngineProcess

NAME = "test/tiny"
VOCABULARY = 300
PROMPT = [10, 20, 30, 40, 50]
torch.set_num_threads(1)  # the reference models are tiny, and the engine's process wants the other cores
ADAM = types.AdamParams(learning_rate=1e-2, beta1=0.9, beta2=0.95, eps=1e-12)


def build_model(folder: Path) -> Path:
    """A random Qwen3 of two layers with a byte tokenizer; scaled up so that its distributions are not flat."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        eos_token_id=256,
        dtype="float32",
    )
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)
    model.save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="session")
def engine(folder: Path, storage: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    log = tmp_path_factory.mktemp("log") / "engine.log"
    with EngineProcess.start({NAME: folder}, storage, log=log, device="cpu", threads=1) as process:
        yield process


def connect(engine: EngineProcess) -> tinker.ServiceClient:
    return tinker.ServiceClient(base_url=engine.base_url, api_key=engine.api_key)


@pytest.fixture(scope="session")
def service(engine: EngineProcess) -> Iterator[tinker.ServiceClient]:
    with connect(engine) as client:
        yield client


@pytest.fixture(scope="session")
def base(service: tinker.ServiceClient) -> tinker.SamplingClient:
    return service.create_sampling_client(base_model=NAME).result()


@pytest.fixture
def reference(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def trainer(service: tinker.ServiceClient, rank: int = 8, **options: Any) -> tinker.TrainingClient:
    options = {"train_unembed": False, "seed": 5, **options}
    return service.create_lora_training_client(NAME, rank=rank, **options).result()


def ints(tokens: Sequence[int]) -> types.ModelInput:
    return types.ModelInput.from_ints(list(tokens))


def rows(count: int, seed: int = 0) -> list[types.Datum]:
    """Random rows of different lengths; weights of both signs and some zeros."""
    rng = np.random.default_rng(seed)
    data = []
    for _ in range(count):
        length = int(rng.integers(2, 30))
        tokens = rng.integers(0, VOCABULARY, length + 1)
        weights = rng.normal(size=length).astype(np.float32) * (rng.random(length) < 0.7)
        inputs = {"target_tokens": tokens[1:].tolist(), "weights": weights.tolist()}
        data.append(types.Datum(model_input=ints(tokens[:-1].tolist()), loss_fn_inputs=inputs))
    return data


def logprobs_of(model: Any, tokens: Sequence[int]) -> torch.Tensor:
    """[length - 1] log-probs of tokens[1:] by a transformers model."""
    logits = model(torch.tensor([list(tokens)])).logits[0, :-1]
    return torch.log_softmax(logits, -1).gather(-1, torch.tensor(tokens[1:])[:, None])[:, 0]


def peft_copy(reference: Any, service: tinker.ServiceClient, storage: Path, client: tinker.TrainingClient) -> Any:
    """A PEFT model with the training client's adapter, trainable, through a checkpoint on disk."""
    path = client.save_weights_external(f"copy-{np.random.default_rng().integers(1 << 40)}").result().path
    return PeftModel.from_pretrained(reference, checkpoint_folder(storage, path), is_trainable=True).eval()


def checkpoint_folder(storage: Path, path: str) -> Path:
    return storage / path.removeprefix("tinker://").replace(":", "_")


def loss_of(model: Any, data: Sequence[types.Datum]) -> torch.Tensor:
    total = torch.zeros(())
    for datum in data:
        targets = datum.loss_fn_inputs["target_tokens"].to_torch()
        logits = model(torch.tensor([datum.model_input.to_ints()])).logits[0]
        chosen = torch.log_softmax(logits, -1).gather(-1, targets[:, None])[:, 0]
        total = total - (chosen * datum.loss_fn_inputs["weights"].to_torch()).sum()
    return total


# Sampling


def test_prompt_logprobs_are_those_of_transformers(base: tinker.SamplingClient, reference: Any) -> None:
    rng = np.random.default_rng(1)
    prompts = [rng.integers(0, VOCABULARY, rng.integers(2, 90)).tolist() for _ in range(40)]
    futures = [base.compute_logprobs(ints(prompt)) for prompt in prompts]
    for prompt, future in zip(prompts, futures, strict=True):
        got = future.result()
        assert got[0] is None
        np.testing.assert_allclose(got[1:], logprobs_of(reference, prompt).detach(), atol=1e-4)


def test_only_the_last_prompt_tokens_are_scored_when_asked(base: tinker.SamplingClient, reference: Any) -> None:
    got = base.compute_logprobs(ints(PROMPT), prompt_logprobs_last_n=2).result()
    assert got[:3] == [None, None, None]
    np.testing.assert_allclose(got[3:], logprobs_of(reference, PROMPT).detach()[2:], atol=1e-4)


def test_the_likeliest_prompt_tokens_come_with_their_logprobs(base: tinker.SamplingClient, reference: Any) -> None:
    params = types.SamplingParams(max_tokens=1)
    response = base.sample(ints(PROMPT), 1, params, include_prompt_logprobs=True, topk_prompt_logprobs=3).result()
    expected = torch.log_softmax(reference(torch.tensor([PROMPT])).logits[0, :-1], -1).topk(3)
    for position in range(1, len(PROMPT)):
        pairs = response.topk_prompt_logprobs[position]
        assert [token for token, _ in pairs] == expected.indices[position - 1].tolist()
        np.testing.assert_allclose([p for _, p in pairs], expected.values[position - 1].detach(), atol=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.3])
def test_sampled_logprobs_equal_recomputed_ones(base: tinker.SamplingClient, temperature: float) -> None:
    params = types.SamplingParams(max_tokens=40, temperature=temperature, top_p=0.9, seed=1, stop=[])
    for sequence in base.sample(ints(PROMPT), 3, params).result().sequences:
        scored = base.compute_logprobs(ints(PROMPT + sequence.tokens)).result()
        np.testing.assert_allclose(sequence.logprobs, scored[len(PROMPT) :], atol=1e-4)


def test_a_greedy_sample_is_that_of_transformers(base: tinker.SamplingClient, reference: Any) -> None:
    params = types.SamplingParams(max_tokens=20, temperature=0, stop=[])
    got = base.sample(ints(PROMPT), 1, params).result().sequences[0]
    expected = reference.generate(
        torch.tensor([PROMPT]), max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert got.tokens == expected[0, len(PROMPT) :].tolist()
    assert got.stop_reason == "length"


def test_a_seed_repeats_whatever_else_runs(base: tinker.SamplingClient) -> None:
    params = types.SamplingParams(max_tokens=30, temperature=1.0, top_p=0.95, top_k=50, seed=7, stop=[])
    alone = base.sample(ints(PROMPT), 4, params).result()
    rng = np.random.default_rng(2)
    other = types.SamplingParams(max_tokens=50, temperature=1.0)
    crowd = [base.sample(ints(rng.integers(0, VOCABULARY, 40).tolist()), 2, other) for _ in range(30)]
    again = base.sample(ints(PROMPT), 4, params).result()
    assert [s.tokens for s in alone.sequences] == [s.tokens for s in again.sequences]
    assert len({tuple(s.tokens) for s in alone.sequences}) == 4
    assert len({s.sequence_id for s in alone.sequences} | {s.sequence_id for s in again.sequences}) == 8
    for future in crowd:
        assert len(future.result().sequences) == 2


def test_the_sampled_distribution_is_the_models(base: tinker.SamplingClient, reference: Any) -> None:
    params = types.SamplingParams(max_tokens=1, temperature=0.8, top_k=5, top_p=0.9, stop=[])
    futures = [base.sample(ints(PROMPT), 128, params) for _ in range(40)]
    drawn = np.concatenate([[s.tokens[0] for s in future.result().sequences] for future in futures])
    probs = torch.softmax(reference(torch.tensor([PROMPT])).logits[0, -1] / 0.8, -1)
    top = probs.topk(5)
    kept = top.values / top.values.sum()
    kept = torch.where(kept.cumsum(0) - kept < 0.9, kept, 0.0)
    expected = dict(zip(top.indices.tolist(), (kept / kept.sum()).tolist(), strict=True))
    for token, share in expected.items():
        assert abs((drawn == token).mean() - share) < 5 * math.sqrt(max(share, 1e-4) / len(drawn))
    assert set(drawn.tolist()) <= {token for token, share in expected.items() if share > 0}


def test_a_stop_string_ends_with_the_token_that_completes_it(base: tinker.SamplingClient, folder: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    free = types.SamplingParams(max_tokens=60, seed=3, stop=[])
    tokens = base.sample(ints(PROMPT), 1, free).result().sequences[0].tokens
    text = tokenizer.decode(tokens[20:22])
    first = next(n for n in range(1, 61) if text in tokenizer.decode(tokens[:n]))
    stopped = types.SamplingParams(max_tokens=60, seed=3, stop=[text])
    got = base.sample(ints(PROMPT), 1, stopped).result().sequences[0]
    assert (got.tokens, got.stop_reason) == (tokens[:first], "stop")


def test_a_stop_token_ends_a_sequence_and_stays_in_it(base: tinker.SamplingClient) -> None:
    free = types.SamplingParams(max_tokens=30, seed=4, stop=[])
    tokens = base.sample(ints(PROMPT), 1, free).result().sequences[0].tokens
    stopped = types.SamplingParams(max_tokens=30, seed=4, stop=[tokens[9]])
    got = base.sample(ints(PROMPT), 1, stopped).result().sequences[0]
    assert got.tokens == tokens[: tokens.index(tokens[9]) + 1]
    assert got.stop_reason == "stop"


# Training


def test_loss_and_gradient_are_those_of_autograd(service: tinker.ServiceClient, storage: Path, reference: Any) -> None:
    client = trainer(service)
    client.forward_backward(rows(4, seed=9), "cross_entropy").result()
    client.optim_step(ADAM).result()  # B is no longer zero, so that A has a gradient too
    model = peft_copy(reference, service, storage, client)
    data = rows(12)
    result = client.forward_backward(data, "cross_entropy").result()
    loss = loss_of(model, data)
    loss.backward()
    assert result.metrics["loss:sum"] == pytest.approx(float(loss), abs=1e-3)
    step = client.optim_step(types.AdamParams(learning_rate=0.0)).result().metrics
    norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters() if p.grad is not None))
    assert step is not None and step["grad_norm:mean"] == pytest.approx(float(norm), rel=1e-4)
    for datum, output in zip(data, result.loss_fn_outputs, strict=True):
        tokens = [*datum.model_input.to_ints(), int(datum.loss_fn_inputs["target_tokens"].data[-1])]
        np.testing.assert_allclose(output["logprobs"].data, logprobs_of(model, tokens).detach(), atol=1e-4)


@pytest.mark.parametrize("unembed", [False, True])
def test_twenty_steps_follow_a_plain_peft_loop(
    service: tinker.ServiceClient, storage: Path, reference: Any, unembed: bool
) -> None:
    client = trainer(service, train_unembed=unembed)
    model = peft_copy(reference, service, storage, client)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    adam = torch.optim.AdamW(trained, lr=1e-3, betas=(0.9, 0.95), eps=1e-12, weight_decay=0.01)
    params = types.AdamParams(learning_rate=1e-3, weight_decay=0.01, grad_clip_norm=5.0)
    for number in range(20):
        data = rows(6, seed=number % 3)
        got = client.forward_backward(data, "cross_entropy")
        client.optim_step(params)
        loss = loss_of(model, data)
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 5.0)
        adam.step()
        assert got.result().metrics["loss:sum"] == pytest.approx(float(loss), rel=1e-4, abs=1e-3)


def test_gradients_add_up_until_the_step(service: tinker.ServiceClient) -> None:
    whole, parts = trainer(service), trainer(service)
    data = rows(8)
    whole.forward_backward(data, "cross_entropy")
    for part in (data[:3], data[3:]):
        parts.forward_backward(part, "cross_entropy")
    norms = [client.optim_step(ADAM).result().metrics for client in (whole, parts)]
    assert norms[0]["grad_norm:mean"] == pytest.approx(norms[1]["grad_norm:mean"], rel=1e-5)
    after = [client.forward(data, "cross_entropy").result().metrics["loss:sum"] for client in (whole, parts)]
    assert after[0] == pytest.approx(after[1], abs=1e-2)


def test_a_custom_loss_moves_the_weights_as_its_gradient_says(service: tinker.ServiceClient) -> None:
    client = trainer(service)
    data = rows(6)

    def loss(_: list[types.Datum], logprobs: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        value = torch.stack([(each**2).mean() for each in logprobs]).sum()
        return value, {"custom:sum": float(value.detach())}

    values = []
    for _ in range(5):
        result = client.forward_backward_custom(data, loss)
        client.optim_step(types.AdamParams(learning_rate=1e-3))
        values.append(result.result().metrics["custom:sum"])
    assert values == sorted(values, reverse=True)


def test_the_seed_fixes_the_fresh_adapter(service: tinker.ServiceClient, storage: Path) -> None:
    saved = []
    for number, seed in enumerate((11, 11, 12)):
        path = trainer(service, seed=seed).save_state(f"fresh-{number}").result().path
        saved.append(load_file(checkpoint_folder(storage, path) / "adapter_model.safetensors"))
    first = next(name for name in saved[0] if "lora_A" in name)
    assert all(torch.equal(saved[0][name], saved[1][name]) for name in saved[0])
    assert not torch.equal(saved[0][first], saved[2][first])
    assert all(not tensor.any() for name, tensor in saved[0].items() if "lora_B" in name)


# Checkpoints


def train(client: tinker.TrainingClient, steps: range) -> list[float]:
    futures = []
    for number in steps:
        futures.append(client.forward_backward(rows(4, seed=number), "cross_entropy"))
        client.optim_step(ADAM)
    return [future.result().metrics["loss:sum"] for future in futures]


def test_a_restored_run_goes_on_to_the_bit(service: tinker.ServiceClient) -> None:
    client = trainer(service)
    train(client, range(3))
    path = client.save_state("middle").result().path
    through = train(client, range(3, 6))
    restored = service.create_training_client_from_state_with_optimizer(path).result()
    assert train(restored, range(3, 6)) == through
    without = service.create_training_client_from_state(path).result()
    losses = train(without, range(3, 6))
    assert losses[0] == through[0] and losses[1:] != through[1:]
    assert without.get_info().lora_rank == 8


@pytest.mark.parametrize("unembed", [False, True])
def test_peft_loads_what_is_saved_and_gives_the_engines_logprobs(
    service: tinker.ServiceClient, storage: Path, reference: Any, unembed: bool
) -> None:
    client = trainer(service, rank=16, train_unembed=unembed)
    train(client, range(3))
    path = client.save_weights_for_sampler("final").result().path
    sampler = service.create_sampling_client(model_path=path).result()
    ephemeral = client.save_weights_and_get_sampling_client().result()
    model = PeftModel.from_pretrained(reference, checkpoint_folder(storage, path)).eval()
    tokens = list(range(7, 60))
    expected = logprobs_of(model, tokens).detach()
    for each in (sampler, ephemeral):
        np.testing.assert_allclose(each.compute_logprobs(ints(tokens)).result()[1:], expected, atol=1e-4)
    data = types.Datum(
        model_input=ints(tokens[:-1]),
        loss_fn_inputs={"target_tokens": tokens[1:], "weights": [1.0] * (len(tokens) - 1)},
    )
    trained = client.forward([data], "cross_entropy").result().loss_fn_outputs[0]["logprobs"].data
    np.testing.assert_allclose(trained, expected, atol=1e-4)


def test_a_fresh_adapter_is_the_base_model(service: tinker.ServiceClient, base: tinker.SamplingClient) -> None:
    sampler = trainer(service).save_weights_and_get_sampling_client().result()
    assert sampler.compute_logprobs(ints(PROMPT)).result() == base.compute_logprobs(ints(PROMPT)).result()


def test_the_adapter_touches_what_was_asked_for(service: tinker.ServiceClient, storage: Path, reference: Any) -> None:
    path = trainer(service, train_mlp=False).save_state("attention").result().path
    names = set(load_file(checkpoint_folder(storage, path) / "adapter_model.safetensors"))
    config = LoraConfig(r=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
    expected = get_peft_model(reference, config).state_dict()
    assert names == {name.replace(".default", "") for name in expected if "lora" in name}
