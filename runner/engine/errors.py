"""What the engine answers when a request cannot be served."""

from __future__ import annotations

LONGEST = 1000
"""Characters of a refusal."""


class RequestRefused(Exception):
    """A request that is wrong or names something that is not there; answered with a 4xx and its sentence.

    Attributes:
        message: What is wrong, as a sentence.
        status: HTTP status. Never 408, 409, 429 or 5xx for a wrong request: the SDK would retry those for minutes.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        # Names that a client sent are repeated in the sentence; a very long one would be sent back whole.
        message = message if len(message) <= LONGEST else f"{message[: LONGEST - 200]} ... {message[-200:]}"
        super().__init__(message)
        self.message = message
        self.status = status


class Busy(Exception):
    """A right request at a bad time; answered with 429 and Retry-After, upon which the SDK sends it again.

    Attributes:
        message: What the server is short of, as a sentence.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
