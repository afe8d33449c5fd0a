"""`--set stages.dpo.with.beta=0.2`: a layer from one text of the command line."""

from __future__ import annotations

from dataclasses import dataclass

from charrun.errors import SpecError
from charrun.spec.compose import MAX_DEPTH, Composer
from charrun.spec.document import Mark, Node, Source
from charrun.spec.yaml import Parsed, compose, decode

_BREAKS = "\n\r\x85\u2028\u2029"
_SHAPE = "write --set KEY.KEY=VALUE, such as --set stages.dpo.with.beta=0.2"


def parse_set(text: str, number: int) -> Parsed:
    """The layer that a text of `--set` describes.

    Args:
        text: `KEY.KEY=VALUE`; a key that holds a dot stands in double quotes, and the value is YAML.
        number: Its number on the command line, from 1.

    Raises:
        SpecError: If it is none.
    """
    name = f"--set #{number}"
    text, lines = decode(_bytes(text), name)
    source = Source(name, None, lines)
    keys, end = _keys(text, source)
    if not text[end:].strip():
        hint = "null removes a key, '' is an empty text"
        raise _refused(source, Mark(1, end + 1), "no value after '='", hint)
    composer = Composer(source, column=end)
    root = compose(composer, text[end:]) or Node(None, Mark(1, end + 1), source)
    if len(keys) + root.height > MAX_DEPTH:
        raise _refused(source, Mark(1, 1), f"nested more than {MAX_DEPTH} levels deep", "write it flatter", "SPEC005")
    for key in reversed(keys):
        place = Node(key.text, key.mark, source)
        root = Node({key.text: (place, root)}, key.mark, source, 1 + root.size, 1 + root.height)
    return Parsed(root, source, tuple(composer.problems), composer.references, frozenset(composer.spoiled))


def _bytes(text: str) -> bytes:
    """The bytes that the shell gave, of which Python makes surrogates where they are not UTF-8."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class _Key:
    text: str
    mark: Mark


def _keys(text: str, source: Source) -> tuple[list[_Key], int]:
    """The keys before the first `=` outside quotes, and where the value begins."""
    keys: list[_Key] = []
    at = 0
    while True:
        key, at = _key(text, at, source)
        if not key.text:
            raise _refused(source, key.mark, "an empty key")
        keys.append(key)
        if len(keys) > MAX_DEPTH:
            raise _refused(source, key.mark, f"nested more than {MAX_DEPTH} levels deep", "write it flatter", "SPEC005")
        if at == len(text) or text[at] not in ".=":
            raise _refused(source, Mark(1, min(at, len(text)) + 1), "no '=' after the key")
        at += 1
        if text[at - 1] == "=":
            break
    if keys[0].text == "extends":
        raise _refused(source, keys[0].mark, "'extends' is read before --set", "change it in the file")
    return keys, at


def _key(text: str, at: int, source: Source) -> tuple[_Key, int]:
    """The key that begins at `at`, and where it ends."""
    if text[at : at + 1] == '"':
        end = text.find('"', at + 1)
        if end < 0 or set(_BREAKS) & set(text[at:end]):
            raise _refused(source, Mark(1, at + 1), "a quote is not closed")
        return _Key(text[at + 1 : end], Mark(1, at + 1, end + 1 - at)), end + 1
    end = at
    while end < len(text) and text[end] not in '.="' + _BREAKS:
        end += 1
    word = text[at:end]
    first = at + len(word) - len(word.lstrip())
    return _Key(word.strip(), Mark(1, first + 1, max(1, len(word.strip())))), end


def _refused(source: Source, mark: Mark, message: str, hint: str = _SHAPE, code: str = "SPEC044") -> SpecError:
    return SpecError([source.problem(mark, code, message, hint)])
