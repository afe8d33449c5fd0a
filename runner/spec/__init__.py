"""The spec language: YAML with places, schemas, and the typed, resolved spec."""

from charrun.spec.document import Document, Mark
from charrun.spec.facts import Retired, retired_models
from charrun.spec.layers import PluginFile, SpecDocument, read_spec
from charrun.spec.library import Library, load_character, shipped_library
from charrun.spec.model import (
    CellSpec,
    Character,
    EngineChoice,
    Exclusion,
    LocalPlugin,
    ModelEntry,
    ModelRef,
    Scale,
    Spec,
    StageInfo,
    StageItem,
    StandIns,
    Trait,
)
from charrun.spec.places import builtin_specs, locate, specs_folder
from charrun.spec.resolve import load_spec
from charrun.spec.schema import check, shipped_schema, with_defaults
from charrun.spec.yaml import load_yaml

__all__ = [
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
    "shipped_library",
    "shipped_schema",
    "specs_folder",
    "with_defaults",
]
