"""The SDK's clients by model and checkpoint, opened when first needed, and its errors in plain words."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import errno
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from charrun.chat import Chat, load_tokenizer
from charrun.errors import CharrunError, EnvironmentProblem, StageFailed, disk_problem
from charrun.secrets import hide_message, learn
from charrun.service.engine import Connection
from charrun.service.models import local_folder
from charrun.service.pulse import listen, pulse, unpaid

if TYPE_CHECKING:
    import tinker
    from tinker import types

_LOOK_SECONDS = 0.5
_AGAIN = "what is recorded stays; run the same command again"
_NO_RESULT = "Error retrieving result: "
"""What the SDK's ValueErrors of an answer that it cannot use begin with."""
_OF_THE_SDK = re.compile(r"(?: \(status \d+\)| with status \d+)? for self\.request_id=.*", re.DOTALL)
"""How the SDK ends what it tells of an answer; its own names say nothing to people."""
_UNWRITTEN = {os.strerror(number): number for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)}
_NOT_BEGUN = (400, 401, 402, 403, 404, 413, 422, 429)
_T = TypeVar("_T")


class Sampler(Protocol):
    """The two methods by which charrun samples and scores, in the SDK's own types."""

    def sample(
        self, prompt: types.ModelInput, num_samples: int, sampling_params: types.SamplingParams
    ) -> tinker.APIFuture[types.SampleResponse]:
        """Sample sequences after a prompt."""

    def compute_logprobs(
        self, prompt: types.ModelInput, prompt_logprobs_last_n: int | None = None
    ) -> tinker.APIFuture[list[float | None]]:
        """Log-probs of a prompt's own tokens; the first is None."""


@dataclass(frozen=True)
class RoleSampler:
    """A sampler with its rendering and identity.

    Attributes:
        client: The SDK's sampling client, or another `Sampler`.
        chat: The rendering of the model's conversations.
        model: Model name or checkpoint path, as rows record it.
        fingerprint: Identity of the weights and the rendering, part of every key.
        context_length: Longest prompt plus answer, in tokens; None where the engine does not say.
    """

    client: Sampler
    chat: Chat
    model: str
    fingerprint: str
    context_length: int | None


class Service:
    """One SDK session with an engine; `open` begins it."""

    _client: tinker.ServiceClient
    _rest: tinker.RestClient

    def __init__(self, connection: Connection, metadata: Mapping[str, str]) -> None:
        self.connection = connection
        self._address: dict[str, Any] = {"base_url": connection.base_url, "api_key": connection.api_key}
        self._metadata = dict(metadata)
        self._is_open = False
        self._chats: dict[str, Chat] = {}
        self._samplers: dict[str, Sampler] = {}
        self._served: dict[str, types.SupportedModel] = {}
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Begin the session, and ask what the engine serves."""
        os.environ.setdefault("TINKER_TELEMETRY", "0")
        import tinker

        with explained():
            # Its constructor waits for the session: not here, where somebody may press Ctrl-C meanwhile.
            begin = partial(tinker.ServiceClient, user_metadata=self._metadata, **self._address)
            self._client = await _in_thread(begin)
            self._is_open = True
            self._rest = tinker.RestClient(**self._address)
            found = await self._rest.get_server_capabilities()
        self._served = {model.model_name: model for model in found.supported_models if model.model_name}

    def context_length(self, model: str) -> int | None:
        """Longest prompt plus answer of a base model, in tokens."""
        served = self._served.get(model)
        return served.max_context_length if served else None

    def capabilities(self, model: str) -> dict[str, Any]:
        """What the engine says of a base model: `context_length`, `trainable`, `sampleable`, as far as it says so."""
        served = self._served.get(model)
        if served is None:
            return {}
        said = {
            "context_length": served.max_context_length,
            "trainable": served.trainable,
            "sampleable": served.sampleable,
        }
        return {name: value for name, value in said.items() if value is not None}

    async def chat(self, model: str, options: Mapping[str, Any]) -> Chat:
        """The rendering of a model: tokenizer from this machine for local models, else by the SDK."""
        key = f"{model} {sorted(options.items())}"
        async with self._opening:
            if key not in self._chats:
                folder = local_folder(model)
                tokenizer = load_tokenizer(folder) if folder else await self._hosted_tokenizer(model)
                self._chats[key] = Chat(tokenizer, options, name=model)
        return self._chats[key]

    async def sampler(self, base_model: str, path: str | None = None) -> Sampler:
        """A sampling client of a base model, or of a checkpoint's sampler weights."""
        async with self._opening:
            client: Sampler = await self._open_sampler(base_model, path)
        return client

    async def new_adapter(self, base_model: str, rank: int, seed: int) -> tinker.TrainingClient:
        """A fresh LoRA adapter on attention and MLP, not on the output layer."""
        with explained():
            client: tinker.TrainingClient = await self._client.create_lora_training_client(
                base_model=base_model,
                rank=rank,
                seed=seed,
                train_mlp=True,
                train_attn=True,
                train_unembed=False,
            )
        return client

    async def adapter_from(self, state_path: str) -> tinker.TrainingClient:
        """An adapter that continues a saved state's weights with a fresh optimizer."""
        with explained():
            client: tinker.TrainingClient = await self._client.create_training_client_from_state(state_path)
        return client

    async def resumed_adapter(self, state_path: str) -> tinker.TrainingClient | None:
        """An adapter that goes on from a saved state, optimizer included; None where the engine cannot give it."""
        import tinker
        from tinker.types import RequestErrorCategory

        if not await self.exists(state_path):
            return None
        with explained():
            try:
                client: tinker.TrainingClient = await self._client.create_training_client_from_state_with_optimizer(
                    state_path
                )
            except (tinker.NotFoundError, tinker.BadRequestError):
                return None
            except tinker.RequestFailedError as error:
                if error.category != RequestErrorCategory.User:
                    raise
                return None
        return client

    async def exists(self, path: str) -> bool:
        """Whether the engine still holds a checkpoint."""
        import tinker

        with explained():
            try:
                await self._rest.get_weights_info_by_tinker_path(path)
            except (tinker.NotFoundError, tinker.BadRequestError):
                return False
        return True

    async def delete(self, path: str) -> None:
        """Delete a checkpoint; one that cannot be deleted expires by itself."""
        import tinker

        with contextlib.suppress(tinker.TinkerError):
            await self._rest.delete_checkpoint_from_tinker_path(path)

    async def download_urls(self, external_path: str) -> dict[str, str]:
        """Download addresses of an external checkpoint's files, by file name."""
        with explained():
            return dict((await self._rest.get_external_weights_urls(external_path)).urls)

    async def close(self, status: str = "success") -> None:
        """End the session at the engine; an engine that is gone already is no error."""
        if not self._is_open:
            return
        # Requests that an interruption gave up fail within the SDK now, and nobody is left to hear of it.
        logging.getLogger("asyncio").addFilter(_is_news)
        with contextlib.suppress(Exception):
            await asyncio.wait_for(asyncio.shield(self._client.close(status).coroutine()), timeout=5)  # type: ignore[arg-type]

    async def _open_sampler(self, base_model: str, path: str | None = None) -> Any:
        key = path or base_model
        if key not in self._samplers:
            with explained():
                self._samplers[key] = await (
                    self._client.create_sampling_client(model_path=path)
                    if path
                    else self._client.create_sampling_client(base_model=base_model)
                )
        return self._samplers[key]

    async def _hosted_tokenizer(self, model: str) -> Any:
        client = await self._open_sampler(model)
        try:
            return await asyncio.to_thread(client.get_tokenizer)
        except Exception as error:  # the hub client raises many kinds
            raise EnvironmentProblem(
                f"cannot load the tokenizer of '{model}': {error}",
                "the SDK takes it from the Hugging Face hub: check the network, and HF_TOKEN for gated models",
            ) from error


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


async def _in_thread(work: Callable[[], _T]) -> _T:
    """What a call returns that blocks: in a thread that nobody waits for at the end."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failed = None, None
        try:
            result = work()
        except BaseException as error:
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result, failed)

    threading.Thread(target=run, daemon=True).start()
    return await answer


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


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a message of asyncio's is about more than a task that was given up."""
    message = record.getMessage()
    return "was never retrieved" not in message and "was destroyed but it is pending" not in message
