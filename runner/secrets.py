"""What must never be written or shown: keys, wherever they are found, and what an address may carry.

Contract:
1. A secret is hidden in everything that is written or printed.
2. It is hidden percent-encoded, escaped, in hexadecimal and in base64 as well.
3. A key that an error body or a spec holds is hidden where it is told.
4. What is no secret is left as it is.

One process has one set of secrets: what the environment's credentials hold, the stored login, user, password and query
of addresses, keys of engines that it starts, and key-like values of specs that it reads. Writers of the store call
`hide`; `guarded_streams` does so for what is printed.
"""

from __future__ import annotations

import base64
import contextlib
import html
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, quote_plus, unquote

from charrun.home import home

KEY_VARIABLES = ("TINKER_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
COMMAND_VARIABLE = "TINKER_CREDENTIAL_CMD"
ADDRESS_VARIABLE = "TINKER_BASE_URL"
HIDDEN = "[hidden]"

_SHORTEST, _SHORTEST_PIECE = 8, 4
_OF_VARIABLE = "_env"
"""How fields are called that name an environment variable, such as `api_key_env`."""
_CREDENTIAL = re.compile(
    r"(?:^|[_-])(?:API_?KEY|ACCESS_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|AUTH)(?:$|[_-])", re.IGNORECASE
)
KEY_LIKE = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"tml-[A-Za-z0-9_-]{12,}|sk-[A-Za-z0-9_-]{16,}|hf_[A-Za-z0-9]{16,}|gh[opsur]_[A-Za-z0-9]{20,}"
    r"|github_pat_[A-Za-z0-9_]{20,}|AKIA[0-9A-Z]{16}|xox[abeprs]-[A-Za-z0-9-]{10,}|AIza[0-9A-Za-z_-]{30,}"
    r"|eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]+)?"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?:[^-]*-----END [A-Z ]*PRIVATE KEY-----)?"
    r")"
)
# Addresses that are wrong hold secrets too, so nothing is parsed: all up to the last @, all from the first ? or #.
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^\s\"'<>]+", re.IGNORECASE)
_USER = re.compile(r"^([a-z+.-]*:?//)?(.*@)", re.IGNORECASE | re.DOTALL)
_AFTER = re.compile(r"[?#].*", re.DOTALL)
_BASE64 = "[A-Za-z0-9+/_-]{0,2}"


def stored_login() -> Path:
    """Where `tinker auth login` keeps keys."""
    return home() / ".tinker" / "credentials.json"


class _Secrets:
    """A set of secrets in all their forms."""

    def __init__(self) -> None:
        self._values: set[str] = set()
        self._forms: tuple[str, ...] = ()
        self._encoded: tuple[tuple[str, re.Pattern[str]], ...] = ()

    def add(self, values: Iterable[str], shortest: int) -> None:
        """Hide these from now on, unless they are shorter than that."""
        fresh = {each for value in values for each in (value, value.strip()) if len(each) >= shortest}
        if fresh <= self._values:
            return
        self._values |= fresh
        forms = {form for value in self._values for form in _forms(value)}
        self._forms = tuple(sorted(forms, key=len, reverse=True))
        cores = {core for value in self._values if len(value) >= _SHORTEST for core in _base64(value)}
        self._encoded = tuple((core, re.compile(f"{_BASE64}{re.escape(core)}{_BASE64}={{0,2}}")) for core in cores)

    def hide(self, text: str) -> str:
        """The text without them."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, HIDDEN)
        for core, around in self._encoded:
            if core in text:
                text = around.sub(HIDDEN, text)
        return text


_secrets = _Secrets()
_pieces = _Secrets()
"""Short parts of secrets, such as a password of five letters: hidden in messages, and not in data, of which they may be
a word."""


def hide(text: str) -> str:
    """A text without any secret that this process knows."""
    return _secrets.hide(text)


def hide_message(text: str) -> str:
    """A text for people, such as an error's: also without pieces of secrets and without what looks like a key."""
    return KEY_LIKE.sub(HIDDEN, _pieces.hide(hide(text)))


def learn(*values: str) -> None:
    """Secrets that this process has come to know."""
    _secrets.add(values, _SHORTEST)
    _pieces.add(values, _SHORTEST_PIECE)


def learn_address(address: str) -> None:
    """User, password and query of an address are secrets."""
    carried = list(_carried(address))
    _secrets.add(carried, _SHORTEST)
    _secrets.add([piece for text in carried for piece in _pieces_of(text) if _is_guess(piece)], _SHORTEST)
    _pieces.add([piece for text in carried for piece in (text, *_pieces_of(text))], _SHORTEST_PIECE)


def learn_environment() -> None:
    """What credentials there are: variables, a stored login."""
    named = (*KEY_VARIABLES, COMMAND_VARIABLE)
    values = [os.environ.get(name, "") for name in named]
    values += [v for name, v in os.environ.items() if name not in named and is_credential(name) and _is_guess(v)]
    learn(*values, *_stored_keys())
    learn_address(os.environ.get(ADDRESS_VARIABLE, ""))


def is_credential(name: str) -> bool:
    """Whether a variable's or a field's name says that its value is secret."""
    return bool(_CREDENTIAL.search(name))


def secrets_of(name: str, text: str) -> list[str]:
    """What of a value in a file is probably secret.

    Args:
        name: The key that it stands under.
        text: The value.
    """
    found = [match[0] for match in KEY_LIKE.finditer(text)]
    for address in _ADDRESS.finditer(text):
        found += [carried for carried in _carried(address[0]) if any(map(_is_guess, _pieces_of(carried)))]
    if is_credential(name) and not name.lower().endswith(_OF_VARIABLE) and _is_guess(text):
        found.append(text)
    return found


def shown_address(address: str) -> str:
    """An address without user, password and query."""
    return _AFTER.sub("", _USER.sub(r"\1", address))


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """Nothing secret leaves through stdout and stderr while the block runs."""
    learn_environment()
    streams = [stream for stream in (sys.stdout, sys.stderr) if stream is not None and "write" not in vars(stream)]
    for stream in streams:
        _guard(stream)
    try:
        yield
    finally:
        for stream in streams:
            with contextlib.suppress(AttributeError):
                del stream.write


def _guard(stream: IO[str]) -> None:
    write = stream.write

    def guarded(text: str, /) -> int:
        write(hide(text))
        return len(text)

    stream.write = guarded  # type: ignore[method-assign]


def _is_guess(value: str) -> bool:
    """Whether the value of what is named like a credential can be one: no word, number, path or reference."""
    if len(value) < _SHORTEST or value.startswith(("/", "./", "~", "$", "${")) or any(c.isspace() for c in value):
        return False
    return not value.replace("-", "").replace("_", "").isalpha() and not value.replace(".", "").isdigit()


def _forms(value: str) -> Iterator[str]:
    """How a secret may stand in a text, base64 aside."""
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield html.escape(value)
    yield html.escape(value, quote=False)
    once = [quote(value, safe=""), quote(value), quote_plus(value), "".join(f"%{b:02X}" for b in value.encode())]
    for form in [*once, *(quote(form, safe="") for form in once)]:  # an address may be quoted within another
        yield form
        yield re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), form)
    if len(value) >= _SHORTEST:
        yield value.encode().hex()
        yield value.encode().hex().upper()


def _base64(value: str) -> Iterator[str]:
    """The characters that a secret alone determines, at each place that it may have in what is encoded."""
    data = value.encode()
    for offset in range(3):
        text = base64.b64encode(b"\0" * offset + data).decode()
        core = text[math.ceil(offset * 8 / 6) : (offset + len(data)) * 8 // 6]
        yield core
        yield core.replace("+", "-").replace("/", "_")


def _stored_keys() -> Iterator[str]:
    try:
        value: Any = json.loads(stored_login().read_text(encoding="utf-8"))
        records = value.get("keys", {}).values()
        yield from (record["key"] for record in records if isinstance(record.get("key"), str))
    except (OSError, ValueError, AttributeError, TypeError):
        return


def _carried(address: str) -> list[str]:
    """What an address carries beside the place: user and password, query."""
    carried = [match[2].removesuffix("@") for match in [_USER.match(address)] if match]
    return carried + [match[0][1:] for match in [_AFTER.search(address)] if match]


def _pieces_of(carried: str) -> Iterator[str]:
    """The pieces that an error may quote."""
    for piece in re.split("[:/&=]", carried):
        yield piece
        yield unquote(piece)


learn_environment()
