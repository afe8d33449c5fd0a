"""Where a spec runs: the engine it names, or what `auto` finds, with the spec's stand-ins where it must."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from charrun.errors import EnvironmentProblem, Problem
from charrun.plugin_manager import Registry
from charrun.service.engine import Engine
from charrun.spec import EngineChoice, Spec, StageItem

AUTO = "auto"
RETIRED = "SPEC055"


@dataclass(frozen=True)
class Choice:
    """The engine of a run, the spec as it will run there, and the stand-ins that were put in."""

    engine: Engine
    spec: Spec
    stand_ins: Mapping[str, str] = field(default_factory=dict)

    @property
    def paid(self) -> bool:
        """Whether requests leave this machine and may cost money, so that the user is asked once."""
        return self.engine.hosted or any(
            each.paid or name in self.spec.prices for name, each in self.spec.endpoints.items()
        )

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What the spec warns of, but for models that stand-ins take the place of."""
        return tuple(each for each in self.spec.warnings if not (self.stand_ins and each.code == RETIRED))


def has_credentials() -> bool:
    """Whether the SDK would find Tinker credentials: a variable, a command, or a stored login."""
    from charrun.service.checks import has_login

    return bool(os.environ.get("TINKER_API_KEY") or os.environ.get("TINKER_CREDENTIAL_CMD")) or has_login()


def choose(spec: Spec, registry: Registry) -> Choice:
    """Settle the engine.

    Raises:
        EnvironmentProblem: `auto`, no credentials, and a model of the spec has no stand-in.
    """
    named = spec.engine.uses
    if named != AUTO:
        return Choice(registry.engines[named](), spec)
    if has_credentials():
        return Choice(registry.engines["tinker"](), replace(spec, engine=EngineChoice("tinker")))
    local = replace(spec, engine=EngineChoice("local"))
    refs = [ref for entry in spec.models for ref in entry.roles.values()]
    given = dict(spec.stand_ins.models) if spec.stand_ins else {}
    # A model at an endpoint needs none of Tinker's credentials; one that has a stand-in is not asked.
    needed = {ref.name for ref in refs if ref.folder is None and (ref.endpoint is None or ref.name in given)}
    lacking = sorted(name for name in needed if name not in given and not name.startswith("charrun/"))
    if lacking:
        raise EnvironmentProblem(
            f"no Tinker credentials were found, and the spec has no stand-in for {', '.join(lacking)}",
            "set TINKER_API_KEY (or run: tinker auth login), or name a local model under stand_ins",
        )
    used = {name: given[name] for name in sorted(needed) if name in given}
    return Choice(registry.engines["local"](), _with_stand_ins(local, used), used)


def _with_stand_ins(spec: Spec, models: Mapping[str, str]) -> Spec:
    options = spec.stand_ins.options if spec.stand_ins else {}

    def given(stages: Iterable[StageItem]) -> tuple[StageItem, ...]:
        return tuple(replace(item, options={**item.options, **options.get(item.id, {})}) for item in stages)

    return replace(
        spec,
        models=tuple(
            replace(
                entry,
                roles={
                    role: replace(ref, name=models[ref.name], endpoint=None) if ref.name in models else ref
                    for role, ref in entry.roles.items()
                },
            )
            for entry in spec.models
        ),
        stages=given(spec.stages),
        arms=tuple(replace(arm, stages=given(arm.stages)) for arm in spec.arms),
    )
