"""The price book: what ships, and what a fetched list changes in it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from run_copies import Call, caller

from charrun.errors import EnvironmentProblem
from charrun.spec.facts import model_table
from charrun.spec.price_list import read_list
from charrun.spec.prices import FIGURES, fetched_file, price_book, shipped_book

LIST = [
    {"name": "Qwen3-8B", "tinker_id": "Qwen/Qwen3-8B", "context": "32K", "prefill": "$0.26", "cached_prefill": "$0.052",
     "sample": "$0.60", "train": "$0.44"},
    {"tinker_id": "new/Model", "context": 131072, "prefill": 1, "sample": "2.5", "train": None},
    {"tinker_id": "Qwen/Qwen3-32B", "prefill": "$0.5", "sample": "$1,000", "train": "-", "context": "1M"},
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
    assert told[0] == f"3 models of {published} are kept in {fetched_file()}"
    assert "Qwen/Qwen3-8B: prefill 0.195 -> 0.26 (+33%), cached_prefill 0.039 -> 0.052 (+33%)" in told
    assert "new/Model: new: prefill 1.00, cached_prefill 0.20, sample 2.50" in told
    assert "Qwen/Qwen3.5-4B: not listed any more" in told
    (again,) = [line for line in told if line.startswith("Qwen/Qwen3-32B: listed again")]
    assert "context 32K -> 1,024K" in again and "sample 1.47 -> 1000.00" in again
    assert "nothing has changed" in invoke("prices", "--refresh", "--from", published).out

    found = json.loads(invoke("prices", "--json").out)
    assert found["fetched"] == found["date"] == found["models"]["new/Model"]["date"]
    assert (
        found["models"]["new/Model"]["derived"] == ["cached_prefill"] and found["models"]["new/Model"]["train"] is None
    )
    assert found["models"]["Qwen/Qwen3-8B"]["prefill"] == 0.26 and found["models"]["Qwen/Qwen3-8B"]["served"]
    assert found["models"]["Qwen/Qwen3-32B"]["served"] and not found["models"]["Qwen/Qwen3.5-4B"]["served"]
    assert found["models"]["Qwen/Qwen3-30B-A3B"]["retired"]["successor"] == "Qwen/Qwen3.6-35B-A3B"


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


@pytest.mark.parametrize("text", ["", "{}", '{"version": 9, "date": "d", "models": {}}', '{"version": 1, "models": 1}'])
def test_a_damaged_fetched_list_counts_as_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "prices.json").write_text(text)
    assert price_book(tmp_path / "prices.json") == shipped_book()


def test_what_of_a_list_cannot_be_understood_is_named() -> None:
    entries = [*LIST, 7, {"x": 1}, {"tinker_id": "odd", "prefill": "cheap", "sample": 1}, {"tinker_id": "bare"}]
    listed, strange = read_list(json.dumps({"models": entries}).encode(), "here", "2026-11-26")
    assert strange == [
        "entry 4 names no model", "entry 5 names no model", "odd: its prefill is 'cheap', which is no price",
    ]  # fmt: skip
    assert set(listed) == {"Qwen/Qwen3-8B", "new/Model", "Qwen/Qwen3-32B", "bare"}
    assert listed["bare"].price is None and listed["new/Model"].context == 131072
    with pytest.raises(EnvironmentProblem, match="lists no models"):
        read_list(b'[{"tinker_id": "a", "prefill": -1, "sample": 1}]', "here", "2026-11-26")


def test_what_was_not_meant_is_told(invoke: Call) -> None:
    assert invoke("prices", "--from", "x").err == "error: --from names a list to fetch\n  add --refresh\n"
    assert invoke("prices", "nothing").code == 2
    outcome = invoke("prices", "8b")
    assert "Qwen/Qwen3-8B " in outcome.out and "397B" not in outcome.out
