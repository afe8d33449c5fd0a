"""What the tests of the engine's protocol share: its page, small messages, and requests without the SDK."""

from __future__ import annotations

import re
import uuid
from typing import Any

import httpx
import numpy as np
import tinker
import zstandard
from conftest import REPOSITORY
from tinker import types
from tinker.proto import tinker_public_pb2 as pb

MODEL = "charrun/demo-student-small"
PAGE = (REPOSITORY / "docs" / "engine.md").read_text()
PROMPT = [5, 6, 7, 8]
ADAM = types.AdamParams(learning_rate=1e-2)


def section(title: str) -> str:
    """The text under a heading, up to the next one of its rank."""
    rank = re.search(rf"^(#+) {re.escape(title)}$", PAGE, re.MULTILINE)
    assert rank is not None, title
    rest = PAGE[rank.end() :]
    end = re.search(rf"^#{{1,{len(rank[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def ints(tokens: list[int]) -> types.ModelInput:
    return types.ModelInput.from_ints(tokens)


def row(tokens: list[int]) -> types.Datum:
    inputs = {"target_tokens": tokens[1:], "weights": [1.0] * (len(tokens) - 1)}
    return types.Datum(model_input=ints(tokens[:-1]), loss_fn_inputs=inputs)


def step(client: tinker.TrainingClient) -> None:
    client.forward_backward([row([3, 4, 5, 6, 7, 8, 9])], "cross_entropy")
    client.optim_step(ADAM).result()


def fresh() -> str:
    return f"n{uuid.uuid4().hex[:12]}"


def submit(http: httpx.Client, message: pb.ForwardBackwardRequest, packed: bool = False) -> Any:
    body = message.SerializeToString()
    headers = {"Content-Encoding": "zstd"} if packed else {}
    content = zstandard.ZstdCompressor().compress(body) if packed else body
    return http.post("/api/v1/forward_backward", content=content, headers=headers)


def message(model: str, number: int, tokens: list[int]) -> pb.ForwardBackwardRequest:
    made = pb.ForwardBackwardRequest(model_id=model, seq_id=number, loss_fn="cross_entropy")
    datum = made.data.add()
    datum.model_input.add().encoded_text.tokens = np.array(tokens[:-1], np.int32).tobytes()
    tensor = datum.loss_fn_inputs["target_tokens"]
    tensor.dtype, tensor.dense = pb.DTYPE_INT64, np.array(tokens[1:], np.int64).tobytes()
    return made


def result(http: httpx.Client, answer: Any) -> Any:
    """The result of a submission."""
    assert answer.status_code == 200, answer.text
    while True:
        found = http.post("/api/v1/retrieve_future", json={"request_id": answer.json()["request_id"]})
        if found.status_code != 408:
            return found
