"""The price book: what ships, and what a fetched list changes in it."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from run_copies import Call, caller

from charrun.errors import EnvironmentProblem
from charrun.spec import price_list
from charrun.spec.facts import model_table
from charrun.spec.price_list import read_list
from charrun.spec.prices import FIGURES, fetched_file, price_book, shipped_book

SERVED = [name for name, each in shipped_book().models.items() if not each.retired]
KNOWN = [{"tinker_id": name, **shipped_book().models[name].price.figures()} for name in SERVED]  # type: ignore[union-attr]
LEFT_OUT = "Qwen/Qwen3.5-4B"
LIST: list[dict[str, Any]] = [
    {"name": "Qwen3-8B", "tinker_id": "Qwen/Qwen3-8B", "context": "32K", "prefill": "$0.26", "cached_prefill": "$0.052",
     "sample": "$0.60", "train": "$0.44"},
    {"tinker_id": "new/Model", "context": 131072, "prefill": 1, "sample": "2.5", "train": None},
    {"tinker_id": "Qwen/Qwen3-32B", "prefill": "$0.5", "sample": "$1,000", "train": "-", "context": "1M"},
    *(each for each in KNOWN if each["tinker_id"] not in ("Qwen/Qwen3-8B", LEFT_OUT)),
]  # fmt: skip


class Published(BaseHTTPRequestHandler):
    """A list as Tinker's documentation serves it: to whoever says what program it is."""

    body = b""

    def do_GET(self) -> None:
        known = not self.headers["User-Agent"].startswith("Python-urllib")
        self.send_response(200 if known else 403)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def published() -> Iterator[str]:
    """Address of a list."""
    Published.body = json.dumps(LIST).encode()
    with ThreadingHTTPServer(("127.0.0.1", 0), Published) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/models.json"
        server.shutdown()


@pytest.fixture
def invoke(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return caller(capsys, monkeypatch)


def test_every_figure_of_the_shipped_book_has_a_source_and_a_day() -> None:
    book = shipped_book()
    assert {"Qwen/Qwen3-8B", "Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-235B-A22B-Instruct-2507"} <= set(book.models)
    for name, entry in model_table()["models"].items():
        price = book.price(name)
        assert price is not None and price.source and price.date == model_table()["sources"][entry["source"]]["date"]
        assert set(price.derived) <= set(FIGURES)
        assert 0 < price.cached_prefill < price.prefill < price.sample and (price.train or 1) > 0
    assert book.date == max(source["date"] for source in model_table()["sources"].values())


def test_who_follows_a_retired_model_is_served() -> None:
    models = shipped_book().models
    retired = {name: each.retired for name, each in models.items() if each.retired}
    assert len(retired) >= 16
    for since in retired.values():
        assert since.successor not in retired and since.date < "2026-11-22"


def test_a_fetched_list_is_kept_and_what_it_changes_is_told(invoke: Call, published: str) -> None:
    outcome = invoke("prices", "--refresh", "--from", published)
    assert outcome.code == 0, outcome.text
    told = outcome.out.splitlines()
    assert told[0] == f"{len(LIST)} models of {published} are kept in {fetched_file()}"
    assert "Qwen/Qwen3-8B: prefill 0.195 -> 0.26 (+33%), cached_prefill 0.039 -> 0.052 (+33%)" in told
    assert "new/Model: new: prefill 1.00, cached_prefill 0.20, sample 2.50" in told
    assert "Qwen/Qwen3.5-4B: not listed any more" in told
    (again,) = [line for line in told if line.startswith("Qwen/Qwen3-32B: listed again")]
    assert "context 32K -> 1,024K" in again and "sample 1.47 -> 1000.00" in again and "train 1.47 -> not given" in again
    assert len([line for line in told[1 : told.index("")] if ": " in line]) == 4
    assert "nothing has changed" in invoke("prices", "--refresh", "--from", published).out

    found = json.loads(invoke("prices", "--json").out)
    assert found["fetched"] == found["date"] == found["models"]["new/Model"]["date"]
    assert (
        found["models"]["new/Model"]["derived"] == ["cached_prefill"] and found["models"]["new/Model"]["train"] is None
    )
    assert found["models"]["Qwen/Qwen3-8B"]["prefill"] == 0.26 and found["models"]["Qwen/Qwen3-8B"]["served"]
    assert found["models"]["Qwen/Qwen3-32B"]["served"] and not found["models"]["Qwen/Qwen3.5-4B"]["served"]
    assert found["models"]["Qwen/Qwen3-30B-A3B"]["retired"]["successor"] == "Qwen/Qwen3.6-35B-A3B"


def test_a_retired_model_that_is_listed_again_is_not_warned_of(invoke: Call, published: str, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    models = "{teacher: Qwen/Qwen3-32B, student: meta-llama/Llama-3.3-70B-Instruct}"
    stages = "[prompts, teacher, student]"
    spec.write_text(
        f"version: 1\nname: x\ncharacters: [pirate]\nmodels: [{models}]\nscales: [smoke]\nstages: {stages}\n"
    )

    def warned() -> set[str]:
        told = invoke("validate", spec).text
        return {
            name for name in ("Qwen/Qwen3-32B", "Llama-3.3-70B-Instruct") if re.search(f"Tinker retired .*{name}", told)
        }

    assert warned() == {"Qwen/Qwen3-32B", "Llama-3.3-70B-Instruct"}
    assert invoke("prices", "--refresh", "--from", published).code == 0
    assert warned() == {"Llama-3.3-70B-Instruct"}


def test_without_a_network_the_book_stays_as_it_is(invoke: Call, published: str, tmp_path: Path) -> None:
    assert invoke("prices", "--refresh", "--from", published).code == 0
    kept = fetched_file().read_bytes()
    bad = tmp_path / "bad.json"
    for body in ("no JSON", "[]", '{"models": 3}', '[{"tinker_id": "a", "prefill": "cheap", "sample": 1}]'):
        bad.write_text(body)
        outcome = invoke("prices", "--refresh", "--from", bad)
        assert outcome.code == 5 and "the book stays as it is" in outcome.err
    Published.body = b"x" * 100
    assert invoke("prices", "--refresh", "--from", published).code == 5
    outcome = invoke("prices", "--refresh", "--from", "http://127.0.0.1:9/models.json")
    assert outcome.code == 5 and "cannot be read" in outcome.err
    assert invoke("prices", "--refresh", "--from", tmp_path / "nowhere.json").code == 5
    assert fetched_file().read_bytes() == kept


SPOILT = json.dumps(
    {
        "version": 1,
        "date": "2026-11-26",
        "models": {
            "a": {
                "context": 1,
                "prefill": "1",
                "cached_prefill": 1,
                "sample": 1,
                "train": None,
                "derived": [],
                "source": "s",
                "date": "d",
            }
        },
    }
)


@pytest.mark.parametrize(
    "text",
    ["", "{}", '{"version": 9, "date": "d", "models": {}}', '{"version": 1, "models": 1}', "[" * 100_000, SPOILT],
)
def test_a_damaged_fetched_list_counts_as_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "prices.json").write_text(text)
    assert price_book(tmp_path / "prices.json") == shipped_book()


def test_what_of_a_list_cannot_be_understood_is_named() -> None:
    entries = [*LIST, 7, {"x": 1}, {"tinker_id": "odd", "prefill": "cheap", "sample": 1}, {"tinker_id": "bare"}]
    entries += [{"tinker_id": "half", "prefill": 1}, {"tinker_id": "new/Model", "prefill": 9, "sample": 9}]
    listed, strange = read_list(json.dumps({"models": entries}).encode(), "here", "2026-11-26")
    first = len(LIST) + 1
    assert strange == [
        f"entry {first} names no model", f"entry {first + 1} names no model",
        "odd: its prefill is 'cheap', which is no price", "half: its sample is not given",
        "new/Model is listed twice, and not the same: the first counts",
    ]  # fmt: skip
    assert set(listed) == {"Qwen/Qwen3-8B", "new/Model", "Qwen/Qwen3-32B", "bare", "odd", "half"} | set(SERVED) - {
        LEFT_OUT
    }
    assert listed["bare"].price is listed["odd"].price is listed["half"].price is None
    assert listed["new/Model"].context == 131072
    with pytest.raises(EnvironmentProblem, match="lists no models"):
        read_list(b'[{"tinker_id": ""}, {"tinker_id": "a\\ud800"}]', "here", "2026-11-26")
    with pytest.raises(EnvironmentProblem, match="0 of its 1 entries: a: its prefill is -1, which is no price"):
        read_list(b'[{"tinker_id": "a", "prefill": -1, "sample": 1}]', "here", "2026-11-26")
    with pytest.raises(EnvironmentProblem, match="0 of its 1 entries: a has none"):
        read_list(b'{"models": {"a": {"pricing": {"prefill": 1, "sample": 2}}}}', "here", "2026-11-26")


def test_what_was_not_meant_is_told(invoke: Call) -> None:
    assert invoke("prices", "--from", "x").err == "error: --from names a list to fetch\n  add --refresh\n"
    assert invoke("prices", "nothing").code == 2
    outcome = invoke("prices", "8b")
    assert "Qwen/Qwen3-8B " in outcome.out and "397B" not in outcome.out


def test_a_price_that_cannot_be_read_is_told_and_the_known_one_stays(invoke: Call, published: str) -> None:
    """Also one that only an earlier list had."""
    assert invoke("prices", "--refresh", "--from", published).code == 0
    before = price_book()
    changes: dict[str, dict[str, object]] = {
        "Qwen/Qwen3-8B": {"prefill": "call us"},
        "new/Model": {"sample": None},
        SERVED[2]: {"prefill": None, "sample": None},
    }
    Published.body = json.dumps([{**each, **changes.get(each["tinker_id"], {})} for each in LIST]).encode()
    outcome = invoke("prices", "--refresh", "--from", published)
    assert outcome.code == 0
    told = outcome.out.splitlines()[1 : outcome.out.splitlines().index("")]
    assert told == [
        "not understood: Qwen/Qwen3-8B: its prefill is 'call us', which is no price",
        "not understood: new/Model: its sample is not given",
        f"Qwen/Qwen3-8B: the price of {before.date} stays",
        f"new/Model: the price of {before.date} stays",
        f"{SERVED[2]}: the price of {before.date} stays",
        "nothing has changed",
    ]
    assert price_book() == before and not price_book().models["Qwen/Qwen3-8B"].unlisted


def test_every_figure_that_goes_is_told(invoke: Call, published: str) -> None:
    assert invoke("prices", "--refresh", "--from", published).code == 0
    Published.body = json.dumps([{**each, "train": None} for each in KNOWN]).encode()
    outcome = invoke("prices", "--refresh", "--json", "--from", published)
    assert json.loads(outcome.out)["models"]["Qwen/Qwen3-8B"]["prefill"] == 0.195
    told = outcome.err.splitlines()
    assert "new/Model: not known any more: prefill 1.00, cached_prefill 0.20, sample 2.50" in told
    assert any(
        line.startswith("Qwen/Qwen3-32B: not listed any more") or "sample 1000.00 -> 1.47" in line for line in told
    )
    for name in SERVED:
        if shipped_book().models[name].price.train:  # type: ignore[union-attr]
            assert any(line.startswith(f"{name}: ") and "-> not given" in line for line in told), name


def test_a_list_in_another_unit_is_refused_unless_told(invoke: Call, tmp_path: Path) -> None:
    prices = ("prefill", "cached_prefill", "sample", "train")
    dear = [{**each, **{name: each[name] and each[name] * 1000 for name in prices}} for each in KNOWN]
    (tmp_path / "dear.json").write_text(json.dumps(dear))
    refused = invoke("prices", "--refresh", "--from", tmp_path / "dear.json")
    assert refused.code == 5 and not fetched_file().exists()
    known = f"changes {len(SERVED)} of {len(SERVED)} known prices more than 10-fold"
    assert known in refused.err and "--anyway takes the list as it is" in refused.err
    assert invoke("prices", "--refresh", "--anyway", "--from", tmp_path / "dear.json").code == 0


def test_a_cached_prompt_that_costs_more_than_one_that_is_not_is_no_price(invoke: Call, tmp_path: Path) -> None:
    """A budget reserves prompts as prefill."""
    spoilt = {**KNOWN[0], "cached_prefill": 50}
    (tmp_path / "list.json").write_text(json.dumps([spoilt, *KNOWN[1:]]))
    told = invoke("prices", "--refresh", "--from", tmp_path / "list.json")
    name = KNOWN[0]["tinker_id"]
    assert told.code == 0 and f"not understood: {name}: its cached_prefill is more than its prefill" in told.out
    assert price_book().price(name) == shipped_book().price(name)


def test_a_list_that_lacks_most_of_what_is_served_is_refused_unless_told(invoke: Call, tmp_path: Path) -> None:
    short = tmp_path / "short.json"
    short.write_text(json.dumps([{"tinker_id": "Qwen/Qwen3-8B", "prefill": 1, "sample": 2}]))
    outcome = invoke("prices", "--refresh", "--from", short)
    assert outcome.code == 5 and not fetched_file().exists()
    assert outcome.err.splitlines() == [
        f"error: {short} lists 1 of {len(SERVED)} models that were served so far: is it damaged?",
        "  the book stays as it is; --anyway takes the list as it is",
    ]
    assert invoke("prices", "--anyway").code == 2
    outcome = invoke("prices", "--refresh", "--anyway", "--from", short)
    assert outcome.code == 0 and outcome.out.count("not listed any more") == len(SERVED) - 1
    assert "Qwen/Qwen3-8B: prefill 0.195 -> 1.00" in outcome.out and "train 0.44 -> not given" in outcome.out


ANSWERS = {
    "no HTTP": (b"GARBAGE\r\n\r\n", "does not speak HTTP"),
    "nothing": (b"", "does not speak HTTP"),
    "a broken chunk": (b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n{"a"', "breaks off"),
    "too short": (b'HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{"models": [', "is not JSON"),
    "nested": (b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 200_000, "nested too deeply"),
    "nested mappings": (b"HTTP/1.1 200 OK\r\n\r\n" + b'{"a":' * 200_000, "nested too deeply"),
    "not UTF-8": (b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe\xfa", "is not JSON"),
    "compressed": (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x00rubbish", "is not JSON"),
    "round in circles": (b"HTTP/1.1 302 F\r\nLocation: /again\r\n\r\n", "answers 302"),
    "to a file": (b"HTTP/1.1 302 F\r\nLocation: file:///etc/passwd\r\n\r\n", "answers 302"),
    "too much": (b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (5 << 20), "is larger than 4 MiB"),
    "too long a line": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", "cannot be read"),
    "a long number": (b'HTTP/1.1 200 OK\r\n\r\n[{"tinker_id": "a", "prefill": ' + b"9" * 5000 + b"}]", "is not JSON"),
}


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], str]]:
    """Starts a server that answers each request with some bytes; returns an address there."""
    stops: list[Callable[[], None]] = []

    def serve(answer: bytes) -> str:
        listening = socket.create_server(("127.0.0.1", 0))

        def work() -> None:
            with contextlib.suppress(OSError):
                while True:
                    caller, _ = listening.accept()
                    with caller, contextlib.suppress(OSError):
                        caller.recv(4096)
                        caller.sendall(answer)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        stops.extend([lambda: listening.shutdown(socket.SHUT_RDWR), listening.close, thread.join])
        return f"http://127.0.0.1:{listening.getsockname()[1]}/models.json"

    yield serve
    for stop in stops:
        with contextlib.suppress(OSError):
            stop()


@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_that_is_none_is_told_and_nothing_is_kept(
    case: str, invoke: Call, answering: Callable[[bytes], str]
) -> None:
    answer, told = ANSWERS[case]
    outcome = invoke("prices", "--refresh", "--from", answering(answer))
    assert outcome.code == 5 and told in outcome.err, outcome.err
    assert len(outcome.err.splitlines()) == 2 and "the book stays as it is" in outcome.err
    assert not fetched_file().exists()


@pytest.mark.parametrize(
    "place",
    ["http://exa mple/x", "http://[::1", "http://", "HTTP://127.0.0.1:1x/x", "http://x/\u00f6", "ftp://x/y", "", "."],
)
def test_a_place_that_is_none_is_told(place: str, invoke: Call) -> None:
    outcome = invoke("prices", "--refresh", "--from", place)
    assert outcome.code == 5 and "cannot be read" in outcome.err and not fetched_file().exists()


def test_a_password_in_the_address_is_not_told(invoke: Call) -> None:
    outcome = invoke(
        "prices", "--refresh", "--from", "http://somebody:pa55w0rd-of-theirs@127.0.0.1:9/x?key=s3cr3t-value"
    )
    assert outcome.code == 5 and "pa55w0rd" not in outcome.text and "s3cr3t" not in outcome.text


def test_a_server_that_sends_a_byte_now_and_then_is_left(invoke: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(price_list, "_ALL_SECONDS", 0.05)
    go_on = threading.Event()

    def slow(request: object, timeout: float) -> None:
        assert timeout == 20 and go_on.wait(60)
        raise OSError("left")

    monkeypatch.setattr("urllib.request.urlopen", slow)
    outcome = invoke("prices", "--refresh", "--from", "http://127.0.0.1:9/models.json")
    go_on.set()
    assert outcome.code == 5 and "it has not come to an end within 0.05 s" in outcome.err


def test_a_file_without_an_end_is_not_read_to_its_end(invoke: Call) -> None:
    outcome = invoke("prices", "--refresh", "--from", "/dev/zero")
    assert outcome.code == 5 and "/dev/zero is larger than 4 MiB" in outcome.err
