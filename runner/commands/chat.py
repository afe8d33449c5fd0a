"""`charrun chat`: a conversation with a checkpoint of a run, beside the base model where asked."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from charrun.commands.chat_loop import Talk, note
from charrun.commands.options import runs_dir_option
from charrun.commands.run_options import PLAIN_VARIABLE
from charrun.commands.words import run_cells, run_names, run_stages
from charrun.errors import EXIT_STAGE_FAILED, EnvironmentProblem, PluginError, UsageProblem

if TYPE_CHECKING:
    from charrun.pipeline.checkpoints import RunCheckpoint
    from charrun.pipeline.conversation import Sampling, Speaker
    from charrun.service.engine import Connection, Engine, EngineRequest
    from charrun.service.service import Service
    from charrun.store.runs import Run

BASE = "base"
MODEL = "model"


@click.command()
@click.argument("run", metavar="RUN", shell_complete=run_names)
@click.option(
    "--stage",
    metavar="ID",
    shell_complete=run_stages,
    help="Whose checkpoint; by default that of the last stage that has one.",
)
@click.option(
    "--cell", metavar="NAME", shell_complete=run_cells, help="Which cell of the run, where there are several."
)
@click.option("--base", is_flag=True, help="Let the base model answer each question too.")
@click.option("--system", default="", metavar="TEXT", help="System prompt; by default there is none.")
@click.option("--max-tokens", type=click.IntRange(1), default=512, show_default=True, help="Longest answer.")
@click.option("--temperature", type=click.FloatRange(0), default=0.7, show_default=True, help="0 is greedy.")
@click.option("--seed", type=click.IntRange(0), help="The same seed and questions give the same answers.")
@runs_dir_option
@click.option("--plain", is_flag=True, envvar=PLAIN_VARIABLE, help="One answer after the other, and nothing moves.")
def chat(
    run: str,
    stage: str | None,
    cell: str | None,
    base: bool,
    system: str,
    max_tokens: int,
    temperature: float,
    seed: int | None,
    runs_dir: Path,
    plain: bool,
) -> None:
    """Talk with a checkpoint of a run.

    RUN is what `charrun runs` lists. Questions are lines from the terminal or from a pipe; /help lists what else can
    be typed. The engine that made the checkpoint answers, under the spec's own chat options.
    """
    from charrun.pipeline.checkpoints import checkpoints_of
    from charrun.pipeline.conversation import Sampling
    from charrun.store.runs import find_run

    found = find_run(runs_dir, run)
    session = _Session(found, chosen(checkpoints_of(found), cell, stage, found.id), engine_of(found.engine), base)
    session.introduce()
    if session.talk(Sampling(max_tokens=max_tokens, temperature=temperature, seed=seed), system, plain):
        sys.exit(EXIT_STAGE_FAILED)


@dataclass(frozen=True)
class _Session:
    """What is talked with, and where it lies."""

    run: Run
    checkpoint: RunCheckpoint
    engine: Engine
    base: bool

    def introduce(self) -> None:
        """Say what answers, and what it is not."""
        made = f"the checkpoint of {self.checkpoint.stage}, trained from {self.checkpoint.base_model}"
        note(f"{self.run.id}, {self.checkpoint.cell}: {made}")
        named = [named for named, used in self.run.stand_ins.items() if used == self.checkpoint.base_model]
        if named:
            note(
                f"{self.checkpoint.base_model} stands in for {', '.join(named)}: "
                "it shows the pipeline at work, not that model's quality"
            )
        if self.engine.hosted:
            note(f"engine: {self.engine.name}; every answer is paid for")
        if sys.stdin.isatty():
            note("waiting for the engine ...")

    def talk(self, sampling: Sampling, system: str, plain: bool) -> bool:
        """Connect, talk, and stop what was started; returns whether a line from a pipe failed."""
        from charrun.pipeline.checkpoints import engine_options
        from charrun.pipeline.conversation import Conversation
        from charrun.pipeline.waiting import Waiting
        from charrun.service.engine import EngineRequest

        models = [self.checkpoint.base_model]
        request = EngineRequest(
            models, engine_options(self.run), self.run.runs_dir / "engine", self.run.folder / "chat.log"
        )
        connection = connect(self.engine, request)
        try:
            with Waiting() as waiting:
                service = _service(connection, self.run.id)
                try:
                    speakers = waiting.wait(self._speakers(service), connection.failure)
                    conversation = Conversation(speakers, sampling, system)
                    about = {"run": self.run.id, "cell": self.checkpoint.cell, "stage": self.checkpoint.stage}
                    talk = Talk(conversation, lambda work: waiting.wait(work, connection.failure), about, plain)
                    talk.run()
                finally:
                    if not connection.failure():
                        waiting.wait(service.close())
        finally:
            connection.close()
        return talk.failed

    async def _speakers(self, service: Service) -> list[Speaker]:
        """Who answers.

        Raises:
            EnvironmentProblem: The engine no longer holds the checkpoint.
        """
        from charrun.pipeline.checkpoints import chat_options
        from charrun.pipeline.conversation import Speaker

        await service.open()
        base, path = self.checkpoint.base_model, self.checkpoint.sampler
        if not await service.exists(path):
            raise EnvironmentProblem(
                f"the engine no longer holds the checkpoint of {self.checkpoint.stage}, {path}",
                f"charrun run SPEC --force {self.checkpoint.stage} trains it again from the rows that are kept",
            )
        chat = await service.chat(base, chat_options(self.checkpoint, self.run, self.engine))
        context = service.context_length(base)
        trained = Speaker(
            self.checkpoint.stage if self.base else MODEL, path, await service.sampler(base, path), chat, context
        )
        if not self.base:
            return [trained]
        return [Speaker(BASE, base, await service.sampler(base), chat, context), trained]


def connect(engine: Engine, request: EngineRequest) -> Connection:
    """Make the engine ready while the SDK is imported: both take seconds."""
    with ThreadPoolExecutor(1) as beside:
        for module in ("tinker", "transformers"):
            beside.submit(import_module, module)
        return engine.connect(request)


def _service(connection: Connection, name: str) -> Service:
    from charrun.service.service import Service

    return Service(connection, {"run": name})


def engine_of(name: str) -> Engine:
    from charrun.commands.loading import open_registry

    engines = open_registry().engines
    if name not in engines:
        raise PluginError(
            f"the run was made on the engine '{name}', which no plugin registers",
            "install the plugin that has it: charrun plugins lists those that are there",
        )
    return engines[name]()


def chosen(found: Sequence[RunCheckpoint], cell: str | None, stage: str | None, run: str) -> RunCheckpoint:
    """The checkpoint that the options mean."""
    if not found:
        raise EnvironmentProblem(
            f"no stage of {run} has published a checkpoint",
            "let the run get past its first training stage: charrun status tells where it is",
        )
    cells = list(dict.fromkeys(each.cell for each in found))
    named = [name for name in cells if cell in (None, name)] or [name for name in cells if str(cell) in name]
    if len(named) != 1:
        problem = "there are several" if cell is None else f"'{cell}' names {'none' if not named else 'several'}"
        raise UsageProblem(f"--cell: {problem}", f"the run's cells with a checkpoint: {', '.join(cells)}")
    here = [each for each in found if each.cell == named[0]]
    matching = [each for each in here if stage in (None, each.stage)]
    if not matching:
        stages = ", ".join(dict.fromkeys(each.stage for each in here))
        raise UsageProblem(f"--stage: '{stage}' has no checkpoint", f"these stages have one: {stages}")
    return matching[-1]
