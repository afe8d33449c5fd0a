"""Fetching a checkpoint's adapter files: an external copy at the engine, then its files over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath

from charrun.errors import EnvironmentProblem, StageFailed
from charrun.service.explained import explained
from charrun.service.service import Service

_TTL_SECONDS = 6 * 3600
_CHUNK = 1 << 20


async def download_adapter(service: Service, state_path: str, name: str, folder: Path) -> dict[str, str]:
    """Put the adapter files of a training checkpoint into a folder that exists.

    Returns:
        SHA-256 by file name, of what was received.

    Raises:
        StageFailed: The engine names a file outside the folder, or none.
        EnvironmentProblem: A file can't be fetched or written.
    """
    client = await service.adapter_from(state_path)
    with explained():
        external = (await client.save_weights_external(name, ttl_seconds=_TTL_SECONDS)).path
    urls = await service.download_urls(external)
    if not urls:
        raise StageFailed(f"the engine has no files for {external}")
    digests = {}
    for file, url in sorted(urls.items()):
        parts = PurePosixPath(file).parts
        if len(parts) != 1 or parts[0] in ("..", "/"):
            raise StageFailed(f"the engine names a file outside the adapter: {file!r}")
        digests[file] = await asyncio.to_thread(_fetch, url, folder / file)
    return digests


def _fetch(url: str, target: Path) -> str:
    aside = target.with_name(f".tmp-{os.getpid()}-{target.name}")
    state = hashlib.sha256()
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, aside.open("wb") as file:
            while chunk := answer.read(_CHUNK):
                state.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, target)
    except (urllib.error.URLError, OSError) as error:
        raise EnvironmentProblem(f"cannot fetch {target.name}: {error}", "run the same command again") from error
    finally:
        aside.unlink(missing_ok=True)
    return state.hexdigest()
