"""Whatever is wrong gives one clear message and the right exit code, never a traceback."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SPECS, Outcome, RunningEngine, charrun

SMOKE = (SPECS / "pirate-smoke.yaml").read_text()
KEY = {"TINKER_API_KEY": "tml-no-such-key"}


def run_text(folder: Path, text: str, *args: str, env: dict[str, str] | None = None) -> Outcome:
    spec = folder / "spec.yaml"
    spec.write_text(text)
    outcome = charrun(spec, "--runs-dir", folder / "runs", *args, env=env)
    assert "Traceback" not in outcome.text
    return outcome


def without_stage(id: str) -> str:
    return "\n".join(line for line in SMOKE.splitlines() if not line.strip().startswith(f"- {id}"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("  - prompts ", "\t- prompts "), "tab"),
        (("seed: 7", "seed: 7\nseed: 8"), "seed"),
        (("beta: 0.1", "betta: 0.1"), "did you mean 'beta'"),
        (("characters: [pirate]", "characters: [pirat]"), "did you mean 'pirate'"),
        (("  - prompts ", "  - prompt "), "did you mean 'prompts'"),
        (("scales: [smoke]", "scales: [smok]"), "did you mean 'smoke'"),
        (("engine: auto", "engine: autto"), "did you mean 'auto'"),
    ],
)
def test_a_mistake_in_the_spec_is_told_with_its_place(change: tuple[str, str], expected: str, tmp_path: Path) -> None:
    assert change[0] in SMOKE
    outcome = run_text(tmp_path, SMOKE.replace(*change, 1))
    assert outcome.code == 3
    assert expected in outcome.err
    assert f"{tmp_path / 'spec.yaml'}:" in outcome.err


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = SMOKE.replace("beta: 0.1", "betta: 0.1").replace("[pirate]", "[pirat]").replace("[smoke]", "[smok]")
    outcome = run_text(tmp_path, text)
    assert outcome.code == 3
    assert all(word in outcome.err for word in ("betta", "pirat", "smok", "3 problems"))


def test_a_stage_before_its_input_is_a_spec_error(tmp_path: Path) -> None:
    outcome = run_text(tmp_path, without_stage("pairs"))
    assert outcome.code == 3
    assert "pairs" in outcome.err and "dpo" in outcome.err


def test_a_spec_that_does_not_exist_is_named_with_its_neighbours(tmp_path: Path) -> None:
    outcome = charrun(SPECS / "pirate-smok.yaml")
    assert outcome.code == 3
    assert "pirate-smoke.yaml" in outcome.err and "Traceback" not in outcome.err


def test_a_misspelled_command_is_a_suggestion(tmp_path: Path) -> None:
    outcome = charrun("valdate", SPECS / "pirate-smoke.yaml")
    assert outcome.code == 2
    assert "validate" in outcome.err and "Traceback" not in outcome.err


def test_a_model_that_the_local_engine_does_not_serve(tmp_path: Path) -> None:
    outcome = run_text(tmp_path, SMOKE.replace("engine: auto", "engine: local"))
    assert outcome.code == 5
    assert "does not serve Qwen/Qwen3-235B-A22B-Instruct-2507" in outcome.err


def test_a_local_folder_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    text = SMOKE.replace("teacher: Qwen/Qwen3-235B-A22B-Instruct-2507", "teacher: ./empty")
    outcome = run_text(tmp_path, text)
    assert outcome.code == 3
    assert "SPEC034" in outcome.err and "empty" in outcome.err


def test_no_credentials_and_no_stand_ins(tmp_path: Path) -> None:
    outcome = run_text(tmp_path, SMOKE.split("stand_ins:")[0])
    assert outcome.code == 5
    assert "no stand-in" in outcome.err


def test_the_hosted_engine_without_a_key(tmp_path: Path) -> None:
    outcome = run_text(tmp_path, SMOKE.replace("engine: auto", "engine: tinker"), "--yes")
    assert outcome.code == 5
    assert "TINKER_API_KEY" in outcome.err


def test_a_key_that_is_no_key(tmp_path: Path) -> None:
    outcome = run_text(tmp_path, SMOKE, "--yes", env={"TINKER_API_KEY": "nonsense"})
    assert outcome.code == 5
    assert "tml-" in outcome.err and "nonsense" not in outcome.err


def test_an_unreachable_address(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    engine = f"engine: {{uses: tinker, with: {{base_url: '{address}'}}}}"
    outcome = run_text(tmp_path, SMOKE.replace("engine: auto", engine), "--yes", env=KEY)
    assert outcome.code == 5
    assert f"nothing answers at {address}" in outcome.err


def test_a_hosted_run_without_a_terminal_wants_yes(tmp_path: Path) -> None:
    outcome = run_text(tmp_path, SMOKE, env=KEY)
    assert outcome.code == 5
    assert "--yes" in outcome.err
    assert "Every request is paid for. The budget of the spec is $1.00" in outcome.out
    assert "Qwen/Qwen3-30B-A3B" in outcome.out


def test_a_retired_model_is_named_with_its_successor_and_what_takes_it(
    tmp_path: Path, demo_engine: RunningEngine
) -> None:
    env = {"TINKER_API_KEY": demo_engine.api_key, "TINKER_BASE_URL": demo_engine.base_url}
    outcome = run_text(tmp_path, SMOKE, "--yes", env=env)
    assert outcome.code == 5
    assert "'Qwen/Qwen3-30B-A3B': retired on 2026-06-12, its successor is Qwen/Qwen3.6-35B-A3B" in outcome.err
    assert "Qwen/Qwen3.5-397B-A17B" in outcome.err
    error = outcome.err.rpartition("the service does not list")[2]
    assert "--set models.0.student.name=Qwen/Qwen3.6-35B-A3B" in error
    assert "pirate-mini-current" not in outcome.err
    other = run_text(tmp_path, SMOKE.replace("Qwen/Qwen3-30B-A3B", "Qwen/Unheard-of"), "--yes", env=env)
    assert other.code == 5 and "the service does not list 'Qwen/Unheard-of'\n" in other.err
    assert "it lists charrun/demo-" in other.err


def test_a_wrong_key_is_refused_in_one_sentence(tmp_path: Path, demo_engine: RunningEngine) -> None:
    env = {"TINKER_API_KEY": "tml-wrong", "TINKER_BASE_URL": demo_engine.base_url}
    outcome = run_text(tmp_path, SMOKE, "--yes", env=env)
    assert outcome.code == 5
    assert "refuses the key" in outcome.err


def test_a_file_in_the_place_of_the_runs_directory(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("not a folder")
    outcome = run_text(tmp_path, SMOKE)
    assert outcome.code == 5
    assert "cannot make the folder" in outcome.err


def test_a_scale_larger_than_the_pool_names_both_numbers(tmp_path: Path) -> None:
    inline = "scales: [{name: huge, pairs: 9000, samples_per_prompt: 1, reflections: 10, interactions: 1, turns: 2}]"
    outcome = run_text(tmp_path, SMOKE.replace("scales: [smoke]", inline))
    assert outcome.code == 3
    assert "RUN001 scale 'huge' needs 9000 prompts and the pool holds" in outcome.err
    assert not (tmp_path / "runs").exists()


def test_help_and_validate_import_neither_torch_nor_transformers_nor_tinker() -> None:
    code = (
        "import sys\nfrom charrun.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert end.code in (0, None)\n"
        "heavy = {'torch', 'transformers', 'tinker', 'numpy'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    for args in (["--help"], ["run", "--help"], ["validate", str(SPECS / "pirate-mini.yaml")]):
        done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
