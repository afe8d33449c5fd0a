"""The wheel holds the package `charrun` with all its data, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest
from conftest import REPOSITORY

FOLDERS = ("runner", "plugins", "schemas", "specs")


def tracked(*paths: str) -> list[str]:
    """Files that git tracks or would track."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z", *paths]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True, text=True).stdout
    return [name for name in listed.split("\0") if name and (REPOSITORY / name).exists()]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names in a wheel built from a copy of the tracked tree."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in tracked(*FOLDERS, "pyproject.toml", "README.md", "LICENSE"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((REPOSITORY / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "-w", str(target), str(source)], check=True, capture_output=True)
    (wheel,) = target.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_only_top_level_names_are_charrun_and_its_metadata(names: set[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"charrun"}


def test_every_source_and_data_file_is_in_the_wheel(names: set[str]) -> None:
    homes = {"runner": "charrun", "plugins": "charrun/plugins", "schemas": "charrun/schemas", "specs": "charrun/specs"}
    expected = {f"{homes[folder]}/{rest}" for folder, rest in (name.split("/", 1) for name in tracked(*FOLDERS))}
    assert expected - names == set()


def test_the_demo_models_weigh_less_than_12_megabytes() -> None:
    weights = list((REPOSITORY / "runner/demo/models").glob("*/model.safetensors"))
    assert len(weights) == 4
    assert sum(path.stat().st_size for path in weights) < 12_000_000
