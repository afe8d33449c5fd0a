"""What must never be shown: keys, wherever they are found, and what an address may carry."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

KEY_VARIABLES = ("TINKER_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
COMMAND_VARIABLE = "TINKER_CREDENTIAL_CMD"
ADDRESS_VARIABLE = "TINKER_BASE_URL"
HIDDEN = "[hidden]"
_SHORTEST = 4


def stored_login() -> Path:
    """Where `tinker auth login` keeps keys."""
    return Path.home() / ".tinker" / "credentials.json"


class Secrets:
    """Everything secret that this process can see, to be taken out of what it prints.

    Args:
        addresses: Further addresses, whose user, password and query are secret too.
    """

    def __init__(self, addresses: Iterable[str] = ()) -> None:
        found = [os.environ.get(name, "") for name in (*KEY_VARIABLES, COMMAND_VARIABLE)]
        found += _stored_keys()
        for address in (os.environ.get(ADDRESS_VARIABLE, ""), *addresses):
            found += _parts(address)
        both = {form for value in found for form in (value, value.strip(), quote(value, safe=""))}
        self._values = sorted((value for value in both if len(value) >= _SHORTEST), key=len, reverse=True)

    def hide(self, text: str) -> str:
        """The text without them."""
        for value in self._values:
            text = text.replace(value, HIDDEN)
        return text


def shown_address(address: str) -> str:
    """An address without user, password and query."""
    try:
        parts = urlsplit(address)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
    except ValueError:
        return HIDDEN


def _stored_keys() -> Iterator[str]:
    try:
        value = json.loads(stored_login().read_text(encoding="utf-8"))
        records = value.get("keys", {}).values()
        yield from (record["key"] for record in records if isinstance(record.get("key"), str))
    except (OSError, ValueError, AttributeError, TypeError):
        return


def _parts(address: str) -> Iterator[str]:
    try:
        parts = urlsplit(address)
    except ValueError:
        yield address
        return
    yield from (part for part in (parts.username, parts.password, parts.query) if part)
