"""The `openai` client for one endpoint: made, looked at before anything is paid, and its retries asked for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from charrun.endpoint import Endpoint
from charrun.errors import EnvironmentProblem
from charrun.secrets import learn, learn_address
from charrun.service.endpoint_errors import CHECK_ADDRESS, NOT_BEGUN, explained_endpoint, not_sent
from charrun.service.session import before_retry, when_sent

if TYPE_CHECKING:
    import openai

_NO_KEY = "none"
"""The client wants a key even where a server wants none."""
_LOOK_SECONDS = 20.0
_OK, _BAD_GATEWAY = 200, 502
_NO_ACCESS = (401, 402, 403)
_SHOWN = 5


@dataclass
class Attempts:
    """Of one request, whether the attempt before may be billed: it was sent, and not turned away."""

    billed: bool = False


attempts: ContextVar[Attempts | None] = ContextVar("attempts", default=None)
"""Set around a request, so that each further attempt is asked for first where the one before may be billed."""


def open_client(endpoint: Endpoint) -> openai.AsyncOpenAI:
    """A client for an endpoint, which sends nothing yet.

    Raises:
        EnvironmentProblem: The package is missing, or the variable that should hold the key.
    """
    try:
        import openai
    except ImportError as error:
        raise EnvironmentProblem(
            f"'{endpoint.model}' lives at {endpoint.address}, and the package openai is not installed",
            "pip install 'charrun[openai]'",
        ) from error
    key = os.environ.get(endpoint.api_key_env, "").strip() if endpoint.api_key_env else _NO_KEY
    if not key:
        raise EnvironmentProblem(
            f"the variable {endpoint.api_key_env} is not set, which holds the key for {endpoint.address}",
            f"export {endpoint.api_key_env}=..., or name another variable as `api_key_env`",
        )
    if not (key.isascii() and key.isprintable()):
        raise EnvironmentProblem(
            f"the variable {endpoint.api_key_env} holds characters that no key has, for {endpoint.address}",
            "copy the key anew: letters, digits and signs of ASCII on one line",
        )
    if key != _NO_KEY:
        learn(key)
    learn_address(endpoint.base_url)

    class Transport(openai.DefaultAsyncHttpxClient):  # type: ignore[misc,valid-type,unused-ignore]
        async def send(self, request: Any, **options: Any) -> Any:
            so_far, ask = attempts.get(), before_retry.get()
            if so_far is None:
                return await super().send(request, **options)
            if so_far.billed and ask is not None:
                await asyncio.wrap_future(ask())
            if (tell := when_sent.get()) is not None:
                tell()
            try:
                response = await super().send(request, **options)
            except Exception as error:
                so_far.billed = not not_sent(error)
                raise
            if response.status_code == _OK and _has_failed(response):
                response.status_code = _BAD_GATEWAY  # so the client sends it again
            so_far.billed = response.status_code not in NOT_BEGUN
            return response

    return openai.AsyncOpenAI(
        api_key=key,
        base_url=endpoint.base_url,
        timeout=endpoint.timeout,
        max_retries=endpoint.max_retries,
        http_client=Transport(),
    )


def _has_failed(response: Any) -> bool:
    """Whether what calls itself an answer is an error of what stands behind the endpoint, as routers send them."""
    with contextlib.suppress(ValueError, RecursionError):
        body = json.loads(response.content)
        return isinstance(body, dict) and bool(body.get("error")) and not body.get("choices")
    return False


async def look_at_all(endpoints: Iterable[Endpoint]) -> list[str]:
    """What `look_at` tells of each; several fail together."""
    endpoints = list(endpoints)
    found = await asyncio.gather(*(look_at(each) for each in endpoints), return_exceptions=True)
    failures = [each for each in found if isinstance(each, BaseException)]
    problems = [each for each in failures if isinstance(each, EnvironmentProblem)]
    if len(failures) > len(problems):
        raise next(each for each in failures if not isinstance(each, EnvironmentProblem))
    if len(problems) == 1:
        raise problems[0]
    if problems:
        messages = dict.fromkeys(each.message for each in problems)
        raise EnvironmentProblem("\n".join(messages), "; ".join(dict.fromkeys(each.hint for each in problems)))
    return [each for each in found if isinstance(each, str) and each]


async def look_at(endpoint: Endpoint) -> str:
    """Whether an endpoint is there and takes the key, by a request that costs nothing.

    Returns:
        What a person should know: that its list of models lacks this one, or is no JSON. Empty where there is nothing
        to tell.

    Raises:
        EnvironmentProblem: It can't be reached, or refuses the key.
    """
    client = open_client(endpoint)
    import openai

    try:
        with explained_endpoint(endpoint, _LOOK_SECONDS):
            looking = client.with_options(timeout=_LOOK_SECONDS, max_retries=1)
            try:
                found = await looking.models.with_raw_response.list()
            except openai.APIStatusError as error:
                if error.status_code in _NO_ACCESS:
                    raise
                return ""  # not every server has a list of models
    finally:
        await client.close()
    try:
        listed = json.loads(found.content)
    except ValueError:
        return f"{endpoint.address} is asked for its models and answers with no JSON; {CHECK_ADDRESS}"
    try:
        names = sorted(str(each["id"]) for each in listed["data"])
    except (KeyError, TypeError):  # and some have one of another form
        return ""
    if not names or endpoint.model in names:
        return ""
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    told = f"{endpoint.address} does not list '{endpoint.model}', which `model` under endpoint may call otherwise"
    return f"{told}; it lists {shown}"
