"""What was asked of an engine, by request: what the client sent, what the engine accepted, what was answered.

The SDK repeats a request under its own number, and an engine answers a repeated number with the first one's result.
So a request is counted once however often it was sent; sampling the same again under another number counts again.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import zstandard
from faults import plan
from faults.http1 import Message

_TRAINING = (plan.STEP, plan.SAVE, plan.SAVE_SAMPLER, "/api/v1/save_weights_external", plan.LOAD)
_NOT_RESULTS = (b'"try_again"', b'"error"')


@dataclass
class Ask:
    """One sampling or scoring request.

    Attributes:
        key: Digest of model, prompt, parameters with seed, and number of samples.
        request: The same without the model, whose path differs where a checkpoint was made again.
        model: Base model, or the checkpoint's path.
        prompt_tokens: Length of the prompt.
        sequences: How many sequences it asks for.
        scores: Whether it asks for log-probs of its prompt, and not for an answer.
        sent: When the client sent it, once and again.
        request_id: What the engine calls it; empty while no request of it was accepted.
        accepted: When the engine did, on the monotonic clock.
        delivered: When its result was handed to the client, whole.
        result: The result as it went over the wire.
    """

    key: str
    request: str
    model: str
    prompt_tokens: int
    sequences: int
    scores: bool
    sent: list[float] = field(default_factory=list)
    request_id: str = ""
    accepted: float = 0.0
    delivered: float = 0.0
    result: bytes = b""

    def answers(self) -> list[list[int]]:
        """The tokens of each sequence, once delivered."""
        from tinker import types
        from tinker.proto.response_conv import deserialize_proto_response

        response = deserialize_proto_response(self.result, types.SampleResponse)
        return [list(sequence.tokens) for sequence in response.sequences]


class Ledger:
    """Everything that went through a proxy. Filled by the proxy's thread, read by others."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.requests: Counter[str] = Counter()
        """HTTP requests by path, as the client sent them."""
        self.asks: dict[str, Ask] = {}
        """Sampling requests by what the client calls them."""
        self.training: dict[str, set[str]] = {}
        """Names of training requests that the engine accepted, by path; forward passes alone are under `forward`."""
        self._samplers: dict[str, str] = {}
        self._by_request: dict[str, Ask] = {}

    def asked(self, request: Message) -> None:
        """A request came from the client."""
        with self.lock:
            self.requests[request.path] += 1
            if request.path == plan.SAMPLE:
                name, ask = _ask(json.loads(body_of(request)), self._samplers)
                self.asks.setdefault(name, ask).sent.append(time.monotonic())

    def accepted(self, request: Message, answer: Message) -> None:
        """The engine answered a request, whether or not the client will hear of it."""
        if answer.status != 200:
            return
        with self.lock:
            path = request.path
            if path == plan.CREATE_SAMPLER:
                body = json.loads(body_of(request))
                model = str(body.get("model_path") or body.get("base_model"))
                self._samplers[json.loads(answer.body)["sampling_session_id"]] = model
            elif path == plan.SAMPLE:
                name, _ = _ask(json.loads(body_of(request)), self._samplers)
                ask = self.asks[name]
                if not ask.request_id:
                    ask.request_id, ask.accepted = str(json.loads(answer.body)["request_id"]), time.monotonic()
                    self._by_request[ask.request_id] = ask
            elif path == plan.PASS:
                kind, name = _pass(body_of(request))
                self.training.setdefault(kind, set()).add(name)
            elif path in _TRAINING:
                self.training.setdefault(path, set()).add(str(json.loads(answer.body).get("request_id")))

    def delivered(self, request: Message, answer: Message) -> None:
        """The client has the whole answer."""
        if request.path != plan.RETRIEVE or answer.status != 200 or answer.body.startswith(_NOT_RESULTS):
            return
        with self.lock:
            ask = self._by_request.get(str(json.loads(body_of(request))["request_id"]))
            if ask is not None and not ask.delivered and "protobuf" in answer.header("content-type"):
                ask.delivered, ask.result = time.monotonic(), answer.body

    # -- questions ------------------------------------------------------------------------------------------------

    def accepted_asks(self, since: float = 0.0, until: float = float("inf")) -> list[Ask]:
        """Requests for answers that the engine accepted in a span of time, in that order."""
        with self.lock:
            found = [a for a in self.asks.values() if not a.scores and a.request_id and since <= a.accepted < until]
        return sorted(found, key=lambda ask: ask.accepted)

    def accepted_count(self) -> int:
        """How many requests the engine accepted, for answers and for scores."""
        with self.lock:
            return sum(bool(ask.request_id) for ask in self.asks.values())

    def in_flight(self, at: float) -> list[Ask]:
        """Those that were accepted and not yet delivered at that time."""
        return [ask for ask in self.accepted_asks(until=at) if not ask.delivered or ask.delivered > at]

    @property
    def sampled(self) -> int:
        """Sequences that the engine was asked for and accepted."""
        return sum(ask.sequences for ask in self.accepted_asks())

    @property
    def steps(self) -> int:
        """Optimiser steps that the engine accepted."""
        with self.lock:
            return len(self.training.get(plan.STEP, ()))

    @property
    def repeats(self) -> int:
        """Sampling requests that the client sent again under the same number."""
        with self.lock:
            return sum(len(ask.sent) - 1 for ask in self.asks.values())


def body_of(request: Message) -> bytes:
    """The body, unpacked."""
    if request.header("content-encoding") == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(request.body)
    return request.body


def _ask(body: dict[str, Any], samplers: dict[str, str]) -> tuple[str, Ask]:
    """What the client calls a sampling request, and what it asks."""
    session = body.get("sampling_session_id") or ""
    model = samplers.get(session) or str(body.get("model_path") or body.get("base_model") or session)
    prompt = [token for chunk in body["prompt"]["chunks"] for token in chunk.get("tokens", [])]
    known = {key: value for key, value in body.items() if key not in ("sampling_session_id", "seq_id")}
    text = json.dumps([model, known], sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()
    scores = bool(body.get("prompt_logprobs"))
    name = f"{session}:{body['seq_id']}" if body.get("seq_id") is not None else f"{key}:{time.monotonic_ns()}"
    request = hashlib.sha256(
        json.dumps({**known, "base_model": "", "model_path": ""}, sort_keys=True).encode()
    ).hexdigest()
    return name, Ask(key, request, model, len(prompt), int(body.get("num_samples", 1)), scores)


def _pass(body: bytes) -> tuple[str, str]:
    """Whether a pass goes backward too, and its name."""
    from tinker.proto import tinker_public_pb2 as pb

    message = pb.ForwardBackwardRequest()
    message.ParseFromString(body)
    return "forward" if message.forward_only else plan.PASS, f"{message.model_id}:{message.seq_id}"


def by_key(asks: Iterable[Ask], key: Callable[[Ask], str] = lambda ask: ask.key) -> dict[str, list[Ask]]:
    """Requests grouped."""
    groups: dict[str, list[Ask]] = {}
    for ask in asks:
        groups.setdefault(key(ask), []).append(ask)
    return groups
