"""What of this machine a run depends on: packages, processor, credentials, clock. Nothing is changed by a check."""

from __future__ import annotations

import json
import os
import platform
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from charrun.errors import CharrunError, Interrupted
from charrun.secrets import ADDRESS_VARIABLE, COMMAND_VARIABLE, shown_address, stored_login

KEY_VARIABLE = "TINKER_API_KEY"
NAMED_PACKAGES = ("tinker", "torch", "transformers", "peft")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_REACH_SECONDS = 10
_FAR_SECONDS, _TOO_FAR_SECONDS = 30, 300


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes:
        name: What was checked, in one stable word.
        level: Whether it is as it should be.
        what: What was found, in one line.
        advice: What to do about it; empty where nothing needs to be done.
    """

    name: str
    level: Literal["ok", "warning", "problem"]
    what: str
    advice: str = ""


def guarded(name: str, check: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """What a check finds; an error within it is a problem too, and not the end of all checks."""
    try:
        yield from check()
    except Interrupted:
        raise
    except CharrunError as error:
        yield Check(name, "problem", "; ".join(error.message.splitlines()), error.hint)
    except Exception as error:  # a machine that is out of order can fail in any way
        yield Check(name, "problem", f"{name} cannot be checked: {type(error).__name__}: {error}")


def packages() -> Iterator[Check]:
    """Python and every package against the ranges that charrun declares."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    try:
        needed = [Requirement(text) for text in requires("charrun") or ()]
        python = SpecifierSet(metadata("charrun")["Requires-Python"] or "")
    except PackageNotFoundError:
        yield Check("packages", "warning", "charrun is not installed, so its ranges are unknown", "pip install charrun")
        return
    here = platform.python_version()
    fits = python.contains(here, prereleases=True)
    yield (
        Check("python", "ok", f"Python {here}")
        if fits
        else Check("python", "problem", f"Python {here} is outside {python}", f"install a Python {python}")
    )
    needed = [each for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    found: dict[str, str] = {}
    for each in needed:
        try:
            found[each.name] = version(each.name)
        except PackageNotFoundError:
            yield Check("packages", "problem", f"{each.name} is not installed", f"pip install '{each}'")
            continue
        if not each.specifier.contains(found[each.name], prereleases=True):
            what = f"{each.name} {found.pop(each.name)} is outside {each.specifier}"
            yield Check("packages", "problem", what, f"pip install '{each}'")
    named = ", ".join(f"{name} {found[name]}" for name in NAMED_PACKAGES if name in found)
    yield Check("packages", "ok", f"{len(found)} of {len(needed)} packages are within charrun's ranges: {named}")


def processor() -> Iterator[Check]:
    """Threads and CUDA, as torch sees them."""
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check("torch", "problem", f"torch cannot be imported: {error}", "pip install --force-reinstall torch")
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    many = threads > cores
    yield Check(
        "torch",
        "warning" if many else "ok",
        f"torch computes with {threads} threads on {cores} cores",
        "more threads than cores slow each other down: unset OMP_NUM_THREADS" if many else "",
    )
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        yield Check("cuda", "ok", f"CUDA {torch.version.cuda}: {names}")
    elif Path("/proc/driver/nvidia/version").exists():
        build = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "for the CPU alone"
        yield Check(
            "cuda",
            "warning",
            f"there is an NVIDIA GPU, and this torch, built {build}, cannot use it",
            "install a torch build for this machine's CUDA driver, or go on with the CPU",
        )
    else:
        yield Check("cuda", "ok", "no CUDA device: the local engine computes on the CPU")


def credentials() -> Iterator[Check]:
    """Where Tinker credentials are found, in the order in which the SDK looks; never what they are."""
    key, command = os.environ.get(KEY_VARIABLE, ""), os.environ.get(COMMAND_VARIABLE, "")
    sources = [f"the variable {KEY_VARIABLE}"] if key else []
    sources += [f"the command in {COMMAND_VARIABLE}"] if command else []
    sources += [f"the stored login {stored_login()}"] if has_login() else []
    if key and not key.startswith(("tml-", "eyJ")):
        what = f"{KEY_VARIABLE} is set to what is no Tinker key: it begins neither with tml- nor with eyJ"
        instead = f"{COMMAND_VARIABLE} is used instead" if command else "copy the key anew, or unset the variable"
        yield Check("credentials", "warning" if command else "problem", what, instead)
    elif sources:
        rest = f"; {', '.join(sources[1:])} is not looked at" if sources[1:] else ""
        yield Check("credentials", "ok", f"Tinker credentials come from {sources[0]}{rest}")
    else:
        yield Check(
            "credentials",
            "ok",
            "there are no Tinker credentials: engine auto stays on this machine",
            "for the hosted service set TINKER_API_KEY, or run: tinker auth login",
        )
    yield from _stored()
    yield from _address_variable()


def service_address() -> str | None:
    """Where the SDK would go, or None where neither credentials nor an address point anywhere."""
    if os.environ.get(ADDRESS_VARIABLE):
        return os.environ[ADDRESS_VARIABLE]
    if os.environ.get(KEY_VARIABLE) or os.environ.get(COMMAND_VARIABLE) or has_login():
        from tinker.lib.base_url import DEFAULT_BASE_URL

        return str(DEFAULT_BASE_URL)
    return None


def clock(address: str | None) -> Iterator[Check]:
    """The system clock against charrun's own files and the service's clock, where there is a service."""
    now, installed = time.time(), Path(__file__).stat().st_mtime
    if installed > now + _FAR_SECONDS or not time.get_clock_info("monotonic").monotonic:
        what = f"the clock says {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, which is before charrun was installed"
        yield Check("clock", "problem", what, "set the clock: certificates and time stamps depend on it")
        return
    if address is None:
        yield Check("clock", "ok", f"the clock says {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
        return
    there = _service_time(address)
    if there is None:
        what = f"the clock cannot be compared: {shown_address(address)} does not tell its own"
        yield Check("clock", "warning", what, f"check the network and {ADDRESS_VARIABLE}")
        return
    apart = abs(there)
    level: Literal["ok", "warning", "problem"] = (
        "problem" if apart > _TOO_FAR_SECONDS else "warning" if apart > _FAR_SECONDS else "ok"
    )
    direction = "ahead of" if there > 0 else "behind"
    what = (
        f"the clock is {apart:,.0f} s {direction} the service's" if apart > 2 else "the clock agrees with the service"
    )
    yield Check("clock", level, what, "" if level == "ok" else "set the clock: keys and links expire by it")


def _service_time(address: str) -> float | None:
    """Seconds by which this clock is ahead of the service's, to about a second; None where it does not tell."""
    before = time.time()
    try:
        url = f"{address.rstrip('/')}/api/v1/healthz"
        with urllib.request.urlopen(url, timeout=_REACH_SECONDS) as answer:
            date = answer.headers.get("Date")
    except urllib.error.HTTPError as error:
        date = error.headers.get("Date")
    except Exception:  # an address that is none fails in many ways; the engine's own check tells which
        return None
    after = time.time()
    try:
        return (before + after) / 2 - parsedate_to_datetime(date).timestamp() - 0.5
    except (TypeError, ValueError):
        return None


def has_login() -> bool:
    """Whether there is a stored login with a default key."""
    try:
        value = json.loads(stored_login().read_text(encoding="utf-8"))
        return bool(value.get("default")) and value["default"] in value["keys"]
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return False


def _stored() -> Iterator[Check]:
    """What is wrong with the stored login, where there is one."""
    path = stored_login()
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        yield Check("credentials", "warning", f"{path} cannot be read: {error}", "run: tinker auth login")
        return
    if not has_login():
        yield Check("credentials", "warning", f"{path} holds no login that can be used", "run: tinker auth login")
    elif os.name == "posix" and mode & 0o077:
        yield Check("credentials", "warning", f"others on this machine may read {path}", f"chmod 600 {path}")


def _address_variable() -> Iterator[Check]:
    address = os.environ.get(ADDRESS_VARIABLE, "")
    if not address:
        return
    shown = shown_address(address)
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        what = f"{ADDRESS_VARIABLE} is no address: {shown}"
        yield Check("address", "problem", what, "it looks like https://HOST or http://127.0.0.1:PORT")
    elif parts.scheme == "http" and parts.hostname not in LOOPBACK:
        what = f"{ADDRESS_VARIABLE} is {shown}: the key travels there in the clear"
        yield Check("address", "warning", what, "use https")
    else:
        yield Check("address", "ok", f"{ADDRESS_VARIABLE} is {shown}")
