"""A run's frozen spec as a spec again: what `charrun resume` goes on from, whatever became of the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from charrun.errors import EnvironmentProblem
from charrun.secrets import HIDDEN
from charrun.spec import Spec, StageItem
from charrun.store.canonical import canonical
from charrun.store.files import file_digest, make_folder, read_json, write_atomic
from charrun.store.run import SPEC, RunFolder, spec_digest, specs_of
from charrun.store.runs import Run

TEMPLATES, PLUGINS = "templates", "plugins"


@dataclass(frozen=True)
class Frozen:
    """A frozen spec in the form of a spec file.

    Attributes:
        data: The spec's document; paths in it are absolute.
        path: Where the spec was written; relative paths among stages' options are relative to its folder.
        stand_ins: What stood in for which named model.
        allowed: Digests of the stage files that ran before, and may run again.
        folders: By stage item, the folders of its options' paths that are not relative to that folder.
    """

    data: dict[str, Any]
    path: Path
    stand_ins: Mapping[str, str]
    allowed: frozenset[str]
    folders: Mapping[str, Mapping[str, Path]]

    def placed(self, spec: Spec) -> Spec:
        """The spec that was read from the document, with its files where they were."""

        def placed(stages: Iterable[StageItem]) -> tuple[StageItem, ...]:
            return tuple(replace(item, folders=self.folders.get(item.id, {})) for item in stages)

        arms = tuple(replace(arm, stages=placed(arm.stages)) for arm in spec.arms)
        return replace(spec, stages=placed(spec.stages), arms=arms)


def keep_sources(folder: RunFolder, plugins: Mapping[str, Path]) -> None:
    """Keep copies of a spec's own stage files in the run's folder, so that it can be resumed without them.

    Args:
        folder: The run's folder.
        plugins: The files by the digest of what was in them.
    """
    for sha256, path in plugins.items():
        kept = folder.folder / PLUGINS / f"{path.stem}-{sha256[:16]}.py"
        if file_digest(kept) != sha256:
            make_folder(kept.parent)
            write_atomic(kept, path.read_text(encoding="utf-8"))


def folders_of(spec: Spec) -> dict[str, dict[str, str]]:
    """What is to be remembered of where a spec's files lie: by stage item, paths that are not beside the spec."""
    items = (*spec.stages, *(item for arm in spec.arms for item in arm.stages))
    beside = {item.id: item.folders_beside(spec.path.parent) for item in items}
    return {id: {text: str(place.absolute()) for text, place in found.items()} for id, found in beside.items() if found}


def thaw(run: Run) -> Frozen:
    """The frozen spec of a run.

    Raises:
        EnvironmentProblem: It is missing, damaged, or lacks what was secret in it.
    """
    value = read_json(run.folder / SPEC)
    if value is None:
        raise EnvironmentProblem(f"{run.folder / SPEC} is missing or damaged", "run the spec itself again")
    begun_with = specs_of(run.folder)
    if begun_with and spec_digest(value) not in begun_with:
        raise EnvironmentProblem(
            f"{run.folder / SPEC} is not the spec that the run was begun with", "run the spec itself again"
        )
    if HIDDEN in canonical(value):
        raise EnvironmentProblem(
            f"the spec of {run.id} held a secret, which is kept nowhere",
            "run the spec itself again; an address with a password belongs into TINKER_BASE_URL",
        )
    stand_ins = value.pop("stand_ins_used", {})
    data: dict[str, Any] = {
        "version": 1,
        "name": value["name"],
        "seed": value["seeds"],
        "engine": value["engine"],
        "characters": value["characters"],
        "models": [{k: _model(v) if isinstance(v, dict) else v for k, v in entry.items()} for entry in value["models"]],
        "scales": value["scales"],
        "stages": [_stage(item) for item in value["stages"]],
    }
    if value.get("arms"):
        data["arms"] = [{**arm, "stages": [_stage(item) for item in arm["stages"]]} for arm in value["arms"]]
    if value["exclude"]:
        data["exclude"] = value["exclude"]
    if value["budget"]["usd"] is not None:
        data["budget"] = value["budget"]
    if value["prices"]:
        data["prices"] = value["prices"]
    if value["templates"]:
        data["templates"] = {name: _template(run.folder, name, text) for name, text in value["templates"].items()}
    if value["plugins"]:
        data["plugins"] = [_plugin(run.folder, plugin) for plugin in value["plugins"]]
    allowed = frozenset(plugin["sha256"] for plugin in value["plugins"])
    folders = {id: {text: Path(place) for text, place in found.items()} for id, found in run.folders.items()}
    return Frozen(data, Path(run.spec_path or run.folder / SPEC), stand_ins, allowed, folders)


def _model(ref: Mapping[str, Any]) -> Any:
    """As a spec writes it."""
    if "endpoint" not in ref:
        return dict(ref) if ref["chat"] else ref["name"]
    endpoint = {key: value for key, value in ref["endpoint"].items() if value != ""}
    return {**ref, "endpoint": endpoint}


def _stage(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if value or key in ("uses", "id")}


def _template(folder: Path, name: str, text: str) -> str:
    path = make_folder(folder / TEMPLATES) / f"{name}.j2"
    write_atomic(path, text)
    return str(path)


def _plugin(folder: Path, plugin: Mapping[str, str]) -> str:
    path = folder / PLUGINS / f"{Path(plugin['file']).stem}-{plugin['sha256'][:16]}.py"
    if not path.exists():
        raise EnvironmentProblem(f"{path} is missing: the run's own stage file", "run the spec itself again")
    return str(path)
