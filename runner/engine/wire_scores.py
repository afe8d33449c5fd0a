"""Log-probs that a sampling request asks for besides those of its own tokens: asked for in JSON, given as protobuf."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tinker import types
from tinker.proto import tinker_public_pb2 as pb

from charrun.engine.errors import RequestRefused
from charrun.engine.requests import PromptScores, Sequence

MAX_TOP = 64
"""Likeliest tokens, or draws, that may be asked for at one position."""
MAX_NAMED = 1024
"""Tokens that may be named at one prompt position."""
MAX_CELLS = 2_000_000
"""Numbers in one table of an answer."""


@dataclass(frozen=True)
class NamedTokens:
    """Tokens whose log-probs are wanted at prompt positions, in the layout in which the client sent them.

    Attributes:
        table: [length - 1, k] int64; -1 names none.
        rows: Row of each listed cell, where the layout is sparse.
        columns: Its column.
    """

    table: NDArray[np.int64]
    rows: NDArray[np.int64] | None = None
    columns: NDArray[np.int64] | None = None


def check_width(name: str, width: int, length: int) -> int:
    """How many numbers are wanted at each position.

    Raises:
        RequestRefused: Too many, or fewer than none.
    """
    if not 0 <= width <= MAX_TOP:
        raise RequestRefused(f"{name} must be from 0 to {MAX_TOP}.")
    if width * length > MAX_CELLS:
        raise RequestRefused(f"{name} times the number of positions, {width * length}, exceeds {MAX_CELLS}.")
    return width


def named_tokens(request: types.SampleRequest, length: int, vocabulary: int) -> NamedTokens | None:
    """What `target_prompt_logprobs` asks for about a prompt of so many tokens.

    Raises:
        RequestRefused: Its shape, type, layout or tokens are wrong, or it names no token.
    """
    asked = request.target_prompt_logprobs
    if asked is None:
        return None
    if length < 2:
        raise RequestRefused("target_prompt_logprobs needs a prompt of at least two tokens.")
    shape = asked.shape or []
    if asked.dtype != "int64" or len(shape) != 2 or shape[0] != length - 1 or not 1 <= shape[1] <= MAX_NAMED:
        raise RequestRefused(
            f"target_prompt_logprobs must be an int64 tensor of shape [{length - 1}, k], with k from 1 to {MAX_NAMED}."
        )
    if shape[0] * shape[1] > MAX_CELLS:
        raise RequestRefused(f"target_prompt_logprobs has {shape[0] * shape[1]} cells; at most {MAX_CELLS} are taken.")
    try:
        values = np.array(asked.data, np.int64)
        sparse = asked.sparse_crow_indices is not None or asked.sparse_col_indices is not None
        named = _sparse(asked.sparse_crow_indices, asked.sparse_col_indices, values, shape) if sparse else None
        named = named or NamedTokens(values.reshape(shape))
    except (ValueError, OverflowError):
        raise RequestRefused("target_prompt_logprobs: its values do not fit its shape or its indices.") from None
    if named.table.min() < -1 or named.table.max() >= vocabulary:
        raise RequestRefused(f"target_prompt_logprobs may hold tokens from 0 to {vocabulary - 1}, and -1 for none.")
    if named.table.max() < 0:
        raise RequestRefused("target_prompt_logprobs names no token.")
    return named


def _sparse(
    starts: list[int] | None, columns: list[int] | None, values: NDArray[np.int64], shape: list[int]
) -> NamedTokens:
    """From compressed rows; ValueError where they are not."""
    crow, col = np.array(starts or [], np.int64), np.array(columns or [], np.int64)
    if len(crow) != shape[0] + 1 or crow[0] != 0 or crow[-1] != len(values) or len(col) != len(values):
        raise ValueError
    if (np.diff(crow) < 0).any() or (len(col) and not 0 <= col.min() <= col.max() < shape[1]):
        raise ValueError
    rows = np.repeat(np.arange(shape[0]), np.diff(crow))
    table = np.full(shape, -1, np.int64)
    table[rows, col] = values
    return NamedTokens(table, rows, col)


def add_prompt_scores(response: pb.SampleResponse, scores: PromptScores, named: NamedTokens | None) -> None:
    """Puts a prompt's scores into an answer."""
    if scores.logprobs is not None:
        response.prompt_logprobs = scores.logprobs.tobytes()
    if scores.top_tokens is not None and scores.top_logprobs is not None:
        _add_top(response.topk_prompt_logprobs, scores.top_tokens, scores.top_logprobs)
    if scores.targets is not None and named is not None:
        _add_named(response.target_prompt_logprobs, scores.targets, named)
    if scores.alternative_tokens is not None and scores.alternative_logprobs is not None:
        draws = response.prompt_alt_tokens
        _add_dense(draws.tokens, scores.alternative_tokens.astype(np.int32), pb.DTYPE_INT32)
        _add_dense(draws.logprobs, scores.alternative_logprobs, pb.DTYPE_FLOAT32)


def add_sequence_scores(message: pb.SampledSequence, sequence: Sequence) -> None:
    """Puts a sampled sequence's likeliest tokens into an answer."""
    if sequence.top_tokens is not None and sequence.top_logprobs is not None:
        _add_top(message.topk_sampled_logprobs, sequence.top_tokens, sequence.top_logprobs)


def _add_top(message: pb.TopkLogprobs, tokens: NDArray[np.int32], logprobs: NDArray[np.float32]) -> None:
    message.token_ids = tokens.astype(np.int32).tobytes()
    message.logprobs = logprobs.astype(np.float32).tobytes()
    message.length, message.k = tokens.shape


def _add_dense(message: pb.Tensor, array: NDArray[np.generic], kind: pb.DType.ValueType) -> None:
    message.dtype = kind
    message.shape.extend(array.shape)
    message.dense = array.tobytes()


def _add_named(message: pb.Tensor, found: NDArray[np.float32], named: NamedTokens) -> None:
    """Log-probs in the layout in which their tokens came."""
    if named.rows is None or named.columns is None:
        _add_dense(message, found.astype(np.float32), pb.DTYPE_FLOAT32)
        return
    message.dtype = pb.DTYPE_FLOAT32
    message.shape.extend(found.shape)
    starts = np.concatenate([[0], np.cumsum(np.bincount(named.rows, minlength=len(found)))])
    message.sparse_csr.values = found[named.rows, named.columns].astype(np.float32).tobytes()
    message.sparse_csr.crow_indices = starts.astype(np.int64).tobytes()
    message.sparse_csr.col_indices = named.columns.tobytes()
