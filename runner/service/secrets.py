"""What must never be shown: keys, wherever they are found, and what an address may carry."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote, unquote

from charrun.home import home

KEY_VARIABLES = ("TINKER_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
COMMAND_VARIABLE = "TINKER_CREDENTIAL_CMD"
ADDRESS_VARIABLE = "TINKER_BASE_URL"
HIDDEN = "[hidden]"
_SHORTEST = 4
# Addresses that are wrong hold secrets too, so nothing is parsed: all up to the last @, all from the first ? or #.
_USER = re.compile(r"^([a-z+.-]*:?//)?(.*@)", re.IGNORECASE | re.DOTALL)
_AFTER = re.compile(r"[?#].*", re.DOTALL)


def stored_login() -> Path:
    """Where `tinker auth login` keeps keys."""
    return home() / ".tinker" / "credentials.json"


class Secrets:
    """Everything secret that this process can see, to be taken out of what it prints."""

    def __init__(self) -> None:
        self._values: list[str] = []
        self._add(os.environ.get(name, "") for name in (*KEY_VARIABLES, COMMAND_VARIABLE))
        self._add(_stored_keys())
        self.add_address(os.environ.get(ADDRESS_VARIABLE, ""))

    def add_address(self, address: str) -> None:
        """Hide the user, the password and the query of an address too."""
        self._add(_parts(address))

    def hide(self, text: str) -> str:
        """The text without them."""
        for value in self._values:
            text = text.replace(value, HIDDEN)
        return text

    def _add(self, values: Iterable[str]) -> None:
        forms = {form for value in values for form in (value, value.strip(), quote(value, safe=""))}
        found = {*self._values, *(form for form in forms if len(form) >= _SHORTEST)}
        self._values = sorted(found, key=len, reverse=True)  # a longer one may hold a shorter one


def shown_address(address: str) -> str:
    """An address without user, password and query."""
    return _AFTER.sub("", _USER.sub(r"\1", address))


def _stored_keys() -> Iterator[str]:
    try:
        value = json.loads(stored_login().read_text(encoding="utf-8"))
        records = value.get("keys", {}).values()
        yield from (record["key"] for record in records if isinstance(record.get("key"), str))
    except (OSError, ValueError, AttributeError, TypeError):
        return


def _parts(address: str) -> Iterator[str]:
    """What an address carries beside the place: whole, and in the pieces that an error may quote."""
    carried = [match[2].removesuffix("@") for match in [_USER.match(address)] if match]
    carried += [match[0][1:] for match in [_AFTER.search(address)] if match]
    for text in carried:
        yield from (form for piece in (text, *re.split("[:/&=]", text)) for form in (piece, unquote(piece)))
