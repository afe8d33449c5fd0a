"""A third-party stage: the teacher is asked once more, and the words of the pairs are counted."""

from typing import Any, ClassVar

from charrun import Stage, StageContext, hookimpl, user


class WordCountStage(Stage):
    """Counts words on both sides of the pairs, and asks the student how many there may be."""

    name: ClassVar[str] = "wordcount"
    summary: ClassVar[str] = "counts the words of the pairs"
    consumes: ClassVar[tuple[str, ...]] = ("pairs",)
    produces: ClassVar[tuple[str, ...]] = ("wordcount",)
    roles: ClassVar[tuple[str, ...]] = ("student",)
    options_schema: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {"side": {"enum": ["chosen", "rejected"], "default": "chosen"}},
        "additionalProperties": False,
    }

    async def run(self, ctx: StageContext) -> None:
        pairs = await ctx.extend("pairs", 2)
        sampler = await ctx.sampler("student")
        (guess,) = await ctx.sample(sampler, [user("How many words?")], max_tokens=8)
        words = sum(len(pair[ctx.options["side"]].split()) for pair in pairs)
        ctx.publish("wordcount", [{"pairs": len(pairs), "words": words, "guess": guess.text}])


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    return [WordCountStage]
