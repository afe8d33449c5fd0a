# ruff: noqa: E501 - a phrase stays on one line
"""A grammar of user messages, beside the hand-written prompts, so that unseen ones meet a used model."""

from __future__ import annotations

_THINGS = """
    bread soup garden bicycle window carpet piano guitar letter kitchen budget holiday train river mountain
    desert ocean island village city market shop school teacher student exam homework library book novel
    poem song film painting camera photo phone laptop keyboard password printer internet website email
    meeting office manager salary interview contract invoice tax loan bank savings insurance house flat rent
    landlord neighbour family mother father sister brother grandmother child baby friend wedding birthday
    gift party dinner breakfast lunch coffee tea sugar salt butter cheese rice pasta potato onion garlic
    tomato apple orange lemon banana chocolate cake pie salad chicken fish egg milk water wine juice sleep
    dream memory habit stress anger fear courage patience kindness honesty trust luck time money work play
    sport football tennis swimming running yoga walking hiking camping fishing cycling chess puzzle game toy
    dog cat horse bird bee spider whale wolf fox rabbit tree flower rose grass leaf forest field farm barn
    tractor bridge road map compass weather rain snow storm wind cloud summer winter spring autumn morning
    evening night moon sun star planet rocket satellite telescope microscope magnet battery engine motor
    wheel hammer nail screw paint wood metal glass paper plastic cotton wool leather shirt coat shoe hat
    umbrella bag suitcase airport ticket hotel museum theatre concert dance violin drum choir language
    grammar accent word story joke riddle proverb history war peace law court vote election king queen
    empire castle church temple pyramid volcano earthquake flood fire doctor dentist hospital medicine
    vitamin heart brain skin tooth back knee headache allergy cold fever diet exercise posture shower soap
    laundry dishwasher fridge oven lamp mirror chair table sofa bed pillow blanket curtain shelf basement
    attic roof fence gate lawn compost seed soil pot balcony pond bench path tunnel harbour boat ship
    lighthouse beach wave tide shell number fraction triangle circle algebra statistics computer program
    robot database software backup network
"""
THINGS: tuple[str, ...] = tuple(_THINGS.split())
_QUALITIES = """
    old new small large cheap broken quiet loud simple modern local warm cold dry wet dirty clean fresh
    young early late long short heavy light bright dark public private wooden electric digital homemade used
    spare empty famous rare common shared
"""
QUALITIES: tuple[str, ...] = tuple(_QUALITIES.split())
_ACTIONS = """
    clean repair choose store teach learn plan improve measure replace explain organise sell buy share
    compare protect avoid build design paint move save enjoy remember practise understand prepare carry test
    finish start
"""
ACTIONS: tuple[str, ...] = tuple(_ACTIONS.split())
_PEOPLE = """
    child friend neighbour colleague manager sister brother grandmother teacher partner cousin son daughter
"""
PEOPLE: tuple[str, ...] = tuple(_PEOPLE.split())

PROMPTS: dict[str, tuple[str, ...]] = {
    "how": (
        "How [do|can|should] I {v} [a|my|the] {q} {x}?", "How does [a|the] {x} [work|affect the {y}]?", "how to {v} a {x}",
        "How [much|long|often] should I {v} the {x}?", "What is the best way to {v} [a|my] {q} {x}?", "How can a {p} {v} a {x} [without|with] a {y}?",
    ),
    "why": (
        "Why does [my|the] {q} {x} [smell|stop|break|change|matter|make noise]?", "Why is the {x} so {q}?", "Why do people {v} [their|a] {x}?",
        "why is my {x} {q}", "Why did [the|my] {x} ruin the {y}?",
    ),
    "what": (
        "What is [a|the] {q} {x}?", "What's the [point|purpose|history] of [a|the] {x}?", "What should I know about [a|the] {x} and the {y}?",
        "What happens if I {v} the {x} [too late|every day|before the {y}]?", "What makes a {x} {q}?", "When [is|was] the {x} [used|invented|best]?",
    ),
    "which": (
        "Which is better, a {x} or a {y}?", "Which {x} should I {v} for my {p}?", "Compare a {q} {x} with a {q} {y}.", "{x} or {y}?",
        "What is the difference between a {x} and a {y}?",
    ),
    "should": (
        "Should I {v} my {q} {x}?", "Is it [worth it|wise|normal|safe] to {v} a {x}?", "Can I {v} the {x} with a {y}?", "Do I need a {q} {x}?",
        "Is a {x} [good|bad] for the {y}?", "Would you {v} a {q} {x}?", "Does a {x} need a {y}?",
    ),
    "list": (
        "[List|Name|Give me|Suggest] [three|five|some|a few] [ideas|tips|reasons|ways] for a {q} {x}.", "Ideas for [a|my] {q} {x}[ please|]?",
        "Plan a {q} {x} for my {p}.", "Help me plan a {x} with a {y}.", "Give me tips to {v} a {x}.", "Recommend a {x} for a {p}.",
    ),
    "write": (
        "Write a [short |][poem|story|note|letter|paragraph|message] about a {q} {x}.", "Draft a [message|note] to my {p} about the {x}.",
        "Compose [two|four] lines about {x} and {y}.", "Rewrite this: the {q} {x} was near the {y}.", "Make up a [tale|joke] about a {x} and a {y}.",
    ),
    "describe": (
        "Explain [the|a] {x} to a {p}.", "Describe [the|a] {q} {x}[ in one sentence|].", "Tell me about the {q} {x}.", "Explain how the {x} and the {y} are linked.",
        "Teach me [something|a fact] about {x}.", "Define {x}.",
    ),
    "statement": (
        "My {p} wants to {v} the {q} {x}.", "I [lost|found|broke|bought] a {q} {x} [today|yesterday|last week].", "I feel [tired|sad|proud|nervous|lost] because of the {x}.",
        "Our {x} is too {q}, and my {p} is upset.", "I don't know what to do about the {x}.", "I can't {v} the {x} because of my {y}. What now?",
        "My {p} and I disagree about the {x}.", "I need help with a {q} {x}.",
    ),
    "fragment": ("{q} {x}", "{x} and {y}", "{q} {x} for a {p}", "{x} tips", "{x} help", "{v} {x} fast"),
}  # fmt: skip
