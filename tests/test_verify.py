"""`charrun verify`: every file of a run that is cut or changed is named, and the next run never uses what is lost."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import SPECS, FinishedRun, charrun
from run_copies import Call, caller, copy_of, events_of, write_events

from charrun.pipeline.verify import verify
from charrun.plugin_manager import load_registry
from charrun.store.checked import Checked
from charrun.store.files import make_folder, write_atomic, write_json
from charrun.store.lines import sealed
from charrun.store.run import RunFolder
from charrun.store.runs import find_run
from charrun.store.tickets import Ticket, read_ticket, write_ticket
from charrun.store.verify_folder import verify_folder

SPEC = SPECS / "pirate-smoke.yaml"
SEED = 20261125
STUDENT = "charrun/demo-student"


@pytest.fixture
def invoke(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return caller(capsys, monkeypatch)


@pytest.fixture(scope="module")
def whole(smoke: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with the engine's checkpoints; who damages a file of it restores it."""
    return Path(shutil.copytree(smoke.runs_dir, tmp_path_factory.mktemp("whole") / "runs"))


@pytest.fixture
def runs(smoke: FinishedRun, tmp_path: Path) -> Path:
    """A finished run that a test may damage, with the engine's checkpoints."""
    return Path(shutil.copytree(smoke.runs_dir, tmp_path / "runs"))


def verified(runs_dir: Path) -> Checked:
    return verify(find_run(runs_dir), load_registry(third_party=False))[0]


def named(runs_dir: Path) -> set[Path]:
    return {each.file for each in verified(runs_dir).damage}


def kind_of(path: Path) -> str:
    """Which kind of file it is, digests aside."""
    name = re.sub(r"-[0-9a-f]{16}", "", path.name)
    return "ticket" if path.parent.name == "done" else "cell.json" if name.startswith("cell-") else name


def a_file(runs_dir: Path, pattern: str) -> Path:
    (path,) = runs_dir.glob(pattern)
    return path


def flip(path: Path, at: int = -1, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at if at >= 0 else len(data) // 2] ^= 1 << bit
    path.write_bytes(bytes(data))


def cut(path: Path, size: int = -1) -> None:
    os.truncate(path, size if size >= 0 else path.stat().st_size // 2)


def state(folder: Path) -> dict[str, tuple[str, int]]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in files
    }


# -- what is named ------------------------------------------------------------------------------------------------


def damages(path: Path, dice: random.Random) -> Iterator[Callable[[], None]]:
    """A cut at a random place, and a random bit flipped."""
    size = path.stat().st_size
    yield lambda: cut(path, dice.randrange(size))
    yield lambda: flip(path, dice.randrange(size), dice.randrange(8))


@pytest.mark.parametrize("rounds", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_a_file_that_was_cut_or_changed_anywhere_is_named(rounds: int, whole: Path) -> None:
    sound = verified(whole)
    assert sound.damage == []
    dice = random.Random(SEED + rounds)
    covered = [path for path in sound.covered if path.stat().st_size]
    kinds = {kind_of(path) for path in covered}
    assert kinds >= {
        "spec.json", "run.json", "cell.json", "lock.json", "journal.jsonl", "stage.json", "ticket", "items.jsonl",
        "scores.jsonl", "training.jsonl", "reference.jsonl", "usage.jsonl", "chosen.jsonl", "checkpoint.jsonl",
        "steps.jsonl", "gates.json", "answers.jsonl", "charrun.json", "README.md", "adapter_model.safetensors",
        "optimizer.safetensors", "adapter_config.json", "meta.json",
    }  # fmt: skip
    for path in covered:
        kept = path.read_bytes()
        for _ in range(rounds):
            for damage in damages(path, dice):
                damage()
                assert named(whole) == {path}, (path, len(kept), path.stat().st_size)
                path.write_bytes(kept)
    assert verified(whole).damage == []


def test_every_file_is_covered_or_told_as_not_covered(whole: Path, invoke: Call) -> None:
    outcome = invoke("verify", "--runs-dir", whole, "--json")
    found = json.loads(outcome.out)
    assert outcome.code == 0 and found["sound"] and found["damaged"] == []
    files = {str(path) for part in ("store", "pirate-smoke") for path in (whole / part).rglob("*") if path.is_file()}
    assert set(found["covered"]) | set(found["not_covered"]) >= files
    assert not set(found["covered"]) & set(found["not_covered"])
    left = {Path(path).name for path in found["not_covered"]}
    assert left == {"report.md", "metrics.jsonl", "engine.log", ".lock", ".holder"}


def test_a_journal_that_lost_its_end_between_two_lines_is_named(runs: Path) -> None:
    """Nothing in what is left of it tells; the snapshot does."""
    journal = runs / "pirate-smoke" / "1" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    for kept in range(len(lines)):
        journal.write_bytes(b"".join(lines[:kept]))
        assert named(runs) == {journal}, kept
    journal.write_bytes(b"")
    (runs / "pirate-smoke" / "1" / "run.json").unlink()  # even then
    assert named(runs) == {journal} and "is empty" in {each.what for each in verified(runs).damage}


def test_a_journal_that_lost_an_event_is_named(runs: Path) -> None:
    journal = runs / "pirate-smoke" / "1" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:4], *lines[5:]]))
    (damage,) = verified(runs).damage
    assert (damage.file, damage.line) == (journal, 5) and "event 5 where 4 should be" in damage.what


@pytest.mark.parametrize("name", ["items.jsonl", "training.jsonl", "reference.jsonl", "usage.jsonl"])
def test_records_that_lost_their_last_line_are_named(name: str, runs: Path) -> None:
    files = [path for path in runs.glob(f"store/*/{name}") if path.stat().st_size]
    assert files
    for path in files:  # those that runs share too
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert named(runs) == set(files)
    assert {each.what for each in verified(runs).damage} == {"is shorter than it was"}


def test_what_is_missing_is_named(runs: Path) -> None:
    gone = [a_file(runs, pattern) for pattern in ("store/dpo-*/steps.jsonl", "store/pairs-*/pairs-*.jsonl")]
    gone += [a_file(runs, "pirate-smoke/1/spec.json"), a_file(runs, "engine/*/sampler_weights/sft")]
    folder = a_file(runs, "store/teacher-*")
    for path in (*gone, folder):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (runs / "pirate-smoke" / "1" / "run.json").unlink()  # is rebuilt, and nobody misses it
    found = verified(runs)
    assert {each.file for each in found.damage} == {*gone, folder}
    assert {each.what for each in found.damage} == {"is missing", "is not there"}


def test_a_snapshot_that_says_something_else_is_named(runs: Path) -> None:
    folder = runs / "pirate-smoke" / "1"
    snapshot = json.loads((folder / "run.json").read_text())
    snapshot.pop("sum")
    write_json(folder / "run.json", {**snapshot, "status": "failed"})
    assert named(runs) == {folder / "run.json"}
    write_json(folder / "run.json", snapshot)
    cell = a_file(folder, "cell-*.json")
    told = json.loads(cell.read_text())
    write_json(cell, {"cell": told["cell"], "stages": told["stages"][1:]})
    assert named(runs) == {cell}


def test_a_snapshot_of_an_earlier_time_is_sound(runs: Path) -> None:
    """A run that was killed has the snapshot of the time before."""
    folder = RunFolder(runs / "pirate-smoke" / "1")
    last = [event for event in folder.events() if event["event"] == "run_started"][-1]
    fields = {k: v for k, v in last.items() if k not in ("v", "seq", "time", "event")}
    folder.record("run_started", **{**fields, "pid": 0})
    assert verified(runs).damage == []


def test_what_a_living_run_is_still_writing_is_not_called_damaged(runs: Path) -> None:
    folder = runs / "pirate-smoke" / "1"
    items = a_file(runs, "store/teacher-*/items.jsonl")
    half = items.read_bytes() + sealed({"key": "k"})[:20]
    events = events_of(folder)
    items.write_bytes(half)
    write_events(folder, [*events, {**events[0], "pid": os.getpid(), "seq": len(events), "time": events[-1]["time"]}])
    with (folder / "journal.jsonl").open("ab") as file:
        file.write(b'{"event":"mess')
    assert find_run(runs).status == "running"
    assert named(runs) == set()
    write_events(folder, events)
    assert named(runs) == {items}


def test_what_later_work_of_a_folder_wrote_again_is_not_damage(tmp_path: Path) -> None:
    """Two scales have one folder of pairs; the file of the gates' counts is the later one's."""
    folder = tmp_path / "store" / "pairs-0123456789abcdef"
    tickets = [folder / "done" / f"{name}.json" for name in ("less", "more")]
    make_folder(folder / "done")
    for ticket in tickets:
        sha256 = write_atomic(folder / "gates.json", ticket.stem)
        write_ticket(ticket, Ticket({}, files={"gates.json": sha256}))
    assert [read(ticket).damage(folder) for ticket in tickets] == [[], []]
    found = Checked()
    verify_folder(folder, (), found, written=False)
    assert found.damage == [] and folder / "gates.json" in found.covered
    flip(folder / "gates.json")
    assert [read(ticket).damage(folder) for ticket in tickets] == [[str(folder / "gates.json")]] * 2
    verify_folder(folder, (), found, written=False)
    assert [each.file for each in found.damage] == [folder / "gates.json"]


def read(path: Path) -> Ticket:
    ticket = read_ticket(path)
    assert ticket is not None
    return ticket


@pytest.mark.slow
def test_two_scales_that_share_a_folder_are_both_done(invoke: Call, runs: Path, tmp_path: Path) -> None:
    spec = tmp_path / "two.yaml"
    numbers = "pairs: 12, samples_per_prompt: 1, reflections: 10, interactions: 1, turns: 2"
    spec.write_text(f"extends: builtin:pirate-smoke\nname: two\nscales: [smoke, {{name: less, {numbers}}}]\n")
    first = charrun(spec, "--runs-dir", runs, "--plain", "--until", "pairs", "--scale", "less")
    assert first.code == 0 and "12 pairs" in first.text, first.text
    for scale in ("smoke", "less"):
        again = invoke(spec, "--runs-dir", runs, "--plain", "--until", "pairs", "--scale", scale)
        assert again.code == 0 and "damaged" not in again.text and "made again" not in again.text
    assert verified(runs).damage == []


# -- the command --------------------------------------------------------------------------------------------------


def test_verifying_changes_nothing_and_takes_no_lock(runs: Path, invoke: Call) -> None:
    before = state(runs)
    assert invoke("verify", "pirate-smoke/1", "--runs-dir", runs).code == 0
    for pattern in ("store/dpo-*/items.jsonl", "store/*/done/*.json", "pirate-smoke/1/journal.jsonl"):
        for path in runs.glob(pattern):
            cut(path)
    before = state(runs)
    assert invoke("verify", "--runs-dir", runs).code == 1
    assert state(runs) == before


def test_what_is_damaged_is_told_with_what_the_next_run_does(runs: Path, invoke: Call) -> None:
    items = a_file(runs, "store/teacher-*/items.jsonl")
    lines = items.read_bytes().splitlines(keepends=True)
    flip(items, at=len(lines[0]) + 30)
    pairs = a_file(runs, "store/pairs-*/pairs-*.jsonl")
    cut(pairs)
    outcome = invoke("verify", "--runs-dir", runs)
    assert outcome.code == 1
    assert outcome.out == (
        f"{pairs.relative_to(runs)} is damaged\n  made again from what is recorded\n"
        f"{items.relative_to(runs)}:2 is damaged\n  asked for again where it is needed\n"
        f"pirate-smoke/1: {len(set(verified(runs).covered))} files in {runs}, 2 of them damaged\n"
    )
    found = json.loads(invoke("verify", "--runs-dir", runs, "--json").out)
    assert not found["sound"] and [(each["file"], each["line"]) for each in found["damaged"]] == [
        (str(pairs), 0), (str(items), 2),
    ]  # fmt: skip
    assert invoke("verify", "nothing", "--runs-dir", runs).code == 2
    items.write_bytes(b"nothing\n" * 12)
    outcome = invoke("verify", "--runs-dir", runs)
    assert outcome.out.count(f"{items.relative_to(runs)}:") == 5 and "  and 7 more lines of it\n" in outcome.out


# -- the next run -------------------------------------------------------------------------------------------------


def outputs(runs_dir: Path) -> dict[str, tuple[int, str]]:
    """Rows and content of what each stage has published last."""
    events = events_of(runs_dir / "pirate-smoke" / "1")
    return {
        f"{event['stage']} {kind}": (out["rows"], out["content"])
        for event in events
        if event["event"] == "stage_finished"
        for kind, out in event["outputs"].items()
        if kind != "adapter"  # it says where the checkpoint lies
    }


@pytest.mark.parametrize("harm", [flip, cut])
@pytest.mark.parametrize(
    "pattern",
    [
        "store/prompts-*/prompts-*.jsonl", "store/pairs-*/pairs-*.jsonl", "store/pairs-*/gates.json",
        "store/prompts-*/done/*.json", "store/pairs-*/done/*.json", "pirate-smoke/1/spec.json",
    ],
)  # fmt: skip
def test_what_needs_no_engine_is_made_again_and_named(
    pattern: str, harm: Callable[[Path], None], smoke: FinishedRun, tmp_path: Path, invoke: Call
) -> None:
    runs_dir = copy_of(smoke, tmp_path)
    before = outputs(runs_dir)
    path = a_file(runs_dir, pattern)
    whole = path.read_bytes()
    harm(path)
    outcome = invoke(SPEC, "--runs-dir", runs_dir, "--plain")
    assert outcome.code == 0 and str(path) in outcome.out, outcome.text
    assert outputs(runs_dir) == before
    assert path.parent.name == "done" or path.read_bytes() == whole
    assert {each.file.name for each in verified(runs_dir).damage} <= {"dpo", "sft"}  # checkpoints, which are not here
    assert not (runs_dir / "engine").exists()


@pytest.mark.parametrize("harm", [flip, cut])
@pytest.mark.parametrize("pattern", ["run.json", "cell-*.json", "lock.json", "journal.jsonl"])
def test_files_of_a_run_are_named_and_rebuilt_or_left_out(
    pattern: str, harm: Callable[[Path], None], smoke: FinishedRun, tmp_path: Path, invoke: Call
) -> None:
    runs_dir = copy_of(smoke, tmp_path)
    before = outputs(runs_dir)
    path = a_file(runs_dir, f"pirate-smoke/1/{pattern}")
    harm(path)
    outcome = invoke(SPEC, "--runs-dir", runs_dir, "--plain")
    assert outcome.code == 0
    (told,) = [line for line in outcome.out.splitlines() if str(path) in line]
    assert "damaged: " in told or "ends within a line: " in told
    left = {each.file for each in verified(runs_dir).damage if each.file.parent == path.parent}
    if pattern == "journal.jsonl":
        assert left == ({path} if harm is flip else set())  # a torn end is cut off, and else it only grows
        assert harm is cut or "journal.jsonl:" in invoke("status", "--runs-dir", runs_dir).out
    else:
        assert left == set()
        assert outputs(runs_dir) == before


@pytest.mark.slow
def test_what_only_the_engine_can_give_is_asked_for_again(runs: Path) -> None:
    """A response, a ticket, the artifacts that were made of them, and a checkpoint that a stage still needs."""
    before = outputs(runs)
    shared = min(path for path in runs.glob("store/answers-*/items.jsonl") if path.stat().st_size)
    teacher = a_file(runs, "store/teacher-*/items.jsonl")
    for path in (teacher, shared):
        flip(path, at=40)
    rest = [
        a_file(runs, pattern)
        for pattern in (
            "store/teacher-*/chosen-*.jsonl", "store/student-*/rejected-*.jsonl", "store/student-*/done/*.json",
            "store/reflection-*/reflections-*.jsonl", "store/evaluate-*/evaluation-*.jsonl",
        )
    ]  # fmt: skip
    for path in rest:
        cut(path)
    weights = a_file(runs, "engine/*/sampler_weights/dpo/adapter_model.safetensors")
    flip(weights)
    assert named(runs) == {teacher, shared, *rest, weights}
    outcome = charrun(SPEC, "--runs-dir", runs, "--plain")
    assert outcome.code == 0, outcome.text
    for path in (teacher, shared):
        assert outcome.out.count(f"{path}:1 is damaged: what it held is asked for again") == 1
    for path in rest:
        assert path.name.startswith("rejected") or str(path) in outcome.out  # its ticket is damaged too, and is told
    assert "the engine no longer holds" in outcome.out and "dpo trains again" in outcome.out
    assert outputs(runs) == before
    left = {each.file for each in verified(runs).damage}
    assert left == {teacher, shared}  # a damaged line stays where it is, beside the one that took its place


def test_a_checkpoint_whose_bytes_changed_is_never_loaded(runs: Path, tmp_path: Path) -> None:
    """Neither to sample from nor to train on from, and a plan says so before."""
    import tinker

    from charrun.demo import MODELS
    from charrun.engine.process import EngineProcess

    place = a_file(runs, "engine/*/weights/sft")
    path = json.loads((place / "meta.json").read_text())["path"]
    assert EngineProcess.holds(runs / "engine", path)
    with EngineProcess.start({STUDENT: MODELS[STUDENT]}, runs / "engine", log=tmp_path / "log") as engine:
        rest = tinker.RestClient(base_url=engine.base_url, api_key=engine.api_key)
        assert rest.get_weights_info_by_tinker_path(path).result().lora_rank == 64
        with tinker.ServiceClient(base_url=engine.base_url, api_key=engine.api_key) as client:
            for name in ("adapter_model.safetensors", "optimizer.safetensors", "meta.json"):
                kept = (place / name).read_bytes()
                flip(place / name)
                assert not EngineProcess.holds(runs / "engine", path)
                with pytest.raises(tinker.NotFoundError):
                    rest.get_weights_info_by_tinker_path(path).result()
                with pytest.raises(tinker.TinkerError):
                    client.create_training_client_from_state_with_optimizer(path).result()
                (place / name).write_bytes(kept)
            client.create_training_client_from_state_with_optimizer(path).result()
