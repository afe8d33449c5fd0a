"""One cell (character x models x scale x seed): its stages in spec order, and the part of them that is selected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from charrun.errors import StageFailed
from charrun.pipeline.defects import asking
from charrun.pipeline.selection import Selection
from charrun.pipeline.stage_run import StageRun
from charrun.pipeline.together import gather
from charrun.spec import CellSpec, ModelRef

if TYPE_CHECKING:
    from charrun.pipeline.shared import Shared


_IN_PLACE_OF = {"scorer": "teacher", "writer": "teacher"}
"""Roles that another one's model plays where the spec names none."""


class Cell:
    """The stages of one cell."""

    def __init__(self, shared: Shared, spec: CellSpec, selection: Selection) -> None:
        self.shared = shared
        self.spec = spec
        self.name = spec.name
        self.character = spec.character
        self.models = spec.models
        self.scale = spec.scale
        self.seed = spec.seed
        self.stages: list[StageRun] = []
        for item in shared.spec.stages:
            kind = shared.registry.stages[item.uses]
            with asking(kind):
                made = kind()
            self.stages.append(StageRun(self, item, made, tuple(self.stages)))
        ids = [stage.item.id for stage in self.stages]
        start = ids.index(selection.first) if selection.first else 0
        end = ids.index(selection.last) + 1 if selection.last else len(ids)
        self.selected = self.stages[start:end]
        for stage in self.stages[:start]:
            stage.left_out = True
        for stage in self.selected:
            stage.forced = stage.item.id in selection.forced

    async def complete(self) -> None:
        """Each selected stage, as soon as those before it have ended that it awaits.

        Where one fails, what does not need it goes on: what it asks for would be asked for all the same.

        Raises:
            StageFailed: One has; the first in their order.
        """
        failures: dict[int, StageFailed] = {}

        async def one(number: int, stage: StageRun) -> None:
            try:
                await stage.ensure()
            except StageFailed as error:
                failures[number] = error

        await gather([one(number, stage) for number, stage in enumerate(self.selected)])
        if failures:
            raise failures[min(failures)]

    def model(self, role: str) -> ModelRef:
        """The model of a role; a scorer or a writer that is not named is the teacher."""
        roles = self.models.roles
        if role not in roles:
            role = _IN_PLACE_OF.get(role, role)
        if role not in roles:
            raise StageFailed(f"the spec names no model for the role '{role}'", f"add '{role}:' under models")
        return roles[role]
