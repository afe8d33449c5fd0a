"""Between the protocol's training messages and the engine's own terms; whatever is wrong in one is refused here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tinker import types
from tinker.proto import tinker_public_pb2 as pb

from charrun.engine.adam import AdamStep
from charrun.engine.errors import RequestRefused
from charrun.engine.losses import EVERY_TOKEN, SEQUENCE_MASK, Loss, check_limits, make_loss
from charrun.engine.models import HostedModel
from charrun.engine.passes import PassData
from charrun.engine.training import Datum, PassResult
from charrun.engine.wire import check_tokens, check_vocabulary

MAX_TARGETS = 1024
"""Target tokens that one position may have."""
LARGEST = 1e6
"""What no sensible number of an optimizer step exceeds; far below where fp32 ends."""
_NUMPY: Mapping[int, type[Any]] = {
    pb.DTYPE_FLOAT32: np.float32,
    pb.DTYPE_INT64: np.int64,
    pb.DTYPE_INT32: np.int32,
}


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


def training_data(message: pb.ForwardBackwardRequest, model: HostedModel) -> PassData:
    """Rows and loss of a message.

    Raises:
        RequestRefused: A loss that is not offered, or a row that does not fit the model or itself.
    """
    loss = make_loss(message.loss_fn, _config(message))
    if not message.data:
        raise RequestRefused("The request holds no data.")
    rows = []
    for number, datum in enumerate(message.data):
        try:
            rows.append(_datum(datum, loss, model))
        except RequestRefused as error:
            raise RequestRefused(f"Datum {number}: {error.message}") from None
    return PassData(rows, loss)


def _config(message: pb.ForwardBackwardRequest) -> dict[str, float | str]:
    """The settings of the loss; the second form supersedes the first, which holds the numbers only."""
    if not message.loss_fn_config_v2:
        return dict(message.loss_fn_config)
    return {
        key: value.text if value.WhichOneof("value") == "text" else value.number
        for key, value in message.loss_fn_config_v2.items()
    }


def _datum(datum: pb.Datum, loss: Loss, model: HostedModel) -> Datum:
    tokens = _chunk_tokens(datum.model_input)
    check_tokens(tokens, model)
    arrays = {name: _tensor(name, tensor) for name, tensor in datum.loss_fn_inputs.items()}
    if "target_tokens" not in arrays:
        raise RequestRefused("target_tokens is missing.")
    targets = arrays.pop("target_tokens")
    _check_targets(targets, tokens, loss, model)
    unknown = sorted(arrays.keys() - loss.inputs.keys())
    if unknown:
        known = ", ".join(["target_tokens", *loss.inputs])
        raise RequestRefused(f"The loss knows no input {unknown[0]!r}; leave it out. It takes {known}.")
    inputs = {name: _loss_input(name, arrays, loss, targets.shape) for name in loss.inputs}
    if loss.gate == EVERY_TOKEN:
        inputs[EVERY_TOKEN] = np.ones(targets.shape, np.float32)
    if loss.by_sequence and not inputs[SEQUENCE_MASK].any():
        raise RequestRefused(f"{SEQUENCE_MASK} marks no token, so the sequence has no ratio.")
    return Datum(tokens, targets.astype(np.int64), inputs)


def _check_targets(targets: NDArray[Any], tokens: NDArray[np.int64], loss: Loss, model: HostedModel) -> None:
    if targets.dtype.kind != "i":
        raise RequestRefused("target_tokens must be an int64 tensor.")
    shape = targets.shape
    if shape[:1] != tokens.shape or len(shape) > 2:
        raise RequestRefused(f"model_input has {len(tokens)} tokens, target_tokens has shape {shape}.")
    if len(shape) == 2 and not (loss.many_targets and 1 <= shape[1] <= MAX_TARGETS):
        allowed = f"from 1 to {MAX_TARGETS} targets" if loss.many_targets else "one target"
        raise RequestRefused(f"target_tokens has shape {shape}; this loss takes {allowed} a position.")
    check_vocabulary(targets, model)


def _loss_input(name: str, arrays: dict[str, NDArray[Any]], loss: Loss, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if name not in arrays:
        default = loss.inputs[name]
        if default is None:
            raise RequestRefused(f"{name} is missing.")
        return np.full(shape, default, np.float32)
    values: NDArray[np.float32] = arrays[name].astype(np.float32)
    if values.shape != shape:
        raise RequestRefused(f"{name} has shape {values.shape}, target_tokens has {shape}.")
    if not np.isfinite(values).all():
        raise RequestRefused(f"{name} holds a value that is not finite.")
    check_limits(name, float(values.min()), float(values.max()), loss.limits)
    return values


def _chunk_tokens(chunks: Iterable[pb.Chunk]) -> NDArray[np.int64]:
    parts = [np.empty(0, np.int32)]
    for chunk in chunks:
        if chunk.WhichOneof("chunk") != "encoded_text":
            raise RequestRefused("Only text tokens are accepted; this engine takes no images or audio.")
        parts.append(_numbers("model_input", chunk.encoded_text.tokens, np.int32))
    return np.concatenate(parts).astype(np.int64)


def _numbers(name: str, data: bytes, kind: type[Any]) -> NDArray[Any]:
    try:
        return np.frombuffer(data, kind)
    except ValueError as error:
        raise RequestRefused(f"{name}: {len(data)} bytes are no whole number of {np.dtype(kind)} values.") from error


def _tensor(name: str, tensor: pb.Tensor) -> NDArray[Any]:
    """A tensor as an array; what a sparse one does not list is 0."""
    kind = _NUMPY.get(tensor.dtype)
    encoding = tensor.WhichOneof("encoding")
    if kind is None or encoding is None:
        raise RequestRefused(f"{name} must be a float32 or int64 tensor.")
    shape = list(tensor.shape)
    if any(size < 0 for size in shape):
        raise RequestRefused(f"{name} has the shape {shape}.")
    if encoding == "sparse_csr":
        return _dense(name, tensor.sparse_csr, kind, shape)
    values = _numbers(name, tensor.dense, kind)
    if shape and math.prod(shape) != len(values):
        raise RequestRefused(f"{name} has {len(values)} values and the shape {shape}.")
    return values.reshape(shape) if shape else values


def _dense(name: str, sparse: pb.SparseCsr, kind: type[Any], shape: list[int]) -> NDArray[Any]:
    """A matrix from its compressed rows."""
    values = _numbers(name, sparse.values, kind)
    starts = _numbers(name, sparse.crow_indices, np.int64)
    columns = _numbers(name, sparse.col_indices, np.int64)
    if len(shape) != 2 or shape[1] > MAX_TARGETS or len(starts) != shape[0] + 1:
        raise RequestRefused(f"{name} is sparse with shape {shape} and {len(starts)} row pointers.")
    listed = len(values)
    fits = len(columns) == listed and starts[0] == 0 and starts[-1] == listed and (np.diff(starts) >= 0).all()
    if not fits or (listed and (columns.min() < 0 or columns.max() >= shape[1])):
        raise RequestRefused(f"{name} is sparse and its indices do not fit its shape {shape}.")
    dense = np.zeros(shape, kind)
    dense[np.repeat(np.arange(shape[0]), np.diff(starts)), columns] = values
    return dense


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
    if not all(math.isfinite(number) and 0 <= number <= LARGEST for number in numbers):
        raise RequestRefused(
            f"learning_rate, eps, weight_decay and grad_clip_norm must be numbers from 0 to {LARGEST:g}."
        )
    if not (0 <= step.beta1 < 1 and 0 <= step.beta2 < 1):
        raise RequestRefused("beta1 and beta2 must lie in [0, 1).")
    return step


def pass_response(result: PassResult) -> bytes:
    """ForwardBackwardOutput: the log-probs of each row's targets and the summed loss."""
    output = pb.ForwardBackwardOutput(loss_fn_output_type="ArrayRecord")
    for trailing, group in groupby(result.logprobs, key=lambda row: row.shape[1:]):
        rows = list(group)
        record = output.loss_fn_outputs.add(num_datums=len(rows))
        field = record.fields["logprobs"]
        field.data = np.concatenate(rows).astype(np.float32).tobytes()
        field.offsets = np.cumsum([0] + [row.size * 4 for row in rows], dtype=np.int64).tobytes()
        field.dtype = pb.DTYPE_FLOAT32
        field.trailing_shape.extend(trailing)
    output.metrics["loss:sum"] = result.loss
    return bytes(output.SerializeToString())
