"""Writes docs/stages.md from the stages that are built in: `python docs/_stages.py`. A test holds the page to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from charrun.commands.tables import value_words
from charrun.pipeline.identity import is_identifying
from charrun.plugin_manager import BUILT_IN, load_registry

PAGE = Path(__file__).parent / "stages.md"

HEAD = """# Stages

An item of `stages:` is a stage's name, or `{uses: NAME, id: ID, with: {OPTION: VALUE}, needs: [ID]}`. A kind of rows
that a stage consumes comes from the nearest earlier stage that produces it, or from those that `needs` names. Another
value of an option is other work, unless the table says that it is not in the [fingerprint](fingerprints.md).

"""

TAIL = """## A stage of your own

A file beside the spec (`plugins: [./my_stage.py]`), or a package: [plugins.md](plugins.md) is the reference,
[writing-a-stage.md](writing-a-stage.md) the way from an empty folder to a tested package. `charrun stages NAME` shows
the options of every stage that is installed.
"""


def page() -> str:
    """The page's text."""
    parts = [HEAD]
    stages = load_registry(third_party=False).stages
    order = [name.rsplit(".", 1)[1] for name in BUILT_IN if name.rsplit(".", 1)[1] in stages]
    for name in order:
        stage = stages[name]
        kinds = f"Consumes {_listed(stage.consumes)}; produces {_listed(stage.produces)}."
        if stage.optional:
            kinds += f" Uses {_listed(stage.optional)} where there are any."
        parts.append(f"## {name}\n\n{stage.summary[0].upper()}{stage.summary[1:]}. {kinds}\n\n")
        properties = stage.options_schema.get("properties", {})
        if properties:
            parts.append("| option | value | default | what |\n|---|---|---|---|\n")
            for option, schema in _flat(properties):
                default = f"`{json.dumps(schema['default'])}`" if "default" in schema else "-"
                mark = "" if is_identifying(option.split(".")[0], stage.options_schema) else " Not in the fingerprint."
                parts.append(f"| `{option}` | {value_words(schema)} | {default} | {schema['description']}{mark} |\n")
            parts.append("\n")
        if stage.templates:
            parts.append(f"Templates: {_listed(tuple(stage.templates))}.\n\n")
    return "".join([*parts, TAIL])


def _flat(properties: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Options, each followed by those within it under a dotted name."""
    for option, said in properties.items():
        yield option, said
        for inner, each in said.get("properties", {}).items():
            yield f"{option}.{inner}", each


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "nothing"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
