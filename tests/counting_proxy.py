"""A server before an engine that passes everything on and counts what was asked, by path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from faults.proxy import proxied


@contextmanager
def counting(base_url: str) -> Iterator[tuple[str, Counter[str]]]:
    """The proxy's address, and the number of requests by path so far."""
    with proxied(base_url) as proxy:
        yield proxy.base_url, proxy.ledger.requests
