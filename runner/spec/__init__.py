"""The spec language: YAML with places, schemas, and the typed, resolved spec.

The names below are imported when first used: who needs a `Scale` does not pay for a YAML reader.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from charrun.spec.document import Document, Mark
    from charrun.spec.facts import Retired, retired_models
    from charrun.spec.layers import PluginFile, SpecDocument, read_spec
    from charrun.spec.library import Library, load_character
    from charrun.spec.model import Arm, CellSpec, Exclusion, Spec
    from charrun.spec.parts import (
        Character,
        EngineChoice,
        LocalPlugin,
        ModelEntry,
        ModelRef,
        Scale,
        StageInfo,
        StageItem,
        StandIns,
        Trait,
    )
    from charrun.spec.places import builtin_specs, locate, specs_folder
    from charrun.spec.resolve import load_spec
    from charrun.spec.schema import check, shipped_schema, with_defaults
    from charrun.spec.yaml import load_yaml

_HOMES = {
    "charrun.spec.document": (
        "Document",
        "Mark",
    ),
    "charrun.spec.facts": (
        "Retired",
        "retired_models",
    ),
    "charrun.spec.layers": (
        "PluginFile",
        "SpecDocument",
        "read_spec",
    ),
    "charrun.spec.library": (
        "Library",
        "load_character",
    ),
    "charrun.spec.model": (
        "Arm",
        "CellSpec",
        "Exclusion",
        "Spec",
    ),
    "charrun.spec.parts": (
        "Character",
        "EngineChoice",
        "LocalPlugin",
        "ModelEntry",
        "ModelRef",
        "Scale",
        "StageInfo",
        "StageItem",
        "StandIns",
        "Trait",
    ),
    "charrun.spec.places": (
        "builtin_specs",
        "locate",
        "specs_folder",
    ),
    "charrun.spec.resolve": ("load_spec",),
    "charrun.spec.schema": (
        "check",
        "shipped_schema",
        "with_defaults",
    ),
    "charrun.spec.yaml": ("load_yaml",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Arm",
    "CellSpec",
    "Character",
    "Document",
    "EngineChoice",
    "Exclusion",
    "Library",
    "LocalPlugin",
    "Mark",
    "ModelEntry",
    "ModelRef",
    "PluginFile",
    "Retired",
    "Scale",
    "Spec",
    "SpecDocument",
    "StageInfo",
    "StageItem",
    "StandIns",
    "Trait",
    "builtin_specs",
    "check",
    "load_character",
    "load_spec",
    "load_yaml",
    "locate",
    "read_spec",
    "retired_models",
    "shipped_schema",
    "specs_folder",
    "with_defaults",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'charrun.spec' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value
