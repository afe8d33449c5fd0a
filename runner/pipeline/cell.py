"""One cell (character x models x scale x seed x arm): its stages in order, and the part of them that is selected."""

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

_TEACHERS_WORK = ("scorer", "judge", "writer")
"""Roles that the teacher plays where no model is named."""


class Cell:
    """The stages of one cell."""

    def __init__(self, shared: Shared, spec: CellSpec, selection: Selection) -> None:
        self.shared = shared
        self.spec = spec
        self.name = spec.name
        self.character = spec.character
        self.looked_for = spec.looked_for
        self.models = spec.models
        self.scale = spec.scale
        self.seed = spec.seed
        self.stages: list[StageRun] = []
        for item in spec.arm.stages:
            kind = shared.registry.stages[item.uses]
            with asking(kind):
                made = kind()
            self.stages.append(StageRun(self, item, made, tuple(self.stages)))
        ids = [stage.item.id for stage in self.stages]
        start, end = selection.bounds(ids, [item.id for item in shared.spec.stages])
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
        """The model of a role; a scorer, judge or writer that is not named is the teacher."""
        roles = self.models.roles
        if role in _TEACHERS_WORK and role not in roles:
            role = "teacher"
        if role not in roles:
            raise StageFailed(f"the spec names no model for the role '{role}'", f"add '{role}:' under models")
        return roles[role]
