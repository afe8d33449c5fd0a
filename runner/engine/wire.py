"""What many messages have in common: bodies unpacked within bounds, tokens and numbers checked, metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from charrun.engine.errors import RequestRefused
from charrun.engine.models import HostedModel

MAX_BODY = 256 * 1024 * 1024
ZSTD_STEP = 4096
"""Packed bytes that are unpacked at a time: to 128 MiB at most, since four of them can stand for 128 KiB."""


def decompressed(body: bytes, encoding: str) -> bytes:
    """The body of a request.

    Raises:
        RequestRefused: An unknown encoding, or more than `MAX_BODY` bytes.
    """
    if encoding == "zstd":
        return _unpacked(body)
    if encoding not in ("", "identity"):
        raise RequestRefused(f"The content encoding {encoding!r} is not understood; use zstd or none.", 415)
    if len(body) > MAX_BODY:
        raise RequestRefused(f"The body has {len(body)} bytes; at most {MAX_BODY} are accepted.", 413)
    return body


def _unpacked(body: bytes) -> bytes:
    """Unpacks zstd in small steps, so that a body that would unpack to gigabytes is refused before it does."""
    unpacker = zstandard.ZstdDecompressor(max_window_size=MAX_BODY).decompressobj()
    parts, size = list[bytes](), 0
    try:
        for start in range(0, len(body), ZSTD_STEP):
            parts.append(unpacker.decompress(body[start : start + ZSTD_STEP]))
            size += len(parts[-1])
            if size > MAX_BODY:
                raise RequestRefused(f"The body unpacks to more than the {MAX_BODY} bytes that are accepted.", 413)
            if unpacker.eof:
                return b"".join(parts)
    except zstandard.ZstdError as error:
        raise RequestRefused(f"The body is not valid zstd: {error}.") from error
    raise RequestRefused("The body is not valid zstd: it ends too early.")


def check_tokens(tokens: NDArray[np.int64], model: HostedModel) -> None:
    """Raises RequestRefused where tokens are empty, too many for the context, or not of the vocabulary."""
    if not len(tokens):
        raise RequestRefused("The input holds no tokens.")
    if len(tokens) > model.context:
        raise RequestRefused(f"The input has {len(tokens)} tokens, {model.name} takes {model.context}.")
    check_vocabulary(tokens, model)


def check_vocabulary(tokens: NDArray[np.int64], model: HostedModel) -> None:
    """Raises RequestRefused where one of some tokens is not of the vocabulary."""
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= model.vocabulary:
        wrong = low if low < 0 else high
        raise RequestRefused(f"Token {wrong} is not in the vocabulary of {model.name} (0 to {model.vocabulary - 1}).")


def check_number(number: int | None) -> int | None:
    """A request's number in the order of its run's requests.

    Raises:
        RequestRefused: It could not be one.
    """
    if number is not None and not 1 <= number < 2**53:
        raise RequestRefused("seq_id must be a number from 1.")
    return number


def check_slot(number: int) -> int:
    """The number of a run or sampler in its session.

    Raises:
        RequestRefused: It could not be one.
    """
    if not 0 <= number < 10**9:
        raise RequestRefused("model_seq_id and sampling_session_seq_id must be numbers from 0 to 999999999.")
    return number


def as_text(metadata: Mapping[str, Any] | None) -> dict[str, str]:
    """Metadata with every value as text, as the protocol gives it back."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in (metadata or {}).items()}
