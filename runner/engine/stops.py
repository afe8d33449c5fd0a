"""When a sequence ends: at a token, or at the token that completes a string."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

UNFINISHED_CHARACTER = "\ufffd"


@dataclass(frozen=True)
class StopRule:
    """Ends a sequence after a token of `tokens`, or after the token with which its text contains one of `strings`.

    Attributes:
        tokens: Token ids.
        strings: Texts, none empty.
        tokenizer: What decodes the tokens; needed for strings only.
    """

    tokens: frozenset[int]
    strings: tuple[str, ...] = ()
    tokenizer: Any = None

    def ends(self, tokens: Sequence[int]) -> bool:
        """Whether the last of these sampled tokens ends the sequence."""
        last = tokens[-1]
        if last in self.tokens:
            return True
        return bool(self.strings) and any(self._completes(text, tokens, last) for text in self.strings)

    def _completes(self, text: str, tokens: Sequence[int], last: int) -> bool:
        # A token without the last character cannot complete the text: most are ruled out without decoding.
        piece = _piece(self.tokenizer, last)
        if text[-1] not in piece and UNFINISHED_CHARACTER not in piece:
            return False
        # A character is at most four tokens; the few more cover a character cut at the window's start.
        window = list(tokens[-(4 * len(text) + 8) :])
        return text in decode(self.tokenizer, window)


def decode(tokenizer: Any, tokens: list[int]) -> str:
    """The exact text of tokens, special ones included."""
    return str(tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False))


@lru_cache(maxsize=65_536)
def _piece(tokenizer: Any, token: int) -> str:
    return decode(tokenizer, [token])
