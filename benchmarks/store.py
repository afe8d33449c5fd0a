"""What the store costs: appending a row, opening a folder of many, and its share of a run.

    python benchmarks/store.py [--rows 20000] [--scale smoke] [--no-run]

A row is a response of one sequence of 400 tokens, about 4 kB as JSON. The reference writes the same lines without
checksum, redaction and index, synced once a second as the store syncs; it is measured in turns with the store, in the
same process, and each figure is the median of the turns. The share of a run is the time spent in the store's own
functions (records, ledger, artifacts, tickets, journal, snapshots, each with what it waits for the disk) over the wall
time of `specs/pirate-mini.yaml` at a scale, in one process with its engine beside it. A function that gives the
interpreter away for a system call waits until the SDK's threads give it back; so the processor's time in the functions
stands beside their wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from charrun.store import sync
from charrun.store.items import ItemStore, Record

REPOSITORY = Path(__file__).resolve().parent.parent
TURNS = 5
MOST_MICROSECONDS, MOST_SHARE = 100, 0.05


def record(number: int) -> Record:
    """A response as a run stores it."""
    text = f"Answer {number}: " + "the sea is wide and the wind is fair, " * 40
    return {
        "key": f"{number:064x}",
        "start": 0,
        "model": "charrun/demo-student",
        "input": {"messages": json.dumps([{"role": "user", "content": "What is the sea?" * 4}]), "item": ""},
        "sequences": [{"text": text, "tokens": [(number + i) % 1024 for i in range(400)], "stop_reason": "stop"}],
        "prompt_tokens": 60,
        "sampled_tokens": 400,
        "cache_hit_tokens": 0,
        "work": "teacher-0123456789abcdef/0123456789abcdef",
    }


def appended_by_store(folder: Path, records: list[Record]) -> float:
    """Seconds to append all, the last fsync included."""
    store = ItemStore(folder)
    started = time.perf_counter()
    for each in records:
        store.append(each)
    store.close()
    return time.perf_counter() - started


def appended_plainly(folder: Path, records: list[Record]) -> float:
    """The same lines through json.dumps and write, synced once a second."""
    folder.mkdir()
    handle = os.open(folder / "items.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    started = synced = time.perf_counter()
    for each in records:
        os.write(handle, (json.dumps(each, ensure_ascii=False) + "\n").encode())
        if time.perf_counter() - synced > sync.INTERVAL_SECONDS:
            os.fsync(handle)
            synced = time.perf_counter()
    os.fsync(handle)
    os.close(handle)
    return time.perf_counter() - started


def rows(count: int) -> list[str]:
    """Appending and opening."""
    records = [record(number) for number in range(count)]
    ours, plain, opened = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(TURNS):
            plain.append(appended_plainly(Path(folder) / f"plain-{turn}", records))
            ours.append(appended_by_store(Path(folder) / f"store-{turn}", records))
            started = time.perf_counter()
            ItemStore(Path(folder) / f"store-{turn}").close()
            opened.append(time.perf_counter() - started)
        size = (Path(folder) / "store-0" / "items.jsonl").stat().st_size
    mine, reference, again = statistics.median(ours), statistics.median(plain), statistics.median(opened)
    each = mine / count * 1e6
    verdict = "within" if each < MOST_MICROSECONDS else "ABOVE"
    plainly, times = reference / count * 1e6, mine / reference
    return [
        f"{count:,} rows of {size / count / 1000:.1f} kB, medians of {TURNS} turns",
        f"  append a row                {each:8.1f} us   {verdict} the limit of {MOST_MICROSECONDS} us",
        f"  json.dumps and write        {plainly:8.1f} us   {times:.2f} times that for the store",
        f"  throughput                  {count / mine:8,.0f} rows/s, {size / mine / 1e6:,.0f} MB/s",
        f"  open the folder again       {again:8.2f} s    every checksum verified, {size / again / 1e6:,.0f} MB/s",
    ]


def share(scale: str) -> list[str]:
    """Time in the store's functions over a run's wall time."""
    spent: Counter[str] = Counter()
    computed: Counter[str] = Counter()
    for module, names in TIMED.items():
        for name in names:
            _time(module, name, spent, computed)
    from charrun.cli import main

    with tempfile.TemporaryDirectory() as folder:
        os.environ["HOME"] = folder
        for name in [name for name in os.environ if name.startswith("TINKER_")]:
            del os.environ[name]
        started = time.perf_counter()
        try:
            main([str(REPOSITORY / "specs/pirate-mini.yaml"), "--scale", scale, "--runs-dir", f"{folder}/runs", "-q"])
        except SystemExit as ended:
            if ended.code:
                raise
        wall = time.perf_counter() - started
        records = sum(p.read_bytes().count(b"\n") for p in Path(folder, "runs/store").glob("*/*s.jsonl"))
    total = sum(spent.values())
    verdict = "within" if total / wall < MOST_SHARE else "ABOVE"
    lines = [f"{scale} scale: {wall:.1f} s, {records:,} records"]
    lines += [
        f"  {name:<27} {seconds:8.2f} s   {seconds / wall:.2%}, {computed[name]:.2f} s of the processor"
        for name, seconds in spent.most_common()
    ]
    work = sum(computed.values())
    return [
        *lines,
        f"  together                    {total:8.2f} s   {total / wall:.2%}, {verdict} the limit of 5%; "
        f"{work:.2f} s of the processor, {work / wall:.2%}",
    ]


TIMED: dict[str, tuple[str, ...]] = {
    "charrun.store.items:ItemStore": ("__init__", "append", "append_score", "close"),
    "charrun.store.ledger:Ledger": ("__init__", "reserve", "settle", "close"),
    "charrun.store.training:TrainingLog": ("__init__", "step", "saved", "close"),
    "charrun.store.training:ReferenceLog": ("__init__", "add", "sync", "close"),
    "charrun.store.run:RunFolder": ("record", "write"),
    "charrun.pipeline.work:Work": ("count", "write", "finish"),
    "charrun.pipeline.run:": ("write_snapshot",),
}
"""What is timed, by module and class; none calls another of these."""


def _time(place: str, name: str, spent: Counter[str], computed: Counter[str]) -> None:
    import importlib

    module, _, owner = place.partition(":")
    home: Any = importlib.import_module(module)
    home = getattr(home, owner) if owner else home
    function: Callable[..., Any] = getattr(home, name)
    inside = [0]

    def timed(*args: Any, **kwargs: Any) -> Any:
        inside[0] += 1
        started, began = time.perf_counter(), time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            inside[0] -= 1
            if not inside[0]:
                spent[f"{owner or 'run'}.{name}"] += time.perf_counter() - started
                computed[f"{owner or 'run'}.{name}"] += time.thread_time() - began

    setattr(home, name, timed)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--scale", default="smoke")
    parser.add_argument("--no-run", action="store_true", help="appending alone")
    options = parser.parse_args()
    print("\n".join(rows(options.rows)), flush=True)
    if not options.no_run:
        print("\n".join(share(options.scale)))


if __name__ == "__main__":
    sys.exit(main())
