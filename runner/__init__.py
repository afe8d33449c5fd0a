"""charrun: train a character into a language model, from one YAML file, through the Tinker SDK.

The names below are the public API, for stage plugins and programs. They are imported when first used, so that
`import charrun` costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing's, which takes its time: Ctrl-C is heard from `charrun.__main__` on
if TYPE_CHECKING:
    from typing import Any

    from charrun.chat import Chat, Message, TrainedRow, assistant, system, user
    from charrun.engine.process import EngineProcess
    from charrun.errors import CharrunError, EnvironmentProblem, Problem, SpecError, StageFailed
    from charrun.hookspecs import hookimpl
    from charrun.pipeline.adapters import Adapter
    from charrun.pipeline.context import StageContext
    from charrun.pipeline.lockfile import versions
    from charrun.pipeline.reference import Reference
    from charrun.pipeline.requests import Answer
    from charrun.pipeline.training import batches_of, train_steps
    from charrun.service.engine import Billed, Connection, Engine, EngineRequest, StoredCheckpoint
    from charrun.service.explained import explained, result_of
    from charrun.service.models import local_folder
    from charrun.service.service import RoleSampler, Service
    from charrun.service.session import Sampler
    from charrun.spec import Character, ModelRef, Scale, Trait, retired_models
    from charrun.stage import Estimate, Row, Stage
    from charrun.store.canonical import digest, seed_from
    from charrun.usage import Usage

__version__ = "0.1.0"

_HOMES = {
    "charrun.chat": ("Chat", "Message", "TrainedRow", "assistant", "system", "user"),
    "charrun.engine.process": ("EngineProcess",),
    "charrun.errors": ("CharrunError", "EnvironmentProblem", "Problem", "SpecError", "StageFailed"),
    "charrun.hookspecs": ("hookimpl",),
    "charrun.pipeline.adapters": ("Adapter",),
    "charrun.pipeline.context": ("StageContext",),
    "charrun.pipeline.reference": ("Reference",),
    "charrun.pipeline.requests": ("Answer",),
    "charrun.pipeline.lockfile": ("versions",),
    "charrun.pipeline.training": ("batches_of", "train_steps"),
    "charrun.service.engine": ("Billed", "Connection", "Engine", "EngineRequest", "StoredCheckpoint"),
    "charrun.usage": ("Usage",),
    "charrun.service.models": ("local_folder",),
    "charrun.service.explained": ("explained", "result_of"),
    "charrun.service.service": ("RoleSampler", "Service"),
    "charrun.service.session": ("Sampler",),
    "charrun.spec": ("Character", "ModelRef", "Scale", "Trait", "retired_models"),
    "charrun.stage": ("Estimate", "Row", "Stage"),
    "charrun.store.canonical": ("digest", "seed_from"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Adapter",
    "Answer",
    "Billed",
    "Character",
    "CharrunError",
    "Chat",
    "Connection",
    "Engine",
    "EngineProcess",
    "EngineRequest",
    "EnvironmentProblem",
    "Estimate",
    "Message",
    "ModelRef",
    "Problem",
    "Reference",
    "RoleSampler",
    "Row",
    "Sampler",
    "Scale",
    "Service",
    "SpecError",
    "Stage",
    "StageContext",
    "StageFailed",
    "StoredCheckpoint",
    "TrainedRow",
    "Trait",
    "Usage",
    "assistant",
    "batches_of",
    "digest",
    "explained",
    "hookimpl",
    "local_folder",
    "result_of",
    "retired_models",
    "seed_from",
    "system",
    "train_steps",
    "user",
    "versions",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'charrun' has no attribute '{name}'")
    import importlib

    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value
