"""What single requests get: log-probs beside the sampled ones, and results that do not depend on how they arrive."""

from __future__ import annotations

import httpx
import numpy as np
import pytest
import tinker
import torch
from engine_messages import MODEL, PROMPT, fresh, ints, message, result, submit
from tinker import types
from tinker.proto import tinker_public_pb2 as pb
from transformers import AutoModelForCausalLM

from charrun.demo import MODELS

# Log-probs beside the sampled ones


@pytest.fixture(scope="module")
def table() -> torch.Tensor:
    """[length, vocabulary] log-probs after each token of a prompt, by transformers."""
    model = AutoModelForCausalLM.from_pretrained(MODELS[MODEL]).eval()
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([PROMPT])).logits[0], -1)


@pytest.mark.parametrize("sparse", [False, True])
def test_named_tokens_of_the_prompt_are_scored(
    service: tinker.ServiceClient, table: torch.Tensor, sparse: bool
) -> None:
    ids = torch.full((len(PROMPT) - 1, 5), -1, dtype=torch.int64)
    ids[1, 0], ids[1, 3], ids[2, 4] = 40, 0, 41
    make = types.TensorData.from_torch_sparse(ids, pad_value=-1) if sparse else types.TensorData.from_torch(ids)
    assert (make.sparse_crow_indices is not None) == sparse
    sampler = service.create_sampling_client(base_model=MODEL).result()
    params = types.SamplingParams(max_tokens=1)
    response = sampler.sample(ints(PROMPT), 1, params, target_prompt_logprobs=make).result()
    found = response.target_prompt_logprobs
    assert found is not None and (found.sparse_crow_indices is not None) == sparse
    expected = torch.where(ids >= 0, table[:-1].gather(-1, ids.clamp(min=0)), 0.0)
    np.testing.assert_allclose(found.to_torch(), expected, atol=1e-4)
    assert response.prompt_logprobs is None


def test_draws_for_the_prompt_come_from_the_models_distribution(
    service: tinker.ServiceClient, table: torch.Tensor
) -> None:
    sampler = service.create_sampling_client(base_model=MODEL).result()
    params = types.SamplingParams(max_tokens=1, seed=4)
    draws = sampler.sample(ints(PROMPT), 1, params, prompt_alt_tokens_k=64).result().prompt_alt_tokens
    assert draws is not None and draws.tokens.shape == draws.logprobs.shape == [len(PROMPT) - 1, 64]
    tokens = draws.tokens.to_torch()
    np.testing.assert_allclose(draws.logprobs.to_torch(), table[:-1].gather(-1, tokens), atol=1e-4)
    entropy = -(table[:-1].exp() * table[:-1]).sum(-1)
    surprise = -draws.logprobs.to_torch().mean(-1)
    assert torch.all((surprise - entropy).abs() < 1.5)
    greedy = types.SamplingParams(max_tokens=1, temperature=0)
    same = sampler.sample(ints(PROMPT), 1, greedy, prompt_alt_tokens_k=2).result().prompt_alt_tokens
    assert same is not None
    assert torch.equal(same.tokens.to_torch(), table[:-1].argmax(-1)[:, None].expand(-1, 2))


def test_the_likeliest_sampled_tokens_come_with_their_logprobs(
    service: tinker.ServiceClient, table: torch.Tensor
) -> None:
    sampler = service.create_sampling_client(base_model=MODEL).result()
    params = types.SamplingParams(max_tokens=6, stop=[], seed=1)
    response = sampler.sample(ints(PROMPT), 2, params, topk_sample_logprobs=3).result()
    for sequence in response.sequences:
        top = sequence.topk_logprobs_np
        assert top is not None and top.token_ids.shape == top.logprobs.shape == (6, 3)
        np.testing.assert_allclose(top.logprobs[0], table[-1].topk(3).values, atol=1e-4)
        assert top.token_ids[0].tolist() == table[-1].topk(3).indices.tolist()
        for token, logprob, ids, values in zip(
            sequence.tokens, sequence.logprobs or [], top.token_ids, top.logprobs, strict=True
        ):
            assert values.tolist() == sorted(values.tolist(), reverse=True)
            if token in ids:
                assert values[ids.tolist().index(token)] == pytest.approx(logprob, abs=1e-4)


# Retries


def test_a_repeated_request_is_done_once(http: httpx.Client, service: tinker.ServiceClient) -> None:
    model = service.create_lora_training_client(MODEL, rank=2, seed=1).result().model_id
    first = [submit(http, message(model, 1, PROMPT), packed) for packed in (False, True, False)]
    assert len({answer.json()["request_id"] for answer in first}) == 1
    adam = {"model_id": model, "seq_id": 2, "adam_params": {"learning_rate": 0.1}}
    steps = [result(http, http.post("/api/v1/optim_step", json=adam)).json() for _ in range(3)]
    assert steps[0] == steps[1] == steps[2] and steps[0]["metrics"]["step:max"] == 1
    save = {"model_id": model, "seq_id": 3, "path": fresh()}
    saved = [result(http, http.post("/api/v1/save_weights", json=save)).json() for _ in range(2)]
    assert saved[0] == saved[1] and "error" not in saved[0]
    output = pb.ForwardBackwardOutput.FromString(result(http, first[0]).content)
    assert output.loss_fn_outputs[0].num_datums == 1


def test_requests_are_done_in_the_order_of_their_numbers(http: httpx.Client, service: tinker.ServiceClient) -> None:
    model = service.create_lora_training_client(MODEL, rank=2, seed=1).result().model_id
    adam = {"model_id": model, "adam_params": {"learning_rate": 0.1}}
    late = http.post("/api/v1/optim_step", json={**adam, "seq_id": 3})
    second = submit(http, message(model, 2, PROMPT))
    first = submit(http, message(model, 1, PROMPT))
    norms = [result(http, late).json()["metrics"]["grad_norm:mean"]]
    assert norms[0] > 0 and all(result(http, each).status_code == 200 for each in (first, second))
    empty = result(http, http.post("/api/v1/optim_step", json={**adam, "seq_id": 4})).json()
    assert empty["metrics"]["grad_norm:mean"] == 0
