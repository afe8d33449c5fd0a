"""Small distributions for tests: what pip would leave in a folder of site-packages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

HEAD = "from pathlib import Path\nimport charrun\nfrom charrun import Engine, Scale, Stage, hookimpl\n"
STAGE = """
class {title}(Stage):
    name = {name!r}
    summary = "counts"
    async def run(self, ctx):
        pass
"""
REGISTER = """
@hookimpl
def charrun_register_stages():
    return [{titles}]
"""


def distribution(
    site: Path,
    name: str,
    source: str,
    *,
    entry: str = "",
    group: str = "charrun",
    attribute: str = "",
    version: str = "1.0",
) -> None:
    """Install a distribution of one module.

    Args:
        site: The folder that is on the path.
        name: Name of the distribution; the module is called alike.
        source: The module's source.
        entry: Name of the entry point; by default the distribution's.
        group: Group of the entry point.
        attribute: What of the module it names; by default the module itself.
        version: Version of the distribution.
    """
    module = name.replace("-", "_")
    value = f"{module}:{attribute}" if attribute else module
    metadata(site, name, {group: {entry or name: value}}, version)
    (site / f"{module}.py").write_text(source)


def metadata(site: Path, name: str, points: Mapping[str, Mapping[str, str]], version: str = "1.0") -> None:
    """The metadata of a distribution with entry points by group."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in rows.items()) for group, rows in points.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))


def stage(name: str) -> str:
    """Source of a module that registers one stage."""
    return HEAD + STAGE.format(title="Only", name=name) + REGISTER.format(titles="Only")
