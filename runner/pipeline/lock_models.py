"""What a lock says of a model: what it can do, and hashes of its chat template and tokenizer.

Of a local folder it is read off the files alone, without torch or transformers, unless the folder is of an older kind
that only transformers understands. Both ways give the same hashes, which do not depend on where a tokenizer lay.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrun.errors import EnvironmentProblem
from charrun.service.models import local_folder
from charrun.store.canonical import digest

if TYPE_CHECKING:
    from charrun.service.service import Service
    from charrun.spec import ModelRef

_PASSING = ("truncation", "padding")
"""Settings that a tokenizer keeps from its last call."""


def folder_facts(name: str, folder: Path) -> dict[str, Any]:
    """What the files of a local model folder say.

    Raises:
        EnvironmentProblem: It is no model's, or holds no tokenizer or no chat template.
    """
    from charrun.engine.folders import describe

    try:
        context = describe(name, folder).context
        found = _read(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EnvironmentProblem(f"cannot lock {name}: {error}", "download the model anew") from error
    return {"context_length": context, **(found or _loaded(folder, name))}


def local_facts(names: Iterable[str], strict: bool) -> dict[str, dict[str, Any]]:
    """What the files of several local models say, by the models' names.

    Args:
        names: Names of local models.
        strict: Whether one whose files are not whole is an error, or is left out.

    Raises:
        EnvironmentProblem: One is not whole.
    """
    found = {}
    for name in sorted(names):
        folder = local_folder(name)
        try:
            found[name] = folder_facts(name, folder) if folder else {}
        except EnvironmentProblem:
            if strict:
                raise
    return found


async def served_facts(service: Service, ref: ModelRef) -> dict[str, Any]:
    """What a service says of a model, by requests that cost nothing.

    Raises:
        EnvironmentProblem: Its tokenizer cannot be had, or has no chat template.
    """
    chat = await service.chat(ref.name, ref.chat)
    return {**service.capabilities(ref.name), **_facts_of(chat.tokenizer)}


def _loaded(folder: Path, name: str) -> dict[str, Any]:
    from charrun.chat import Chat, load_tokenizer

    return _facts_of(Chat(load_tokenizer(folder), name=name).tokenizer)


def _facts_of(tokenizer: Any) -> dict[str, Any]:
    """Of a tokenizer as transformers loads it; those that are not made of `tokenizers` count by their vocabulary."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        parts = json.loads(backend.to_str())
    else:
        vocabulary: Mapping[Any, int] = getattr(tokenizer, "get_vocab", dict)()
        parts = {"class": type(tokenizer).__name__, "vocabulary": {str(key): id for key, id in vocabulary.items()}}
    end = getattr(tokenizer, "eos_token", None)
    return _facts(len(tokenizer), tokenizer.chat_template, parts, end)


def _read(folder: Path) -> dict[str, Any] | None:
    """What the files say; None where only transformers can tell."""
    template = _template(folder)
    if not template or not (folder / "tokenizer.json").is_file():
        return None
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # it raises the base class itself
        raise ValueError(f"tokenizer.json of {folder} cannot be read: {error}") from error
    end = _config(folder, "tokenizer_config.json").get("eos_token")
    if end is None:
        end = _config(folder, "special_tokens_map.json").get("eos_token")
    parts = json.loads(tokenizer.to_str())
    return _facts(tokenizer.get_vocab_size(with_added_tokens=True), template, parts, end)


def _facts(size: int, template: Any, parts: Mapping[str, Any], end: Any) -> dict[str, Any]:
    end = end["content"] if isinstance(end, dict) else end
    lasting = {key: value for key, value in parts.items() if key not in _PASSING}
    return {
        "vocabulary": size,
        "chat_template_sha256": _sha256(template) if isinstance(template, str) else digest(template),
        "tokenizer_sha256": digest({"tokenizer": lasting, "end": None if end is None else str(end)}),
    }


def _template(folder: Path) -> Any:
    """The chat template as transformers finds it: files first, then the tokenizer's configuration."""
    files = {"default": folder / "chat_template.jinja"}
    files |= {path.stem: path for path in sorted(folder.glob("additional_chat_templates/*.jinja"))}
    found = {name: path.read_text(encoding="utf-8") for name, path in files.items() if path.is_file()}
    if found:
        return found["default"] if list(found) == ["default"] else found
    written = _config(folder, "tokenizer_config.json").get("chat_template")
    if isinstance(written, list):
        return {each["name"]: each["template"] for each in written}
    return written


def _config(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    value = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return value if isinstance(value, dict) else {}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
