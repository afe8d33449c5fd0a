"""The spec language: YAML with places, schemas, and the typed, resolved spec."""

from charrun.spec.document import Document, Mark
from charrun.spec.library import Library, load_character, shipped_library, specs_folder
from charrun.spec.model import (
    Character,
    EngineChoice,
    ModelEntry,
    ModelRef,
    Scale,
    Spec,
    StageInfo,
    StageItem,
    StandIns,
    Trait,
)
from charrun.spec.resolve import builtin_specs, load_spec, locate
from charrun.spec.schema import check, shipped_schema, with_defaults
from charrun.spec.yaml import load_yaml

__all__ = [
    "Character",
    "Document",
    "EngineChoice",
    "Library",
    "Mark",
    "ModelEntry",
    "ModelRef",
    "Scale",
    "Spec",
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
    "shipped_library",
    "shipped_schema",
    "specs_folder",
    "with_defaults",
]
