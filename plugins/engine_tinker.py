"""The hosted Tinker service, or any other server at a base URL that speaks its protocol."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from charrun import Billed, Connection, Engine, EngineRequest, EnvironmentProblem, StoredCheckpoint, hookimpl

if TYPE_CHECKING:
    import tinker

_REACH_SECONDS = 10
_HEALTH = "/api/v1/healthz"
_PAGE = 100
_HOUR = 3600
_WINDOW = 14 * 24 * _HOUR
"""As much as the service tells of at once."""
_NO_BILL = (400, 404, 405, 410, 422, 501)
"""What a service answers that has no billing rows."""
_ALONE = "the ledger stands by itself: `charrun cost` shows it"
_NAMED = 12


class TinkerEngine(Engine):
    """Whatever answers at Tinker's address, or at `base_url`."""

    name: ClassVar[str] = "tinker"
    summary: ClassVar[str] = "the hosted Tinker service, or a server at base_url that speaks its protocol"
    hosted: ClassVar[bool] = True
    options_schema: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {
            "base_url": {
                "type": "string",
                "pattern": "^https?://",
                "description": "Address of the server; by default TINKER_BASE_URL, then the hosted service.",
            }
        },
        "additionalProperties": False,
    }

    def connect(self, request: EngineRequest) -> Connection:
        """Check credentials, address and models before anything is paid."""
        os.environ.setdefault("TINKER_TELEMETRY", "0")
        base_url = request.options.get("base_url")
        key = self._credentials()
        self._reach(str(base_url) if base_url else self._default_address())
        contexts = self._check_models(request, base_url, key)
        return Connection(base_url=base_url, api_key=key, exact=False, contexts=contexts)

    def holds(self, paths: Sequence[str], request: EngineRequest) -> Mapping[str, bool]:
        """Ask the service; what it does not answer at once is not known."""
        import tinker

        os.environ.setdefault("TINKER_TELEMETRY", "0")
        found: dict[str, bool] = {}
        try:
            rest = tinker.RestClient(base_url=request.options.get("base_url"))
            for path in paths:
                try:
                    rest.get_weights_info_by_tinker_path(path).result(timeout=_REACH_SECONDS)
                    found[path] = True
                except (tinker.NotFoundError, tinker.BadRequestError):
                    found[path] = False
        except (tinker.TinkerError, TimeoutError):
            pass
        return found

    def stored(self, request: EngineRequest) -> Sequence[StoredCheckpoint]:
        """Page through the account's checkpoints, after one look whether anything answers."""
        import tinker

        from charrun import explained, result_of

        base_url = request.options.get("base_url")
        key = self._credentials()
        self._reach(str(base_url) if base_url else self._default_address())
        found: dict[str, StoredCheckpoint] = {}
        with explained():
            rest = tinker.RestClient(base_url=base_url, api_key=key)
            while True:
                page = result_of(rest.list_user_checkpoints(limit=_PAGE, offset=len(found))).checkpoints
                fresh = {each.tinker_path: _stored(each) for each in page if each.tinker_path not in found}
                if not fresh:
                    return list(found.values())
                found |= fresh

    def discard(self, paths: Sequence[str], request: EngineRequest) -> None:
        """Ask the service to delete them."""
        import tinker

        from charrun import explained, result_of

        rest = tinker.RestClient(base_url=request.options.get("base_url"))
        for path in paths:
            with explained(), contextlib.suppress(tinker.NotFoundError):
                result_of(rest.delete_checkpoint_from_tinker_path(path))

    def billed(self, since: float, until: float, request: EngineRequest) -> Sequence[Billed]:
        """Ask for the account's usage by the hour, two weeks at a time; it lags by some hours.

        Raises:
            EnvironmentProblem: The service has no billing rows, or the key may not read them.
        """
        import tinker

        from charrun import explained, result_of

        os.environ.setdefault("TINKER_TELEMETRY", "0")
        base_url = request.options.get("base_url")
        self._credentials()
        address = str(base_url) if base_url else self._default_address()
        self._reach(address)
        start, end = since // _HOUR * _HOUR, until // _HOUR * _HOUR + _HOUR
        found: list[Billed] = []
        with explained():
            account = tinker.AdminClient(base_url=base_url)
            while start < end:
                next_one = min(start + _WINDOW, end)
                try:
                    answer = result_of(account.get_billing_usage(_time(start), _time(next_one)))
                except tinker.APIStatusError as error:
                    if told := _no_bill(error):
                        raise EnvironmentProblem(f"{address} {told}", _ALONE) from error
                    raise
                notes = {id: session.user_metadata or {} for id, session in answer.sessions.items()}
                found += [each for event in answer.data if (each := _billed(event, notes))]
                start = next_one
        return found

    def _credentials(self) -> str | None:
        from tinker import TinkerError
        from tinker.lib._auth_token_provider import resolve_auth_provider

        try:
            resolve_auth_provider(None, enforce_cmd=False)
        except TinkerError as error:
            raise EnvironmentProblem(
                f"no usable Tinker credentials: {str(error).splitlines()[0]}",
                "set TINKER_API_KEY, or run: tinker auth login; engine: local needs none",
            ) from error
        return None  # the SDK finds them again by itself

    def _default_address(self) -> str:
        from tinker.lib.base_url import DEFAULT_BASE_URL

        return os.environ.get("TINKER_BASE_URL") or DEFAULT_BASE_URL

    def _reach(self, address: str) -> None:
        """One plain request: the SDK itself would retry an unreachable address for minutes."""
        import http.client
        import urllib.error
        import urllib.request
        from urllib.parse import urlsplit

        try:
            # The SDK sends user and password of an address as a header; here a refusal is an answer as well.
            parts = urlsplit(address)
            place = parts._replace(netloc=parts.netloc.rpartition("@")[2], path=f"{parts.path.rstrip('/')}{_HEALTH}")
            urllib.request.urlopen(place.geturl(), timeout=_REACH_SECONDS).close()
        except urllib.error.HTTPError:
            return  # something answers
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise EnvironmentProblem(
                f"nothing answers at {address}: {reason}", "check base_url, TINKER_BASE_URL and the network"
            ) from error

    def _check_models(self, request: EngineRequest, base_url: Any, key: str | None) -> dict[str, int]:
        """All models are served, for what is wanted of them; returns their contexts, as far as they are told."""
        import tinker

        from charrun import explained, result_of, retired_models

        with explained():
            answer = result_of(tinker.RestClient(base_url=base_url, api_key=key).get_server_capabilities())
        served = {model.model_name: model for model in answer.supported_models if model.model_name}
        names = set(served)
        lacking = [model for model in request.models if model not in names]
        if not lacking:
            _require_uses(request, served)
            return {name: model.max_context_length for name, model in served.items() if model.max_context_length}
        retired = retired_models()
        lines = []
        for model in lacking:
            line = f"the service does not list '{model}'"
            if model in retired:
                line += f": retired on {retired[model].date}, its successor is {retired[model].successor}"
            lines.append(line)
        raise EnvironmentProblem("\n".join(lines), _instead(lacking, retired, names, request.successors))


def _require_uses(request: EngineRequest, served: Mapping[str, tinker.types.SupportedModel]) -> None:
    """Models can be sampled from, and trained where they are to be.

    Raises:
        EnvironmentProblem: The service says of one that it cannot.
    """
    lines = [
        f"the service does not sample from '{each}'" for each in request.models if served[each].sampleable is False
    ]
    lines += [f"the service does not train '{each}'" for each in request.trained if served[each].trainable is False]
    if lines:
        able = [name for name, each in served.items() if each.sampleable is not False and each.trainable is not False]
        raise EnvironmentProblem("\n".join(lines), f"it does both with {_listing(able)}")


def _listing(served: Collection[str]) -> str:
    """Some names of models."""
    names = sorted(served)
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED]) or 'none'}{more}"


def _instead(lacking: Sequence[str], retired: Collection[str], served: Collection[str], successors: str) -> str:
    """What to do about models that are not served."""
    hints = []
    if any(model in retired for model in lacking):
        hints.append(f"successors are taken by {successors}" if successors else "name successors in the spec")
    if any(model not in retired for model in lacking):
        hints.append(f"it lists {_listing(served)}")
    return "; ".join(hints)


def _no_bill(error: tinker.APIStatusError) -> str:
    """That there is no bill to read, in words; empty where the error is another one."""
    if error.status_code == 403:
        return "does not let this key read the account's billing rows"
    return "has no billing rows to compare with" if error.status_code in _NO_BILL else ""


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _billed(event: tinker.types.BillingUsageEvent, notes: Mapping[str, Mapping[str, str]]) -> Billed | None:
    """An event of tokens."""
    info = event.event_info
    if info.type == "sampling_prefill":
        kind: Literal["prefill", "cached", "sampled", "training"] = "cached" if info.cached else "prefill"
    elif info.type == "sampling_sample":
        kind = "sampled"
    elif info.type == "training":
        kind = "training"
    else:
        return None
    note = notes.get(event.session_id or "", {})
    return Billed(note, event.base_model or "", kind, info.token_count, event.estimated_cost_usd)


def _stored(checkpoint: tinker.types.Checkpoint) -> StoredCheckpoint:
    return StoredCheckpoint(
        path=checkpoint.tinker_path,
        note=checkpoint.user_metadata or {},
        size=checkpoint.size_bytes,
        created=checkpoint.time.timestamp(),
        expires=checkpoint.expires_at.timestamp() if checkpoint.expires_at else None,
    )


@hookimpl
def charrun_register_engines() -> list[type[Engine]]:
    """The hosted service."""
    return [TinkerEngine]
