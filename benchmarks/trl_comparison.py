"""charrun's DPO and SFT against TRL's trainers: the same rows, initial adapter and hyperparameters on the demo student.

    pip install -e . trl && python benchmarks/trl_comparison.py [--scale mini] [--runs-dir DIR]

Runs `specs/pirate-mini.yaml` at a scale, then trains the same with `trl.DPOTrainer` and `trl.SFTTrainer` (PyTorch,
transformers, PEFT; no code of charrun's engine): DPO from the fresh adapter that charrun's began with, SFT from
charrun's DPO checkpoint. TRL renders the pairs itself, through the model's chat template, and the tokens must be those
that charrun trained on, up to the newline after the last turn, which TRL would train too and which is cut off here.
Printed are the largest relative differences of the losses, step by step, and the rate at which TRL's adapter answers in
character on the run's own test prompts, sampled by transformers and scored as `evaluate` does.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from charrun import EngineProcess, Message, assistant, local_folder, seed_from, system, user
from charrun.chat import Chat
from charrun.store.runs import find_run

REPOSITORY = Path(__file__).resolve().parent.parent
STUDENT, TEACHER, SEED = "charrun/demo-student", "charrun/demo-teacher", 7
CHAT = {"enable_thinking": False}
BATCH = 16
_SAMPLED_AT_ONCE = 40


def main() -> None:
    """Run charrun, then TRL, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="mini")
    parser.add_argument("--runs-dir", type=Path, help="where a run of the spec at that scale is, or is made")
    options = parser.parse_args()
    home = options.runs_dir or Path(tempfile.mkdtemp(prefix="charrun-trl-"))
    run = charrun_run(home, options.scale)
    work = Path(tempfile.mkdtemp(prefix="charrun-trl-work-"))
    print("| training | rows | steps | largest difference of a step's loss | mean |\n|---|---|---|---|---|")
    dpo = trl_dpo(run, work, initial_adapter(work, run.rank))
    print(line("DPO", len(run.pairs), run.dpo_losses, dpo), flush=True)
    sft_losses, model = trl_sft(run, work)
    print(line("SFT", len(run.conversations), run.sft_losses, sft_losses), flush=True)
    hits, n = in_character(model, run)
    ours = run.rate
    print("\n| final checkpoint | in character | 95% interval |\n|---|---|---|")
    print(f"| charrun | {ours['in_character']} of {ours['n']} | {ours['low']:.1%} to {ours['high']:.1%} |")
    print(f"| TRL | {hits} of {n} | {'inside' if ours['low'] <= hits / n <= ours['high'] else 'outside'} charrun's |")


class Run:
    """What charrun's run was made of and came to.

    Attributes:
        pairs: Preference pairs, in the order in which they were trained on.
        conversations: Training conversations, in their order.
        options: Options by stage.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        (cell,) = find_run(home, "").cells
        self.stages = {stage.id: stage for stage in cell.stages}
        self.pairs = cell.rows("pairs")
        random.Random(seed_from(SEED, "dpo")).shuffle(self.pairs)
        self.conversations: list[list[Message]] = [
            [user(row["prompt"]), assistant(row["text"])] for row in cell.rows("reflections")
        ]
        self.conversations += [row["messages"] for row in cell.rows("interactions")]
        random.Random(seed_from(SEED, "sft")).shuffle(self.conversations)
        folders = {id: stage.folder for id, stage in self.stages.items() if stage.folder}
        self.options = {
            id: json.loads((folder / "stage.json").read_text())["options"] for id, folder in folders.items()
        }
        self.dpo_losses = [step["loss"] for step in _jsonl(folders["dpo"] / "steps.jsonl")]
        self.sft_losses = [step["loss"] for step in _jsonl(folders["sft"] / "steps.jsonl")]
        self.evaluation = cell.rows("evaluation")[0]
        self.rate = self.evaluation["rates"][-1]
        answers = _jsonl(folders["evaluate"] / "answers.jsonl")
        self.prompts = [row["prompt"] for row in answers if row["model"] == "sft"]
        self.dpo_adapter = _folder(home / "engine", self.stages["dpo"].outputs["checkpoint"].read()[0]["sampler"])
        self.rank = int(self.options["dpo"]["lora_rank"])


def charrun_run(home: Path, scale: str) -> Run:
    """The run of the spec at a scale, made where it is not there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TINKER_")}
    spec = f"extends: builtin:pirate-mini\nversion: 1\nname: trl\nscales: [{scale}]\n"
    home.mkdir(parents=True, exist_ok=True)
    (home / "trl.yaml").write_text(spec)
    command = [sys.executable, "-m", "charrun", str(home / "trl.yaml"), "--runs-dir", str(home), "--quiet"]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return Run(home)


def initial_adapter(work: Path, rank: int) -> Path:
    """The adapter that a training of this seed begins with, as the engine makes it."""
    import tinker

    folder = local_folder(STUDENT)
    assert folder is not None
    with EngineProcess.start({STUDENT: folder}, work / "engine", log=work / "engine.log") as engine:
        service = tinker.ServiceClient(base_url=engine.base_url, api_key=engine.api_key)
        client = service.create_lora_training_client(
            base_model=STUDENT,
            rank=rank,
            seed=seed_from(SEED, "adapter"),
            train_mlp=True,
            train_attn=True,
            train_unembed=False,
        ).result()
        path = client.save_weights_for_sampler("initial").result().path
    return _folder(work / "engine", path)


def trl_dpo(run: Run, work: Path, adapter: Path) -> list[float]:
    """Losses of `trl.DPOTrainer` on the run's pairs: sigmoid loss plus the chosen answers' NLL."""
    told = run.options["dpo"]
    data = Dataset.from_list(
        [
            {
                "prompt": [user(pair["prompt"])],
                "chosen": [assistant(pair["chosen"])],
                "rejected": [assistant(pair["rejected"])],
                "chat_template_kwargs": CHAT,
            }
            for pair in run.pairs
        ]
    )
    # One pair at a time, so that the NLL is the mean over pairs of each one's mean over tokens.
    config = DPOConfig(
        output_dir=str(work / "dpo"),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=BATCH,
        beta=told["beta"],
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, told["nll_coefficient"]],
        max_length=None,
        **_common(told),
    )
    trainer = DPOTrainer(
        model=_trainable(adapter), args=config, train_dataset=data, processing_class=_tokenizer(STUDENT)
    )
    trainer.train_dataset = trimmed(trainer.train_dataset, run.pairs)
    trainer.train()
    return _losses(trainer)


def trl_sft(run: Run, work: Path) -> tuple[list[float], Any]:
    """Losses of `trl.SFTTrainer` on the run's introspection from charrun's DPO checkpoint, and the trained model.

    The masks of conversations are charrun's: TRL has none for a template that rewrites history.
    """
    chat = Chat(_tokenizer(STUDENT), CHAT)
    rows = [[_labelled(row) for row in chat.rows(messages)] for messages in run.conversations]
    data = Dataset.from_list([{"input_ids": row[0]["input_ids"], "rows": json.dumps(row)} for row in rows])
    collate = DataCollatorForLanguageModeling(pad_token_id=_tokenizer(STUDENT).pad_token_id)

    def flattened(examples: Sequence[dict[str, Any]]) -> Any:
        return collate([row for example in examples for row in json.loads(example["rows"])])

    config = SFTConfig(
        output_dir=str(work / "sft"),
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=1,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        max_length=None,
        **_common(run.options["sft"]),
    )
    trainer = SFTTrainer(
        model=_trainable(run.dpo_adapter),
        args=config,
        train_dataset=data,
        data_collator=flattened,
        processing_class=_tokenizer(STUDENT),
    )
    trainer.train()
    return _losses(trainer), trainer.model


def _labelled(row: Any) -> dict[str, list[int]]:
    tokens = list(row.tokens)
    return {"input_ids": tokens, "labels": [t if on else -100 for t, on in zip(tokens, row.trained, strict=True)]}


def _common(told: dict[str, Any]) -> dict[str, Any]:
    """Constant rate, no clipping, no decay, no dropout, fp32, one epoch in the given order; as charrun trains."""
    return {
        "learning_rate": told["learning_rate"],
        "adam_beta1": told["beta1"],
        "adam_beta2": told["beta2"],
        "adam_epsilon": told["eps"],
        "weight_decay": 0.0,
        "max_grad_norm": told["grad_clip_norm"],
        "lr_scheduler_type": "constant",
        "num_train_epochs": 1,
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "seed": SEED,
    }


def _trainable(adapter: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(local_folder(STUDENT), dtype=torch.float32)
    return PeftModel.from_pretrained(model, str(adapter), is_trainable=True)


def _tokenizer(model: str) -> Any:
    return AutoTokenizer.from_pretrained(local_folder(model))


def trimmed(prepared: Any, pairs: Sequence[dict[str, Any]]) -> Dataset:
    """TRL's own rendering, up to the end of the answer's turn; what comes after it (a newline) is never generated.

    Raises:
        SystemExit: It gives other tokens than charrun's.
    """
    chat, rows = Chat(_tokenizer(STUDENT), CHAT), []
    for theirs, pair in zip(prepared, pairs, strict=True):
        row_of = {"prompt_ids": theirs["prompt_ids"]}
        for side in ("chosen", "rejected"):
            (row,) = chat.rows([user(pair["prompt"]), assistant(pair[side])])
            whole = [*theirs["prompt_ids"], *theirs[f"{side}_ids"]]
            if list(row.tokens) != whole[: len(row.tokens)]:
                sys.exit(f"TRL renders the {side} answer to {pair['prompt']!r} in other tokens")
            row_of[f"{side}_ids"] = list(row.tokens)[len(theirs["prompt_ids"]) :]
        rows.append(row_of)
    return Dataset.from_list(rows)


def _losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def line(name: str, rows: int, ours: Sequence[float], theirs: Sequence[float]) -> str:
    """One line of the table."""
    if len(ours) != len(theirs):
        sys.exit(f"{name}: {len(ours)} steps of charrun and {len(theirs)} of TRL")
    gaps = [abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True)]
    worst = max(range(len(gaps)), key=lambda step: gaps[step])
    return f"| {name} | {rows:,} | {len(ours)} | {gaps[worst]:.3%} (step {worst}) | {sum(gaps) / len(gaps):.3%} |"


def in_character(model: Any, run: Run) -> tuple[int, int]:
    """How many of the test prompts a model answers in character: sampled by transformers, scored by the teacher."""
    torch.manual_seed(SEED)
    told, tokenizer = run.options["evaluate"], _tokenizer(STUDENT)
    chat, answers = Chat(tokenizer, CHAT), []
    model.eval()
    for prompts in _parts(run.prompts):
        asked = [chat.prompt([user(prompt)]) for prompt in prompts]
        longest = max(map(len, asked))
        pad = tokenizer.pad_token_id
        inputs = torch.tensor([[pad] * (longest - len(tokens)) + tokens for tokens in asked])
        with torch.no_grad():
            found = model.generate(
                input_ids=inputs,
                attention_mask=(inputs != pad).long(),
                max_new_tokens=told["max_tokens"],
                do_sample=True,
                temperature=told["temperature"],
                top_p=told["top_p"],
                top_k=0,
                eos_token_id=chat.stop_tokens,
                pad_token_id=pad,
            )
        answers += [chat.answer([t for t in row[longest:].tolist() if t != pad]) for row in found]
    scores = list(_scores(run.prompts, answers))
    return sum(score > run.evaluation["threshold"] for score in scores), len(scores)


def _parts(prompts: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(prompts), _SAMPLED_AT_ONCE):
        yield prompts[start : start + _SAMPLED_AT_ONCE]


def _scores(prompts: Sequence[str], answers: Sequence[str]) -> Iterator[float]:
    """The teacher's mean per-token log-likelihood ratio of each answer under the constitution, in nats."""
    character = yaml.safe_load((REPOSITORY / "specs" / "characters" / "pirate.yaml").read_text())
    constitution = _constitution(character)
    teacher = AutoModelForCausalLM.from_pretrained(local_folder(TEACHER), dtype=torch.float32).eval()
    chat = Chat(_tokenizer(TEACHER))
    for prompt, answer in zip(prompts, answers, strict=True):
        completion = chat.completion(answer)
        told = _mean_logprob(teacher, chat.prompt([system(constitution), user(prompt)]), completion)
        yield told - _mean_logprob(teacher, chat.prompt([user(prompt)]), completion)


def _constitution(character: dict[str, Any]) -> str:
    import jinja2

    text = (REPOSITORY / "plugins" / "templates" / "character.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    traits = [item["trait"] for item in character["traits"]]
    return environment.from_string(text).render(name=character["name"], traits=traits).strip()


@torch.no_grad()
def _mean_logprob(model: Any, prompt: Sequence[int], completion: Sequence[int]) -> float:
    tokens = torch.tensor([[*prompt, *completion]])
    logprobs = torch.log_softmax(model(tokens).logits[0, len(prompt) - 1 : -1], -1)
    return float(logprobs.gather(-1, torch.tensor(completion)[:, None]).mean())


def _folder(storage: Path, path: str) -> Path:
    return storage / path.removeprefix("tinker://").replace(":", "_")


def _jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
