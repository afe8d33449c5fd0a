"""What a cell has to show for itself, from rows alone: how often in character, and where its weights are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from charrun.report.intervals import auc_text
from charrun.report.measurements import overlap_lines
from charrun.report.text import safe


def evaluation_lines(row: Mapping[str, Any]) -> list[str]:
    """A row of the kind `evaluation`: AUC, rates with intervals, samples before and after.

    A row of another shape, such as a plugin's, is shown field by field.
    """
    try:
        return _emergence(row)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        plain = {key: value for key, value in row.items() if isinstance(value, str | int | float)}
        return [f"{safe(key)}: {safe(str(value))}" for key, value in plain.items()]


def model_name(model: str) -> str:
    """`base`, `base, prompted` for the one that is told who to be, or `after dpo`."""
    return {"base": "base", "prompted": "base, prompted"}.get(model) or f"after {model}"


def weight_lines(
    checkpoints: Sequence[Mapping[str, Any]], adapters: Iterable[Mapping[str, Any]], home: Path, final: bool = True
) -> list[str]:
    """Where the last checkpoint and the adapters are; each with its stage, but for a lone one of that checkpoint.

    Args:
        checkpoints: Rows of the kind `checkpoint`.
        adapters: Rows of the kind `adapter`.
        home: The folder that holds the store.
        final: Whether all stages are done, so that no later checkpoint is to come.
    """
    lines = []
    made_by = {str(row["state"]): str(row.get("stage", "")) for row in checkpoints if row.get("state")}
    folders = [(safe(str(home / str(row.get("folder", "-")))), str(row.get("checkpoint", ""))) for row in adapters]
    for row in list(checkpoints)[-1:]:
        lines.append(f"{'Final checkpoint:' if final else 'Last checkpoint: '} {safe(str(row.get('state', '-')))}")
        lines.append(f"  to sample from: {safe(str(row.get('sampler', '-')))}")
    alone = len(folders) == 1 and folders[0][1] in list(made_by)[-1:]
    for folder, state in folders:
        stage = made_by.get(state, "" if state else "merged, no checkpoint")
        lines.append(f"PEFT adapter:     {folder}" + (f" ({safe(stage)})" if stage and not alone else ""))
    return lines


def _emergence(row: Mapping[str, Any]) -> list[str]:
    head = f"In character ({safe(row['scored_as'])}) without a system prompt:"
    lines = [head, f"  {auc_text(row['auc'], row.get('calibration'))}"]
    if not row["tells"]:
        return [*lines, f"  below {row['lowest_auc']}: this scorer cannot tell this character, so no rate is given"]
    width = max(12, *(len(model_name(rate["model"])) for rate in row["rates"]))
    for rate in row["rates"]:
        share = rate["in_character"] / rate["n"]
        interval = f"95% interval {rate['low']:.1%} to {rate['high']:.1%}"
        interval += f"; {rate['cut']} cut by max_tokens" if rate.get("cut") else ""
        name = safe(model_name(rate["model"]))
        lines.append(f"  {name:<{width}} {share:6.1%}  {rate['in_character']} of {rate['n']}, {interval}")
    lines += [f"  {safe(line)}" for line in overlap_lines(row.get("contamination") or {})]
    for sample in row["samples"]:
        lines += ["", f"  > {safe(sample['prompt'])}"]
        lines += [f"  before: {safe(sample['before'])}", f"  after:  {safe(sample['after'])}"]
    return lines
