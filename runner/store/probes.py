"""What probes leave in a store: what of prompts was in an engine's cache, which folders they filled, what they paid.

Each spec's probes have a ledger beside that. A probe counts against the budget of one run: that of the same resolved
spec where there is one, else the next one of the spec's name whose ledger is begun. Until then it counts against that
of further probes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from charrun.store.files import alone, make_folder, read_json, write_json
from charrun.store.ledger import LEDGER, Totals, process_of, read_ledger
from charrun.usage import Usage

PROBES = "probes"
"""Folder in the store; beside what was found each spec's probes have a ledger there."""
TAKEN = "probes.json"
"""In a run's folder, by the names of their processes, the probes that count as its own."""
_FOUND = "found.json"
CacheShares = Mapping[bool, float]
"""How much of what could be in the engine's cache was in it: of prompts that are answered, and of such that are scored
(True)."""


def probe_ledger(runs_dir: Path, spec: str) -> Path:
    """Where the ledger of a spec's probes lies."""
    return _home(runs_dir) / f"{spec}.jsonl"


def probe_ledgers(runs_dir: Path) -> list[Path]:
    """The ledgers of all specs' probes."""
    return sorted(_home(runs_dir).glob("*.jsonl"))


def probes_of(run: Path) -> Totals:
    """What probes have paid that count against a run's budget; requests without an end are open in it.

    Args:
        run: The run's folder. Where its ledger is not begun, probes that no other run has taken count too.
    """
    taken = _taken(run)
    if not _has_begun(run):
        taken = {*taken, *_free(run.parent.parent, run.parent.name)}
    return _of(probe_ledger(run.parent.parent, run.parent.name), taken)


def free_probes(runs_dir: Path, spec: str) -> Totals:
    """What probes of a spec's name have paid that no run has taken yet."""
    return _of(probe_ledger(runs_dir, spec), _free(runs_dir, spec))


def take_probes(run: Path) -> None:
    """From now on the probes that no run has taken are this one's.

    Args:
        run: The run's folder.
    """
    path = probe_ledger(run.parent.parent, run.parent.name)
    if not run.name.isdecimal() or not path.is_file():
        return
    with path.open("rb") as file, alone(file.fileno()):  # two runs that begin at once do not both take one
        if free := _free(run.parent.parent, run.parent.name):
            write_json(run / TAKEN, {"processes": sorted({*_taken(run), *free})})


def cache_shares(runs_dir: Path, identity: str) -> CacheShares | None:
    """What a probe has found of a model, by its identity as fingerprints have it; None where there was none."""
    found = _read(runs_dir)["cache"].get(identity)
    return None if found is None else {False: float(found["answered"]), True: float(found["scored"])}


def probed_folders(runs_dir: Path) -> list[str]:
    """Store folders that hold what probes were answered."""
    return [str(name) for name in _read(runs_dir)["folders"]]


def keep_probe(runs_dir: Path, shares: Mapping[str, CacheShares], folders: Iterable[str]) -> None:
    """Keep what a probe has found, by the identities of models, and the folders that it has filled."""
    known = _read(runs_dir)
    told = {identity: {"answered": each[False], "scored": each[True]} for identity, each in shares.items()}
    document = {"cache": {**known["cache"], **told}, "folders": sorted({*known["folders"], *folders})}
    write_json(make_folder(_home(runs_dir)) / _FOUND, document)


def _of(path: Path, processes: set[str]) -> Totals:
    """What some processes have entered in a ledger of probes."""
    if not processes:
        return Totals()
    known = read_ledger(path)
    found = Totals(open={n: each for n, each in known.open.items() if process_of(n) in processes})
    for process, used in known.processes.items():
        for place, usage in used.items() if process in processes else ():
            found.used.setdefault(place, Usage()).add(usage)
    return found


def _free(runs_dir: Path, spec: str) -> set[str]:
    """Processes of probes that no run has taken."""
    processes = set(read_ledger(probe_ledger(runs_dir, spec)).processes)
    return processes.difference(*(_taken(path.parent) for path in (runs_dir / spec).glob(f"*/{TAKEN}")))


def _taken(run: Path) -> set[str]:
    return set((read_json(run / TAKEN) or {}).get("processes", ()))


def _has_begun(run: Path) -> bool:
    ledger = run / LEDGER
    return ledger.is_file() and ledger.stat().st_size > 0


def _home(runs_dir: Path) -> Path:
    return runs_dir / "store" / PROBES


def _read(runs_dir: Path) -> dict[str, Any]:
    return {"cache": {}, "folders": [], **(read_json(_home(runs_dir) / _FOUND) or {})}
