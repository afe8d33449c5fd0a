"""Between the protocol's messages and the engine's own terms; whatever is wrong in a message is refused here."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import zstandard
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tinker import types
from tinker.proto import tinker_public_pb2 as pb

from charrun.engine.errors import RequestRefused
from charrun.engine.losses import LOSSES, Loss
from charrun.engine.models import HostedModel
from charrun.engine.requests import PromptScores, SampleResult, SampleSpec
from charrun.engine.stops import StopRule
from charrun.engine.training import AdamStep, Datum, PassResult

MAX_BODY = 256 * 1024 * 1024
MAX_SAMPLES = 128
MAX_TOP_PROMPT = 64
_NUMPY = {pb.DTYPE_FLOAT32: np.float32, pb.DTYPE_INT64: np.int64, pb.DTYPE_INT32: np.int32}


def decompressed(body: bytes, encoding: str) -> bytes:
    """The body of a request.

    Raises:
        RequestRefused: An unknown encoding, or more than `MAX_BODY` bytes.
    """
    if encoding == "zstd":
        try:
            body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
        except zstandard.ZstdError as error:
            raise RequestRefused(f"The body is not valid zstd: {error}.") from error
    elif encoding not in ("", "identity"):
        raise RequestRefused(f"The content encoding {encoding!r} is not understood; use zstd or none.", 415)
    if len(body) > MAX_BODY:
        raise RequestRefused(f"The body has {len(body)} bytes; at most {MAX_BODY} are accepted.", 413)
    return body


def pass_request(body: bytes) -> pb.ForwardBackwardRequest:
    """The message of a forward or forward_backward.

    Raises:
        RequestRefused: It is not one.
    """
    message = pb.ForwardBackwardRequest()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise RequestRefused(f"The body is not a ForwardBackwardRequest: {error}.") from error
    return message


def training_data(message: pb.ForwardBackwardRequest, model: HostedModel) -> tuple[list[Datum], Loss]:
    """Rows and loss of a message.

    Raises:
        RequestRefused: A loss that is not offered, or a row that does not fit the model or itself.
    """
    loss = LOSSES.get(message.loss_fn)
    if loss is None:
        raise RequestRefused(f"The loss {message.loss_fn!r} is not offered; losses: {', '.join(LOSSES)}.")
    if not message.data:
        raise RequestRefused("The request holds no data.")
    return [_datum(datum, number, loss, model) for number, datum in enumerate(message.data)], loss


def _datum(datum: pb.Datum, number: int, loss: Loss, model: HostedModel) -> Datum:
    try:
        tokens = _chunk_tokens(datum.model_input)
        arrays = {name: _tensor(tensor) for name, tensor in datum.loss_fn_inputs.items()}
        if "target_tokens" not in arrays:
            raise RequestRefused("target_tokens is missing.")
        targets = arrays.pop("target_tokens").astype(np.int64)
        inputs = {name: _loss_input(name, arrays, default, len(tokens)) for name, default in loss.inputs.items()}
        if targets.shape != tokens.shape:
            raise RequestRefused(f"model_input has {len(tokens)} tokens, target_tokens has shape {targets.shape}.")
        check_tokens(tokens, model)
        check_tokens(targets, model)
    except RequestRefused as error:
        raise RequestRefused(f"Datum {number}: {error.message}") from None
    return Datum(tokens, targets, inputs)


def _loss_input(name: str, arrays: dict[str, NDArray[Any]], default: float | None, length: int) -> NDArray[np.float32]:
    if name not in arrays:
        if default is None:
            raise RequestRefused(f"{name} is missing.")
        return np.full(length, default, np.float32)
    values = arrays[name].astype(np.float32)
    if values.shape != (length,):
        raise RequestRefused(f"{name} has shape {values.shape}, model_input has {length} tokens.")
    if not np.isfinite(values).all():
        raise RequestRefused(f"{name} holds a value that is not finite.")
    return values


def _chunk_tokens(chunks: Iterable[pb.Chunk]) -> NDArray[np.int64]:
    parts = []
    for chunk in chunks:
        if chunk.WhichOneof("chunk") != "encoded_text":
            raise RequestRefused("Only text tokens are accepted; this engine takes no images or audio.")
        parts.append(np.frombuffer(chunk.encoded_text.tokens, np.int32))
    return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)


def _tensor(tensor: pb.Tensor) -> NDArray[Any]:
    kind = _NUMPY.get(tensor.dtype)
    if kind is None or not tensor.HasField("dense"):
        raise RequestRefused("Loss inputs must be dense float32 or int64 tensors.")
    try:
        array = np.frombuffer(tensor.dense, kind)
        return array.reshape(list(tensor.shape)) if tensor.shape else array
    except ValueError as error:
        raise RequestRefused(f"A loss input's bytes do not fit its shape: {error}.") from error


def check_tokens(tokens: NDArray[np.int64], model: HostedModel) -> None:
    """Raises RequestRefused where tokens are empty, too many for the context, or not of the vocabulary."""
    if not len(tokens):
        raise RequestRefused("The input holds no tokens.")
    if len(tokens) > model.context:
        raise RequestRefused(f"The input has {len(tokens)} tokens, {model.name} takes {model.context}.")
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= model.vocabulary:
        wrong = low if low < 0 else high
        raise RequestRefused(f"Token {wrong} is not in the vocabulary of {model.name} (0 to {model.vocabulary - 1}).")


def adam_step(params: types.AdamParams) -> AdamStep:
    """The numbers of an optimizer step.

    Raises:
        RequestRefused: One is out of range.
    """
    step = AdamStep(
        params.learning_rate,
        params.beta1,
        params.beta2,
        params.eps,
        params.weight_decay,
        params.grad_clip_norm,
    )
    numbers = (step.learning_rate, step.eps, step.weight_decay, step.grad_clip_norm)
    if not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise RequestRefused("learning_rate, eps, weight_decay and grad_clip_norm must be finite and at least 0.")
    if not (0 <= step.beta1 < 1 and 0 <= step.beta2 < 1):
        raise RequestRefused("beta1 and beta2 must lie in [0, 1).")
    return step


def sample_spec(request: types.SampleRequest, model: HostedModel) -> SampleSpec:
    """The sampling request in the engine's terms.

    Raises:
        RequestRefused: Something in it cannot be served.
    """
    params = request.sampling_params
    prompt = _prompt_tokens(request.prompt)
    check_tokens(prompt, model)
    room = model.context - len(prompt)
    wanted = params.max_tokens if params.max_tokens is not None else room
    if wanted < 1 or wanted > room:
        raise RequestRefused(
            f"The prompt has {len(prompt)} tokens and max_tokens is {wanted}; together they must stay within the "
            f"{model.context} positions of {model.name}, with at least one token to sample."
        )
    if not 1 <= request.num_samples <= MAX_SAMPLES:
        raise RequestRefused(f"num_samples must be from 1 to {MAX_SAMPLES}, not {request.num_samples}.")
    if not (math.isfinite(params.temperature) and params.temperature >= 0):
        raise RequestRefused(f"temperature must be finite and at least 0, not {params.temperature}.")
    if not 0 < params.top_p <= 1:
        raise RequestRefused(f"top_p must be above 0 and at most 1, not {params.top_p}.")
    if request.topk_sample_logprobs or request.target_prompt_logprobs or request.prompt_alt_tokens_k:
        raise RequestRefused(
            "topk_sample_logprobs, target_prompt_logprobs and prompt_alt_tokens_k are not offered by this engine."
        )
    return SampleSpec(
        prompt=prompt,
        samples=request.num_samples,
        max_tokens=wanted,
        temperature=float(params.temperature),
        top_p=float(params.top_p),
        top_k=int(params.top_k),
        seed=secrets.randbits(64) if params.seed is None else params.seed,
        stop=stop_rule(params.stop, model),
        score_from=_score_from(request, len(prompt)),
        top_prompt=min(request.topk_prompt_logprobs, model.vocabulary),
    )


def _prompt_tokens(prompt: types.ModelInput) -> NDArray[np.int64]:
    try:
        return np.array(prompt.to_ints(), np.int64)
    except (ValueError, OverflowError):
        raise RequestRefused("Only text tokens are accepted; this engine takes no images or audio.") from None


def _score_from(request: types.SampleRequest, length: int) -> int | None:
    last = request.prompt_logprobs_last_n
    if not 0 <= request.topk_prompt_logprobs <= MAX_TOP_PROMPT:
        raise RequestRefused(f"topk_prompt_logprobs must be from 0 to {MAX_TOP_PROMPT}.")
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
        RequestRefused: A string that is empty, or strings for a model without a tokenizer.
    """
    if stop is None:
        return StopRule(model.end_tokens)
    stops = [stop] if isinstance(stop, str) else list(stop)
    if not stops:
        return StopRule(frozenset())
    strings = tuple(each for each in stops if isinstance(each, str))
    tokens = frozenset(each for each in stops if isinstance(each, int))
    if any(not each for each in strings):
        raise RequestRefused("A stop string must not be empty.")
    if strings and model.tokenizer is None:
        raise RequestRefused(f"{model.name} has no tokenizer in its folder, so stop strings cannot be told.")
    return StopRule(tokens | model.end_tokens, strings, model.tokenizer)


def pass_response(result: PassResult) -> bytes:
    """ForwardBackwardOutput: the log-probs of each row's targets and the summed loss."""
    output = pb.ForwardBackwardOutput(loss_fn_output_type="ArrayRecord")
    record = output.loss_fn_outputs.add(num_datums=len(result.logprobs))
    ends = np.cumsum([0] + [row.nbytes for row in result.logprobs], dtype=np.int64)
    field = record.fields["logprobs"]
    field.data = np.concatenate(result.logprobs).astype(np.float32).tobytes()
    field.offsets = ends.tobytes()
    field.dtype = pb.DTYPE_FLOAT32
    output.metrics["loss:sum"] = result.loss
    return bytes(output.SerializeToString())


def sample_response(result: SampleResult) -> bytes:
    """SampleResponse: the sequences in order and the prompt's scores."""
    response = pb.SampleResponse()
    for sequence in result.sequences:
        response.sequences.add(
            stop_reason=pb.STOP_REASON_STOP if sequence.stopped else pb.STOP_REASON_LENGTH,
            tokens=np.array(sequence.tokens, np.int32).tobytes(),
            logprobs=np.array(sequence.logprobs, np.float32).tobytes(),
        )
    if result.scores is not None:
        _add_scores(response, result.scores)
    return bytes(response.SerializeToString())


def _add_scores(response: pb.SampleResponse, scores: PromptScores) -> None:
    response.prompt_logprobs = scores.logprobs.tobytes()
    if scores.top_tokens is not None and scores.top_logprobs is not None:
        response.topk_prompt_logprobs.token_ids = scores.top_tokens.tobytes()
        response.topk_prompt_logprobs.logprobs = scores.top_logprobs.tobytes()
        response.topk_prompt_logprobs.length, response.topk_prompt_logprobs.k = scores.top_tokens.shape
