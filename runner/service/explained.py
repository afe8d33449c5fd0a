"""The SDK's errors in plain words, with what to do next."""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import os
import re
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from charrun.errors import CharrunError, EnvironmentProblem, StageFailed, disk_problem
from charrun.secrets import hide_message, learn
from charrun.service.pulse import listen, pulse, unpaid

if TYPE_CHECKING:
    import tinker

_LOOK_SECONDS = 0.5
_AGAIN = "what is recorded stays; run the same command again"
_NO_RESULT = "Error retrieving result: "
"""What the SDK's ValueErrors of an answer that it cannot use begin with."""
_OF_THE_SDK = re.compile(r"(?: \(status \d+\)| with status \d+)? for self\.request_id=.*", re.DOTALL)
"""How the SDK ends what it tells of an answer; its own names say nothing to people."""
_UNWRITTEN = {os.strerror(number): number for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)}
_NOT_BEGUN = (400, 401, 402, 403, 404, 413, 422, 429)
_T = TypeVar("_T")


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn the SDK's errors into charrun's own, with what to do next."""
    import tinker
    from tinker.lib.retryable_exception import RetryableException

    listen()
    _hear_credentials()
    try:
        with pulse.beat():
            yield
    except CharrunError:
        raise
    except tinker.TinkerError as error:
        raise _in_words(error) from error
    except RetryableException as error:  # a training's: the SDK itself asks again only for samples
        raise StageFailed(f"the engine has lost an answer: {hide_message(str(error))}", _AGAIN) from error
    except (AttributeError, ValueError) as error:
        # SDK 0.38 wraps what was wrong with an answer, and stumbles over a 402 to its very first request.
        reason = error.__cause__ or error.__context__
        if isinstance(reason, tinker.TinkerError):
            raise _in_words(reason) from error
        if str(error).startswith(_NO_RESULT):
            raise _failed(str(error).removeprefix(_NO_RESULT)) from error
        raise


def refused(error: BaseException) -> bool:
    """Whether an error says that the engine has not even begun with a request."""
    import tinker

    return isinstance(error, tinker.APIStatusError) and error.status_code in _NOT_BEGUN


def result_of(future: tinker.APIFuture[_T]) -> _T:
    """The SDK's answer, for an engine's methods, which block; to be used within `explained()`.

    The SDK itself would ask for an hour a service that wants to be paid, and for minutes one that answers nothing.

    Raises:
        EnvironmentProblem: The service wants to be paid, or answers nothing for five minutes or a run's `--patience`.
        TinkerError: The request failed.
    """
    waiting = future.future()
    while not concurrent.futures.wait([waiting], timeout=_LOOK_SECONDS).done:
        if (trouble := pulse.trouble()) is not None:
            waiting.cancel()
            raise trouble
    return waiting.result()


@cache
def _hear_credentials() -> None:
    """What a credential command prints is a secret as well, and only the SDK runs it."""
    from tinker.lib._auth_token_provider import CredentialCmdAuthProvider

    get_token = CredentialCmdAuthProvider.get_token

    async def heard(self: CredentialCmdAuthProvider) -> str | None:
        token = await get_token(self)
        learn(token or "")
        return token

    CredentialCmdAuthProvider.get_token = heard  # type: ignore[method-assign]


def _in_words(error: tinker.TinkerError) -> CharrunError:
    """An error of the SDK's as charrun tells it; a service may quote in it what it was sent."""
    import tinker

    told = hide_message(_OF_THE_SDK.sub("", str(error)))
    if isinstance(error, tinker.AuthenticationError):
        return EnvironmentProblem("the engine refuses the key", "set TINKER_API_KEY, or run: tinker auth login")
    if isinstance(error, tinker.PermissionDeniedError):
        return EnvironmentProblem(f"the engine refuses access: {told}", "check the key, its project and the address")
    if isinstance(error, tinker.BillingError):
        return unpaid(told)
    if isinstance(error, tinker.APIConnectionError):
        return EnvironmentProblem(f"the engine can't be reached: {told}", _AGAIN)
    if isinstance(error, tinker.NotFoundError | tinker.BadRequestError | tinker.UnprocessableEntityError):
        return StageFailed(f"the engine refuses a request: {told}", _AGAIN)
    return _failed(told)


def _failed(told: str) -> CharrunError:
    """An engine's failure; what the system says of its disk is no defect of a stage."""
    told = hide_message(_OF_THE_SDK.sub("", told))
    for words, number in _UNWRITTEN.items():
        if words in told:
            return disk_problem("the engine cannot write", OSError(number, words))
    return StageFailed(f"the engine failed: {told}", _AGAIN)
