"""What goes wrong at an endpoint in plain words, with what to do next."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from charrun.endpoint import Endpoint
from charrun.errors import CharrunError, EnvironmentProblem, StageFailed
from charrun.secrets import hide_message
from charrun.service.pulse import pulse

NOT_BEGUN = (400, 401, 402, 403, 404, 405, 413, 415, 422, 429)
"""Answers that say that a request was turned away: nothing was sampled, and nothing is billed."""
_NOT_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol")
"""Errors of httpx before a request has left."""
CHECK_ADDRESS = "check base_url: at most servers it ends in /v1"
_AGAIN = "what is recorded stays; run the same command again"
_LONGEST = 400


def not_sent(error: BaseException | None) -> bool:
    """Whether an error of the client's transport came before the request had left."""
    return type(error).__name__ in _NOT_SENT


def refused_by_endpoint(error: BaseException) -> bool:
    """Whether an error of the client's says that the endpoint has not even begun with a request."""
    if not type(error).__module__.startswith("openai"):
        return False
    return getattr(error, "status_code", None) in NOT_BEGUN or not_sent(error.__cause__)


@contextlib.contextmanager
def explained_endpoint(endpoint: Endpoint, seconds: float = 0.0) -> Iterator[None]:
    """Turn the client's errors into charrun's own, with what to do next.

    Args:
        endpoint: Who is asked.
        seconds: How long an attempt may take; by default the endpoint's `timeout`.
    """
    import openai

    try:
        with pulse.beat():
            yield
    except openai.OpenAIError as error:
        raise _in_words(error, endpoint, seconds or endpoint.timeout) from error


def _in_words(error: Exception, endpoint: Endpoint, seconds: float) -> CharrunError:
    import openai

    told, at = _told(error), endpoint.address
    key = (
        f"check the variable {endpoint.api_key_env}" if endpoint.api_key_env else "name the key's variable: api_key_env"
    )
    if isinstance(error, openai.APITimeoutError):
        hint = f"{_AGAIN}, with a longer `timeout` if it was only slow"
        return EnvironmentProblem(f"{at} has not answered within {seconds:g} s", hint)
    if isinstance(error, openai.APIConnectionError):
        reason = f": {hide_message(str(error.__cause__))}" if error.__cause__ else ""
        return EnvironmentProblem(f"{at} can't be reached{reason}", f"check the network and base_url; {_AGAIN}")
    status = getattr(error, "status_code", None)
    if status == 401:
        return EnvironmentProblem(f"{at} refuses the key: {told}", key)
    if status == 402 or getattr(error, "code", None) == "insufficient_quota":
        return EnvironmentProblem(f"{at} wants to be paid: {told}", "add credit; " + _AGAIN)
    if status == 403:
        return EnvironmentProblem(f"{at} refuses access: {told}", key)
    if status == 404:
        hint = "name the model as the endpoint calls it, as `model` under endpoint, and check base_url"
        return EnvironmentProblem(f"{at} does not have '{endpoint.model}': {told}", hint)
    if status == 429:
        hint = f"{_AGAIN}, with a lower `concurrency` or more `max_retries`"
        return EnvironmentProblem(f"{at} turns requests away: {told}", hint)
    if status in NOT_BEGUN:
        hint = (
            "a field that it does not take is left out by `parameters: {NAME: null}`, and n by samples_per_request: 1"
        )
        return StageFailed(f"{at} refuses a request: {told}", hint)
    return StageFailed(f"{at} failed: {told}", _AGAIN)


def _told(error: Exception) -> str:
    """What the endpoint says; it may quote what it was sent."""
    text = " ".join(hide_message(str(error)).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
