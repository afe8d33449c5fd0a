"""lm-evaluation-harness on a run's checkpoint: `python -m charrun.harness run --model charrun --model_args run=NAME`.

The module registers the model class `charrun` with lm-evaluation-harness (`pip install 'charrun[lm-eval]'`) and hands
its command line the rest. Requests go through the SDK to the engine that made the checkpoint, and through charrun's one
rendering; they are not entered in the run's ledger.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from charrun.errors import EXIT_ENVIRONMENT, CharrunError, EnvironmentProblem

if TYPE_CHECKING:
    from charrun.chat import Chat, Message
    from charrun.service.engine import Connection
    from charrun.service.service import Service

_T = TypeVar("_T")
_AT_ONCE = 128
_MOST_TOKENS = 512
_CONTEXT = 2048
"""Longest text where the engine does not say."""
_LEAST_ROOM = 64
"""Tokens that an answer has where its prompt must be cut."""


@dataclass(frozen=True)
class Opened:
    """A checkpoint, or its base model, ready to be asked.

    Attributes:
        client: The SDK's sampling client.
        chat: The rendering that it was trained under.
        name: What it is, for result files.
        longest: Longest prompt plus answer, in tokens.
    """

    client: Any
    chat: Chat
    name: str
    longest: int


class Asker:
    """The engine of a run, asked from a program that is not asynchronous.

    Args:
        run: The run, as `charrun runs` names it.
        cell: Which cell, where there are several with a checkpoint.
        stage: Whose checkpoint; by default the last one.
        base: Ask the base model instead.
        runs_dir: Where runs are.

    Raises:
        CharrunError: There is no such run or checkpoint, or its engine cannot be reached.
    """

    def __init__(self, run: str, cell: str | None, stage: str | None, base: bool, runs_dir: Path) -> None:
        from charrun.commands.chat import chosen, connect, engine_of
        from charrun.pipeline.checkpoints import chat_options, checkpoints_of, engine_options
        from charrun.service.engine import EngineRequest
        from charrun.service.service import Service
        from charrun.store.runs import find_run

        found = find_run(runs_dir, run)
        checkpoint = chosen(checkpoints_of(found), cell, stage, found.id)
        engine = engine_of(found.engine)
        if engine.hosted:
            print(f"engine: {engine.name}; every request is paid for and none is in the run's ledger", file=sys.stderr)
        options, storage = engine_options(found), found.runs_dir / "engine"
        request = EngineRequest([checkpoint.base_model], options, storage, found.folder / "harness.log")
        self._cut = 0
        self._loop = asyncio.new_event_loop()
        self._connection: Connection = connect(engine, request)
        self._service: Service = Service(self._connection, {"run": found.id, "program": "lm-evaluation-harness"})
        path = None if base else checkpoint.sampler
        made = checkpoint.base_model if base else f"{found.id} {checkpoint.cell} {checkpoint.stage}"

        async def open_all() -> Opened:
            await self._service.open()
            if path and not await self._service.exists(path):
                raise EnvironmentProblem(f"the engine no longer holds the checkpoint of {checkpoint.stage}, {path}")
            chat = await self._service.chat(checkpoint.base_model, chat_options(checkpoint, found, engine))
            longest = self._service.context_length(checkpoint.base_model) or _CONTEXT
            return Opened(await self._service.sampler(checkpoint.base_model, path), chat, made, longest)

        try:
            self.opened = self._loop.run_until_complete(open_all())
        except BaseException:
            self.close()
            raise

    def all(self, work: Sequence[Callable[[], Awaitable[_T]]]) -> list[_T]:
        """Await many, some at once, in order; says on stderr how many texts lost their beginnings."""
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(ask: Callable[[], Awaitable[_T]]) -> _T:
            async with gate:
                return await ask()

        async def every() -> list[_T]:
            return list(await asyncio.gather(*map(one, work)))

        self._cut = 0
        found = self._loop.run_until_complete(every())
        if self._cut:
            told = f"{self._cut:,} of {len(work):,} texts did not fit into {self.opened.longest:,} tokens"
            print(f"charrun: {told} and lost their beginnings", file=sys.stderr)
        return found

    async def loglikelihood(self, context: Sequence[int], continuation: Sequence[int]) -> tuple[float, bool]:
        """Sum of the continuation's log-probs in nats, and whether each of its tokens is the likeliest one.

        A text that is too long for the model loses tokens at its beginning.
        """
        from tinker import types

        tokens = self._fitting([*context, *continuation], self.opened.longest - 1)
        n = min(len(continuation), len(tokens) - 1)
        if n < 1:
            return 0.0, True
        response = await self.opened.client.sample(
            prompt=types.ModelInput.from_ints(tokens),
            num_samples=1,
            sampling_params=types.SamplingParams(max_tokens=1),
            include_prompt_logprobs=True,
            topk_prompt_logprobs=1,
            prompt_logprobs_last_n=n,
        )
        values = [float(value) for value in response.prompt_logprobs[-n:]]
        likeliest = [top[0][0] if top else None for top in response.topk_prompt_logprobs[-n:]]
        return sum(values), likeliest == tokens[-n:]

    async def generate(self, prompt: Sequence[int], params: Mapping[str, Any]) -> str:
        """An answer's visible text, up to the first of the texts under `until`.

        The prompt is kept whole and the answer has what it leaves; a prompt that leaves no room loses tokens at its
        beginning.
        """
        from tinker import types

        wanted, longest = int(params.get("max_gen_toks", _MOST_TOKENS)), self.opened.longest
        kept = self._fitting(list(prompt), longest - min(wanted, _LEAST_ROOM))
        response = await self.opened.client.sample(
            prompt=types.ModelInput.from_ints(kept),
            num_samples=1,
            sampling_params=types.SamplingParams(
                max_tokens=min(wanted, longest - len(kept)),
                temperature=float(params.get("temperature", 0.0)) if params.get("do_sample", True) else 0.0,
                top_p=float(params.get("top_p", 1.0)),
                seed=int(params.get("seed", 0)),
                stop=self.opened.chat.stop_tokens,
            ),
        )
        text = self.opened.chat.answer(response.sequences[0].tokens)
        until = params.get("until") or []
        return cut(text, [until] if isinstance(until, str) else until)

    def _fitting(self, tokens: list[int], most: int) -> list[int]:
        self._cut += len(tokens) > most
        return tokens[-most:]

    def close(self) -> None:
        """Leave the engine; one that was started for this is stopped."""
        self._loop.run_until_complete(self._service.close())
        self._connection.close()
        self._loop.close()


def cut(text: str, until: Iterable[str]) -> str:
    """A text up to the first place where one of some texts begins."""
    return text[: min((text.find(each) for each in until if each and each in text), default=len(text))]


def model_class() -> type[Any]:
    """The class that lm-evaluation-harness knows as `charrun`, registered."""
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    class CharrunLM(TemplateLM):  # type: ignore[misc]
        """A run's checkpoint. Arguments as `Asker` has them; those of batches and devices are the engine's business."""

        def __init__(
            self,
            run: str,
            cell: str | None = None,
            stage: str | None = None,
            base: bool = False,
            runs_dir: str = "runs",
            batch_size: Any = None,
            max_batch_size: Any = None,
            device: Any = None,
        ) -> None:
            super().__init__()
            self.asker = Asker(str(run), cell, stage, str(base).lower() == "true", Path(runs_dir))
            self.tokenizer = self.asker.opened.chat.tokenizer

        @property
        def eot_token_id(self) -> int:
            return self.asker.opened.chat.end_of_turn

        @property
        def max_length(self) -> int:
            return self.asker.opened.longest - 2

        @property
        def tokenizer_name(self) -> str:
            return self.asker.opened.chat.name

        def get_model_info(self) -> dict[str, Any]:
            """What result files say of the model."""
            return {"model": self.asker.opened.name}

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **more: Any) -> list[int]:
            return self.asker.opened.chat.encode(string)

        def apply_chat_template(self, chat_history: list[Message], add_generation_prompt: bool = True) -> str:
            """The text that charrun's own rendering decodes to, with the beginning of an answer where one is given."""
            chat = self.asker.opened.chat
            if add_generation_prompt:
                return chat.decode(chat.prompt(chat_history))
            return chat.decode(chat.prompt(chat_history[:-1])) + chat_history[-1]["content"]

        def _loglikelihood_tokens(self, requests: Sequence[Any], **more: Any) -> list[tuple[float, bool]]:
            return self.asker.all([_scoring(self.asker, context, rest) for _, context, rest in requests])

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
            work, ends = [], []
            for request in requests:
                tokens = self.tok_encode(request.args[0])
                windows = get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, 1)
                work += [_scoring(self.asker, *make_disjoint_window(window)) for window in windows]
                ends.append(len(work))
            values = [value for value, _ in self.asker.all(work)]
            return [math.fsum(values[start:end]) for start, end in zip([0, *ends], ends, strict=False)]

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            return self.asker.all([_writing(self.asker, *request.args) for request in requests])

    registered: type[Any] = register_model("charrun")(CharrunLM)
    return registered


def _scoring(asker: Asker, context: Sequence[int], rest: Sequence[int]) -> Callable[[], Awaitable[tuple[float, bool]]]:
    return lambda: asker.loglikelihood(context, rest)


def _writing(asker: Asker, context: str, params: Mapping[str, Any]) -> Callable[[], Awaitable[str]]:
    return lambda: asker.generate(asker.opened.chat.encode(context), params)


def main() -> None:
    """lm-evaluation-harness's own command line, which knows the model `charrun`."""
    try:
        model_class()
        from lm_eval.__main__ import cli_evaluate
    except ImportError as error:
        problem = EnvironmentProblem(
            f"lm-evaluation-harness cannot be imported: {error}", "pip install 'charrun[lm-eval]'"
        )
        print(problem.render(), file=sys.stderr)
        sys.exit(EXIT_ENVIRONMENT)
    try:
        cli_evaluate()
    except CharrunError as error:
        print(error.render(), file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
