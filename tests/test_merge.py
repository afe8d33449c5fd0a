"""Adapters that were trained apart, merged: the sum itself, PEFT's linear way, and the engine that takes the result."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tinker
import torch
from conftest import SPECS, RunningEngine, charrun
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from charrun import StageFailed
from charrun.demo import MODELS
from charrun.engine.errors import RequestRefused
from charrun.engine.taking import take_adapter
from charrun.plugins._lora import WEIGHTS, Factors, Gap, LoraFolder, concatenated, linear, save
from charrun.plugins.merge import _check_origins

STUDENT = "charrun/demo-student"
WEIGHTED = (1.0, 0.25)
TOKENS = list(range(5, 45))
Make = Callable[..., Path]


def base() -> Any:
    return AutoModelForCausalLM.from_pretrained(MODELS[STUDENT], dtype=torch.float32)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes a PEFT adapter of the demo student with drawn A and B."""

    def make(seed: int, **config: Any) -> Path:
        torch.manual_seed(seed)
        folder = tmp_path_factory.mktemp("adapter")
        model = get_peft_model(base(), LoraConfig(task_type="CAUSAL_LM", **config))
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.05)
        model.save_pretrained(str(folder), save_embedding_layers=False)
        return folder

    return make


@pytest.fixture(scope="module")
def unlike(make: Make) -> list[Path]:
    """Two adapters of other ranks, alphas and layers: one has ranks of its own for some layers."""
    one = make(1, r=8, lora_alpha=32, target_modules=["q_proj", "up_proj"], rank_pattern={"up_proj": 4})
    return [one, make(2, r=16, lora_alpha=24, target_modules=["q_proj", "down_proj"])]


def merge(folders: list[Path], target: Path, method: Callable[..., Factors] = concatenated) -> tuple[Path, Gap]:
    read, layers, gap = [LoraFolder(folder) for folder in folders], {}, Gap()
    for module in sorted({module for each in read for module in each.modules}):
        found = [(w, each.factors(module)) for w, each in zip(WEIGHTED, read, strict=True)]
        parts = [(w, factors) for w, factors in found if factors is not None]
        layers[module] = method(parts)
        gap.add(module, layers[module], parts)
    target.mkdir()
    save(target, layers, [each.config for each in read])
    return target, gap


def deltas(folder: Path, weight: float = 1.0) -> dict[str, torch.Tensor]:
    """What real PEFT adds to each weight of the base model."""
    plain = dict(base().named_parameters())
    merged = PeftModel.from_pretrained(base(), str(folder)).merge_and_unload()
    changed = {name: (value - plain[name]).detach() * weight for name, value in merged.named_parameters()}
    return {name: delta for name, delta in changed.items() if delta.any()}


def test_the_exact_merge_is_the_weighted_sum_in_peft_whatever_the_ranks_and_layers(
    unlike: list[Path], tmp_path: Path
) -> None:
    folder, gap = merge(unlike, tmp_path / "merged")
    assert gap.all < 1e-6 and gap.worst < 1e-6
    first, second = (deltas(each, weight) for each, weight in zip(unlike, WEIGHTED, strict=True))
    found = deltas(folder)
    assert set(found) == set(first) | set(second) and set(first) != set(second)
    for name, delta in found.items():
        wanted = first.get(name, torch.zeros_like(delta)) + second.get(name, torch.zeros_like(delta))
        assert (delta - wanted).norm() / wanted.norm() < 1e-5  # PEFT rounds W + dW to fp32
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["lora_alpha"] == 32 and config["r"] == 24 and set(config["rank_pattern"].values()) == {4, 16}


def test_factors_at_powers_of_two_are_concatenated_without_any_rounding(make: Make, tmp_path: Path) -> None:
    folders = [make(seed, r=64, lora_alpha=32, target_modules=["q_proj"]) for seed in (1, 2)]
    folder, gap = merge(folders, tmp_path / "merged")
    assert gap.all < 1e-14
    merged, first = (LoraFolder(each).factors(LoraFolder(folder).modules[0]) for each in (folder, folders[0]))
    assert merged is not None and first is not None
    assert merged.rank == 128 and merged.scale == 0.25 and torch.equal(merged.b[:, :64], 2 * first.b)


def test_the_linear_merge_is_pefts_own_and_its_error_is_that_of_the_cross_terms(make: Make, tmp_path: Path) -> None:
    folders = [make(seed, r=8, lora_alpha=32, target_modules=["q_proj", "v_proj"]) for seed in (1, 2)]
    folder, gap = merge(folders, tmp_path / "linear", linear)
    model: Any = PeftModel.from_pretrained(base(), str(folders[0]), adapter_name="dpo")
    model.load_adapter(str(folders[1]), "sft")
    model.add_weighted_adapter(["dpo", "sft"], list(WEIGHTED), "both", combination_type="linear")
    model.save_pretrained(str(tmp_path / "peft"), selected_adapters=["both"], save_embedding_layers=False)
    theirs, ours = deltas(tmp_path / "peft" / "both"), deltas(folder)
    assert set(theirs) == set(ours)
    assert all(torch.allclose(theirs[name], ours[name], atol=1e-6) for name in ours)
    first, second = (deltas(each, weight) for each, weight in zip(folders, WEIGHTED, strict=True))
    off = sum(float((ours[name] - first[name] - second[name]).square().sum()) for name in ours)
    whole = sum(float((first[name] + second[name]).square().sum()) for name in ours)
    assert gap.all == pytest.approx((off / whole) ** 0.5, rel=1e-3) and gap.all > 0.1


def test_a_taken_adapter_samples_as_peft_does_and_taking_it_twice_leaves_one(
    unlike: list[Path], tmp_path: Path, demo_engine: RunningEngine, service: tinker.ServiceClient
) -> None:
    folder, _ = merge(unlike, tmp_path / "merged")
    state, sampler = take_adapter(demo_engine.storage, folder, STUDENT, MODELS[STUDENT], "merge", {"charrun": "final"})
    assert (state, sampler) == take_adapter(
        demo_engine.storage, folder, STUDENT, MODELS[STUDENT], "merge", {"charrun": "final"}
    )
    client = service.create_sampling_client(model_path=sampler).result()
    found = torch.tensor(client.compute_logprobs(tinker.types.ModelInput.from_ints(TOKENS)).result()[1:])
    model = PeftModel.from_pretrained(base(), str(folder))
    with torch.no_grad():
        logits = model(torch.tensor([TOKENS])).logits[0, :-1]
        plain = model.get_base_model()
        with model.disable_adapter():
            before = plain(torch.tensor([TOKENS])).logits[0, :-1]
    wanted, unchanged = (
        torch.log_softmax(each, -1).gather(1, torch.tensor(TOKENS[1:])[:, None])[:, 0] for each in (logits, before)
    )
    assert (found - wanted).abs().max() < 1e-4 < 0.01 < (unchanged - wanted).abs().max()
    info = tinker.RestClient(**demo_engine.address).get_weights_info_by_tinker_path(state).result()
    assert info.lora_rank == 32  # 24, filled up with zeros


def test_what_does_not_fit_the_model_is_not_taken(make: Make, demo_engine: RunningEngine, tmp_path: Path) -> None:
    folder = make(1, r=8, target_modules=["q_proj"])
    with pytest.raises(RequestRefused, match="no linear layer, or of another size"):
        small = MODELS["charrun/demo-student-small"]
        take_adapter(demo_engine.storage, folder, "charrun/demo-student-small", small, "x", {})
    shutil.copytree(folder, tmp_path / "dora")
    config = tmp_path / "dora" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "use_dora": True}))
    with pytest.raises(RequestRefused, match="use_dora"):
        take_adapter(demo_engine.storage, tmp_path / "dora", STUDENT, MODELS[STUDENT], "x", {})
    with pytest.raises(StageFailed, match="use_dora"):
        LoraFolder(tmp_path / "dora")
    (tmp_path / "dora" / WEIGHTS).write_bytes(b"no")
    with pytest.raises(StageFailed, match="holds no adapter"):
        LoraFolder(tmp_path / "dora")


def test_an_adapter_that_continues_another_is_not_merged_with_it() -> None:
    rows = [
        {"stage": "dpo", "base_model": "a", "fingerprint": "d"},
        {"stage": "sft", "base_model": "a", "fingerprint": "s", "start": "checkpoint"},
    ]
    with pytest.raises(StageFailed, match="sft continues another checkpoint"):
        _check_origins(rows)
    _check_origins([rows[0], {**rows[1], "start": "base"}])
    with pytest.raises(StageFailed, match="different base models cannot be merged: a, b"):
        _check_origins([rows[0], {**rows[1], "base_model": "b"}])
    merge = {"stage": "merge", "base_model": "a", "fingerprint": "m", "merged": ["d", "s"]}
    with pytest.raises(StageFailed, match="merge and dpo hold the same training, which would be counted twice"):
        _check_origins([rows[0], merge])
    _check_origins([{**rows[0], "fingerprint": "another"}, merge])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"merge": {"needs": ["sft_base", "dpo"]}}, "put needs and weights in that order"),
        (
            {"merge": {"with": {"method": "linear"}}, "sft_base": {"with": {"lora_rank": 8}}},
            "only adapters of one rank: dpo has 64, sft_base has 8; take one lora_rank, or method: exact",
        ),
        ({"merge": {"with": {"method": "linear"}}}, ""),
    ],
)
def test_a_merge_that_would_not_be_what_is_meant_is_refused_before_anything_is_paid(
    changes: dict[str, Any], told: str, tmp_path: Path
) -> None:
    spec = {"extends": "builtin:pirate-parallel", "name": "x", "stages": changes}
    (tmp_path / "x.yaml").write_text(json.dumps(spec))
    outcome = charrun("validate", tmp_path / "x.yaml")
    assert outcome.code == (3 if told else 0) and told in outcome.text


def test_a_merge_of_more_checkpoints_than_weights_is_refused_before_the_run(tmp_path: Path) -> None:
    text = (SPECS / "pirate-parallel.yaml").read_text().replace(", needs: [dpo, sft_base]}", "}")
    path = tmp_path / "parallel.yaml"
    path.write_text(text.replace("pirate-mini.yaml", str(SPECS / "pirate-mini.yaml")))
    outcome = charrun("plan", path, "--runs-dir", tmp_path / "runs")
    assert outcome.code == 3 and "finds 3 checkpoints (dpo, sft, sft_base)" in outcome.text


@pytest.mark.slow
def test_sequential_and_parallel_arms_are_evaluated_side_by_side(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    done = charrun(SPECS / "pirate-parallel.yaml", "--scale", "smoke", "--runs-dir", runs)
    assert done.code == 0, done.text
    (report,) = (json.loads(path.read_text()) for path in runs.glob("store/merge-*/merge.json"))
    errors = {each["method"]: each["relative_error"] for each in report["errors"]}
    assert errors["exact"] < 1e-6 < 1e-3 < errors["linear"]
    (path,) = runs.glob("store/evaluate-*/evaluation-*.jsonl")
    assert [rate["model"] for rate in json.loads(path.read_text())["rates"]] == ["base", "dpo", "sft", "merge"]
    told = [line for line in done.out.splitlines() if line.startswith(("Final checkpoint", "PEFT adapter"))]
    assert told[0].endswith("/weights/merge") and len(told) == 3
    assert "/store/merge-" in told[1] and told[1].endswith("/adapter (merge)")
    assert "/store/export-" in told[2] and told[2].endswith("/adapter (sft)")
    (card,) = (path.read_text() for path in runs.glob("store/export-*/adapter/README.md"))
    assert "| sft (this adapter) |" in card and card.count("this adapter") == 1
    again = charrun(SPECS / "pirate-parallel.yaml", "--scale", "smoke", "--runs-dir", runs)
    assert again.code == 0 and again.out.count("already done") == 13
