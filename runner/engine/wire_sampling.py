"""Between the protocol's sampling messages and the engine's own terms; whatever is wrong in one is refused here."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tinker import types
from tinker.proto import tinker_public_pb2 as pb

from charrun.engine.errors import RequestRefused
from charrun.engine.models import HostedModel
from charrun.engine.requests import SampleResult, SampleSpec
from charrun.engine.stops import StopRule
from charrun.engine.wire import check_tokens
from charrun.engine.wire_scores import (
    NamedTokens,
    add_prompt_scores,
    add_sequence_scores,
    check_width,
    named_tokens,
)

MAX_SAMPLES = 128
MAX_STOPS = 256
MAX_STOP_LENGTH = 1024
MAX_TEMPERATURE = 1000.0
GREEDY_BELOW = 1e-4
"""Temperatures under this are greedy: dividing logits by them would overflow, and no draw could differ."""


def sample_spec(request: types.SampleRequest, model: HostedModel) -> tuple[SampleSpec, NamedTokens | None]:
    """The sampling request in the engine's terms, and the layout of the tokens that it names.

    Raises:
        RequestRefused: Something in it cannot be served.
    """
    if request.record_stability_info:
        raise RequestRefused("record_stability_info is not offered: no loss of this engine makes use of it.")
    params = request.sampling_params
    prompt = _prompt_tokens(request.prompt)
    check_tokens(prompt, model)
    if not 1 <= request.num_samples <= MAX_SAMPLES:
        raise RequestRefused(f"num_samples must be from 1 to {MAX_SAMPLES}, not {request.num_samples}.")
    if not 0 < params.top_p <= 1:
        raise RequestRefused(f"top_p must be above 0 and at most 1, not {params.top_p}.")
    max_tokens = _max_tokens(params.max_tokens, len(prompt), model)
    named = named_tokens(request, len(prompt), model.vocabulary)
    top_prompt = check_width("topk_prompt_logprobs", request.topk_prompt_logprobs, len(prompt))
    top_sample = check_width("topk_sample_logprobs", request.topk_sample_logprobs, max_tokens * request.num_samples)
    alternatives = check_width("prompt_alt_tokens_k", request.prompt_alt_tokens_k, len(prompt))
    if alternatives and len(prompt) < 2:
        raise RequestRefused("prompt_alt_tokens_k needs a prompt of at least two tokens.")
    spec = SampleSpec(
        prompt=prompt,
        samples=request.num_samples,
        max_tokens=max_tokens,
        temperature=_temperature(params.temperature),
        top_p=float(params.top_p),
        top_k=min(params.top_k, model.vocabulary) if params.top_k >= 1 else -1,
        seed=secrets.randbits(64) if params.seed is None else params.seed % 2**64,
        stop=stop_rule(params.stop, model),
        score_from=_score_from(request, len(prompt)),
        top_prompt=min(top_prompt, model.vocabulary),
        top_sample=min(top_sample, model.vocabulary),
        targets=named.table if named is not None else None,
        alternatives=alternatives,
    )
    return spec, named


def _max_tokens(asked: int | None, length: int, model: HostedModel) -> int:
    room = model.context - length
    wanted = room if asked is None else asked
    if not 1 <= wanted <= room:
        raise RequestRefused(
            f"The prompt has {length} tokens and max_tokens is {wanted}; together they must stay within the "
            f"{model.context} positions of {model.name}, with at least one token to sample."
        )
    return wanted


def _temperature(asked: float) -> float:
    if not 0 <= asked <= MAX_TEMPERATURE:
        raise RequestRefused(f"temperature must be from 0 to {MAX_TEMPERATURE:g}, not {asked}.")
    return asked if asked >= GREEDY_BELOW else 0.0


def _prompt_tokens(prompt: types.ModelInput) -> NDArray[np.int64]:
    try:
        return np.array(prompt.to_ints(), np.int64)
    except ValueError:
        raise RequestRefused("Only text tokens are accepted; this engine takes no images or audio.") from None
    except OverflowError:
        raise RequestRefused("The prompt holds a number that is no token.") from None


def _score_from(request: types.SampleRequest, length: int) -> int | None:
    last = request.prompt_logprobs_last_n
    if not request.prompt_logprobs:
        if last is not None:
            raise RequestRefused("prompt_logprobs_last_n needs prompt_logprobs.")
        return 1 if request.topk_prompt_logprobs else None
    if last is None:
        return 1
    if not 1 <= last <= length - 1:
        raise RequestRefused(f"prompt_logprobs_last_n must be from 1 to the prompt's length less one, {length - 1}.")
    return length - last


def stop_rule(stop: str | Sequence[str] | Sequence[int] | None, model: HostedModel) -> StopRule:
    """When sequences end: None means the model's end tokens, an empty list nothing; what is named comes in addition.

    Raises:
        RequestRefused: Too many stops, a string that is empty or very long, or strings for a model without a
            tokenizer.
    """
    if stop is None:
        return StopRule(model.end_tokens)
    stops = [stop] if isinstance(stop, str) else list(stop)
    if not stops:
        return StopRule(frozenset())
    if len(stops) > MAX_STOPS:
        raise RequestRefused(f"There are {len(stops)} stops; at most {MAX_STOPS} are accepted.")
    strings = tuple(each for each in stops if isinstance(each, str))
    tokens = frozenset(each for each in stops if isinstance(each, int))
    if any(not each or len(each) > MAX_STOP_LENGTH for each in strings):
        raise RequestRefused(f"A stop string must not be empty, nor have more than {MAX_STOP_LENGTH} characters.")
    if strings and model.tokenizer is None:
        raise RequestRefused(f"{model.name} has no tokenizer in its folder, so stop strings cannot be told.")
    return StopRule(tokens | model.end_tokens, strings, model.tokenizer)


def sample_response(result: SampleResult, named: NamedTokens | None = None) -> bytes:
    """SampleResponse: the sequences in order, and what was asked for about the prompt."""
    response = pb.SampleResponse(prompt_cache_hit_tokens=result.cached_tokens)
    for sequence in result.sequences:
        message = response.sequences.add(
            stop_reason=pb.STOP_REASON_STOP if sequence.stopped else pb.STOP_REASON_LENGTH,
            tokens=np.array(sequence.tokens, np.int32).tobytes(),
            logprobs=np.array(sequence.logprobs, np.float32).tobytes(),
        )
        add_sequence_scores(message, sequence)
    if result.scores is not None:
        add_prompt_scores(response, result.scores, named)
    return bytes(response.SerializeToString())
