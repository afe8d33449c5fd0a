"""The parallel form: adapters that were trained apart from the base model, merged into one (Maiya et al., 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Estimate, Row, Stage, StageFailed, hookimpl
from charrun.plugins._lora import CONFIG, WEIGHTS, Factors, Gap, LoraFolder, concatenated, linear, save
from charrun.plugins._training import checkpoint_note

if TYPE_CHECKING:
    from charrun import StageContext

_METHODS = {"exact": concatenated, "linear": linear}
_ONE_RANK = "PEFT merges linearly only adapters of one rank"


class MergeStage(Stage):
    """One adapter whose delta is the weighted sum of two: 1.0 of DPO's and 0.25 of SFT's, both trained from the base.

    `exact` concatenates the factors: rank r1 + r2, and the sum itself. `linear` is what the paper's release used:
    PEFT's add_weighted_adapter, which sums A and B each and so adds cross terms. For each that is made the relative
    Frobenius error against the weighted sum is told, over all layers and of the worst one. Tensors are read, added and
    saved in fp32, and compared in fp64.
    """

    name: ClassVar[str] = "merge"
    summary: ClassVar[str] = "adapters trained from the base, merged exactly into one"
    consumes: ClassVar[tuple[str, ...]] = ("checkpoint",)
    produces: ClassVar[tuple[str, ...]] = ("adapter", "checkpoint")
    roles: ClassVar[tuple[str, ...]] = ("student",)
    character_fields: ClassVar[tuple[str, ...]] = ()
    options_schema: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {
            "weights": {
                "type": "array",
                "items": {"type": "number", "exclusiveMinimum": 0},
                "minItems": 2,
                "default": [1.0, 0.25],
                "description": "Weight of each checkpoint's adapter, in the order of the stages that made them, and "
                "of `needs`.",
            },
            "method": {
                "enum": ["exact", "linear", "both"],
                "default": "exact",
                "description": "exact: by rank concatenation; linear: as PEFT does; both: exact, and linear beside it.",
            },
        },
        "additionalProperties": False,
    }

    def estimate(self, ctx: StageContext) -> Estimate:
        """Two requests a checkpoint: a copy and its addresses."""
        return Estimate(rows=1, requests=2 * len(ctx.options["weights"]))

    def problems(self, ctx: StageContext) -> list[str]:
        """As many checkpoints as weights, in the order in which they are named; of one rank, where PEFT wants that."""
        found, weights, problems = ctx.producers("checkpoint"), ctx.options["weights"], []
        if len(found) != len(weights):
            what = f"merge has {len(weights)} weights and finds {len(found)} checkpoints ({', '.join(found)})"
            return [f"{what}: name those that it shall merge under needs"]
        if (named := [id for id in ctx.needs if id in found]) not in ([], found):
            what = f"needs names {', '.join(named)}, and the stages' order, which is that of the weights, is"
            problems.append(f"{what} {', '.join(found)}: put needs and weights in that order")
        ranks = [ctx.options_of(id).get("lora_rank") for id in found]
        if ctx.options["method"] == "linear" and len({rank for rank in ranks if rank}) > 1:
            told = ", ".join(f"{id} has {rank}" for id, rank in zip(found, ranks, strict=True) if rank)
            problems.append(f"{_ONE_RANK}: {told}; take one lora_rank, or method: exact")
        return problems

    def warnings(self, ctx: StageContext) -> list[str]:
        """An engine that could not sample from the result."""
        if ctx.takes_adapters:
            return []
        return [
            "the engine takes no adapters: merge makes a PEFT folder and no checkpoint, so that no later stage can ask "
            "it anything here; load the folder with PEFT, run the spec on the local engine with a local model folder, "
            "or use the sequential checkpoint, and name that one under the needs of later stages"
        ]

    async def run(self, ctx: StageContext) -> None:
        """Fetch, merge layer by layer, save, and bring the result in where the engine takes it."""
        import asyncio

        checkpoints = [rows[-1] for rows in await ctx.every("checkpoint")]
        _check_origins(checkpoints)
        parts = []
        for row in checkpoints:
            parts.append(LoraFolder(await ctx.download(row, str(row["stage"]), f"merged-{row['stage']}")))
        wanted = ["exact", "linear"] if ctx.options["method"] == "both" else [ctx.options["method"]]
        if "linear" in wanted and len({row["lora_rank"] for row in checkpoints}) > 1:
            if wanted == ["linear"]:
                raise StageFailed(_ONE_RANK, "use method: exact")
            ctx.log("the adapters have different ranks: PEFT cannot merge them linearly")
            wanted.remove("linear")
        modules = sorted({module for part in parts for module in part.modules})
        ctx.total(len(modules))
        layers: dict[str, dict[str, Factors]] = {method: {} for method in wanted}
        gaps = {method: Gap() for method in wanted}
        for module in modules:
            await asyncio.to_thread(_merge, module, parts, ctx.options["weights"], layers, gaps)
            ctx.advance()
        errors = [
            {"method": method, "relative_error": gap.all, "worst": gap.worst, "worst_module": gap.module}
            for method, gap in gaps.items()
        ]
        total = " + ".join(f"{w:g} d{row['stage']}" for w, row in zip(ctx.options["weights"], checkpoints, strict=True))
        for told in errors:
            ctx.log(
                f"{told['method']} merge: relative Frobenius error {told['relative_error']:.2g} against {total} over "
                f"{len(modules)} layers, {told['worst']:.2g} at most ({told['worst_module']})"
            )
        hashes = {}
        for method in wanted:
            folder = "adapter" if method == wanted[0] else f"adapter-{method}"
            hashes[method] = await _saved(ctx, folder, layers[method], parts)
        rank = max(factors.rank for factors in layers[wanted[0]].values())
        taken = []
        if ctx.takes_adapters:
            row = await ctx.take_adapter("student", ctx.folder / "adapter", rank, "merge")
            taken = [{**row, "merged": sorted(set().union(*map(_changes, checkpoints)))}]
        else:
            ctx.log("the engine takes no adapters: the PEFT folder is all there is of the merge")
        ctx.write(
            "merge.json",
            {
                "weights": ctx.options["weights"],
                "checkpoints": [row["state"] for row in checkpoints],
                "ranks": [row["lora_rank"] for row in checkpoints],
                "rank": rank,
                "dtype": "float32",
                "errors": errors,
            },
        )
        ctx.log(f"merged adapter: {checkpoint_note(rank) if wanted[0] == 'exact' else f'LoRA rank {rank}'}, fp32")
        row = {
            "folder": f"store/{ctx.folder.name}/adapter",
            "checkpoint": taken[0]["state"] if taken else "",
            "weights_sha256": hashes[wanted[0]],
        }
        ctx.publish("adapter", [row])
        ctx.publish("checkpoint", taken)


def _check_origins(checkpoints: Sequence[Row]) -> None:
    """Every adapter is a change of the same base model.

    Raises:
        StageFailed: One is not, or continues another, or a merge holds another: its delta would count twice.
    """
    bases = sorted({str(row["base_model"]) for row in checkpoints})
    if len(bases) > 1:
        raise StageFailed(f"adapters of different base models cannot be merged: {', '.join(bases)}")
    continued = [str(row["stage"]) for row in checkpoints if row.get("start") == "checkpoint"]
    if continued:
        raise StageFailed(
            f"{', '.join(continued)} continues another checkpoint, whose change would be counted twice",
            "merge adapters that begin at the base model: train it with start: base",
        )
    counted: dict[str, str] = {}
    for row in checkpoints:
        stage = str(row["stage"])
        for change in sorted(_changes(row)):
            if change in counted:
                what = f"{stage} and {counted[change]} hold the same training, which would be counted twice"
                raise StageFailed(what, "name under needs checkpoints that have no training in common")
            counted[change] = stage


def _changes(row: Row) -> set[str]:
    """Fingerprints of the trainings that an adapter is made of: its own, or those that a merge has put together."""
    return set(row.get("merged") or [row["fingerprint"]])


def _merge(
    module: str,
    folders: Sequence[LoraFolder],
    weights: Sequence[float],
    layers: dict[str, dict[str, Factors]],
    gaps: dict[str, Gap],
) -> None:
    """Merge one layer by every method, and measure it; an adapter that leaves the layer alone has no part in it."""
    found = [(weight, folder.factors(module)) for weight, folder in zip(weights, folders, strict=True)]
    parts = [(weight, factors) for weight, factors in found if factors is not None]
    for method, merged in layers.items():
        merged[module] = _METHODS[method](parts)
        gaps[method].add(module, merged[module], parts)


async def _saved(ctx: StageContext, name: str, layers: dict[str, Factors], parts: Sequence[LoraFolder]) -> str:
    """Write a PEFT folder among the stage's outputs; returns its weights' SHA-256."""
    import asyncio

    folder: Path = ctx.folder / name
    folder.mkdir(exist_ok=True)
    await asyncio.to_thread(save, folder, layers, [part.config for part in parts])
    await ctx.keep(f"{name}/{CONFIG}")
    return await ctx.keep(f"{name}/{WEIGHTS}")


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `merge`."""
    return [MergeStage]
