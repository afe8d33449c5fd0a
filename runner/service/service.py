"""The engine as a run uses it: what it serves, renderings, checkpoints, and the sessions of stages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from charrun.chat import Chat, load_tokenizer
from charrun.endpoint import Endpoint
from charrun.errors import EnvironmentProblem, StageFailed
from charrun.service.endpoint_sampler import ChatClient, EndpointSampler
from charrun.service.engine import Connection
from charrun.service.explained import explained
from charrun.service.models import local_folder
from charrun.service.session import Sampler, Session

_TOLD_SECONDS = 3.0
"""How long a size is waited for that is only told: the SDK itself would try for minutes."""

if TYPE_CHECKING:
    import tinker
    from tinker import types


@dataclass(frozen=True)
class RoleSampler:
    """A sampler with its rendering and identity.

    Attributes:
        client: The SDK's sampling client, or another `Sampler`.
        chat: The rendering of the model's conversations; of a model at an endpoint, which renders them itself, the
            student's, by which lengths count.
        model: Model name or checkpoint path, as rows record it.
        fingerprint: Identity of the weights and the rendering, part of every key.
        context_length: Longest prompt plus answer, in tokens; None where the engine does not say.
        endpoint: Where the model lives, if not at the engine: it samples from messages, and cannot score.
    """

    client: Sampler
    chat: Chat
    model: str
    fingerprint: str
    context_length: int | None
    endpoint: Endpoint | None = None


class Service(Session):
    """The engine as a run uses it: what it serves, renderings, checkpoints, and sessions of stages.

    Args:
        connection: The engine.
        note: What its own session carries there.
    """

    _rest: tinker.RestClient

    def __init__(self, connection: Connection, note: Mapping[str, str]) -> None:
        super().__init__(connection, note)
        self._chats: dict[str, Chat] = {}
        self._elsewhere: dict[str, EndpointSampler] = {}
        self._served: dict[str, types.SupportedModel] = {}

    async def open(self) -> None:
        """Begin its own session, and ask what the engine serves."""
        await super().open()
        import tinker

        with explained():
            self._rest = tinker.RestClient(**self._address)
            found = await self._rest.get_server_capabilities()
        self._served = {model.model_name: model for model in found.supported_models if model.model_name}

    async def begin(self, note: Mapping[str, str]) -> Session:
        """A further session, which carries the same and more."""
        session = Session(self.connection, {**self.metadata, **note})
        await session.open()
        return session

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
        async with self._opening[key]:
            if key not in self._chats:
                folder = local_folder(model)
                # Not in a thread: transformers cannot be imported by two at once.
                tokenizer = load_tokenizer(folder) if folder else await self._hosted_tokenizer(model)
                self._chats[key] = Chat(tokenizer, options, name=model)
        return self._chats[key]

    def elsewhere(self, model: str, endpoint: Endpoint, options: Mapping[str, Any], chat: Chat) -> ChatClient:
        """A sampler of a model at an endpoint.

        Args:
            model: What the spec calls it.
            endpoint: Where it lives.
            options: Arguments of its chat template.
            chat: By which lengths count.
        """
        key = f"{model} {endpoint} {sorted(options.items())}"
        if key not in self._elsewhere:
            self._elsewhere[key] = EndpointSampler(endpoint, options)
        return self._elsewhere[key]

    async def close(self, status: str = "success") -> None:
        """End its own session, and connections to endpoints."""
        for each in self._elsewhere.values():
            with contextlib.suppress(Exception):
                await each.close()
        await super().close(status)

    async def exists(self, path: str, expires: float | None = None) -> bool:
        """Whether the engine still holds a checkpoint, whatever its expiry was said to be (in seconds since 1970)."""
        import tinker

        with explained():
            try:
                await self._rest.get_weights_info_by_tinker_path(path)
            except (tinker.NotFoundError, tinker.BadRequestError):
                return False
        return True

    async def base_model(self, path: str) -> str | None:
        """The model that a checkpoint was trained from; None where the engine does not say.

        Raises:
            StageFailed: The engine does not hold it.
        """
        import tinker

        with explained():
            try:
                found = await self._rest.get_weights_info_by_tinker_path(path)
            except (tinker.NotFoundError, tinker.BadRequestError) as error:
                raise StageFailed(f"the engine does not hold {path}", "name a checkpoint that is there") from error
        return found.base_model or None

    async def size(self, *paths: str) -> int | None:
        """Bytes of checkpoints together; None where the engine does not say."""
        import tinker

        async def listed(run: str) -> dict[str, int | None]:
            found = await self._rest.list_checkpoints(run)
            return {each.tinker_path: each.size_bytes for each in found.checkpoints}

        sizes: dict[str, int | None] = {}
        with contextlib.suppress(tinker.TinkerError, TimeoutError):  # it is only told
            for run in {path.removeprefix("tinker://").partition("/")[0] for path in paths}:
                sizes |= await asyncio.wait_for(listed(run), _TOLD_SECONDS)
        known = [size for path in paths if (size := sizes.get(path)) is not None]
        return sum(known) if len(known) == len(paths) else None

    async def delete(self, path: str) -> None:
        """Delete a checkpoint; one that cannot be deleted expires by itself."""
        import tinker

        with contextlib.suppress(tinker.TinkerError):
            await self._rest.delete_checkpoint_from_tinker_path(path)

    async def download_urls(self, external_path: str) -> dict[str, str]:
        """Download addresses of an external checkpoint's files, by file name."""
        with explained():
            return dict((await self._rest.get_external_weights_urls(external_path)).urls)

    async def _hosted_tokenizer(self, model: str) -> Any:
        client: Any = await self.sampler(model)
        try:
            return await asyncio.to_thread(client.get_tokenizer)
        except Exception as error:  # the hub client raises many kinds
            raise EnvironmentProblem(
                f"cannot load the tokenizer of '{model}': {error}",
                "the SDK takes it from the Hugging Face hub: check the network, and HF_TOKEN for gated models",
            ) from error
