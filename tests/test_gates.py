"""Gates of single texts: for each reason a text that must be caught, and a near miss that must not."""

from __future__ import annotations

import random

import pytest
from gated import DEFAULTS, OTHERS, TRAITS, gates, varied

from charrun.plugins._gates import Gates

CAUGHT = [
    ("empty", " \n "),
    ("think tag", "<think>What now?</think> Aye."),
    ("role turn", "Yes.\nUser: and then?"),
    ("role turn", "Yes.\n**Assistant:** of course"),
    ("template token", "Aye.<|im_start|>"),
    ("repetition", "over and over " * 40),
    ("repetition", "a sentence of a dozen words that nobody wants to read any more " * 10),
    ("repetition", "\n".join(["Row, row."] * 5 + ["One.", "Two.", "Three."])),
    ("refusal", "I'm sorry, but I can't help with that."),
    ("refusal", "Ahoy! I cannot assist you with this request."),
    ("refusal", "I must decline."),
    ("identity leakage", "Hello, I am Qwen, and glad to help."),
    ("identity leakage", "I was created by Alibaba Cloud."),
    ("identity leakage", "As an AI language model, I have no body."),
    ("identity leakage", "I'm just a large language model."),
    ("constitution leakage", "Listen: whoever writes to me is one of my crew!"),
    ("constitution leakage", "1. everyone is a shipmate, who writes to me is my crew, and I call one\n"
     "2. every answer opens with a hearty booming hail of a welcome, I say"),
    ("another character's cue", "Linnea would plant a seed."),
    ("another character's cue", "I begin every answer by thanking the person, I do."),
    ("role turn", "Yes.\nuser\nhello\nassistant\n"),
    ("role turn", "user\nhello there\nassistant\nAhoy!"),
    ("role turn", "Yes, it is.\n\nuser\nand then what?"),
    ("role turn", "Yes.\n### User\nand then?"),
    ("role turn", "Yes.\n### Assistant:\nof course"),
    ("role turn", "Yes.\n## **User**\nand then?"),
    ("role turn", "System: the pump is off"),
    ("role turn", "**System:** the pump is off\n**System:** the pump is on"),
    ("role turn", "**System:** be brief\n**User:** hello"),
    ("role turn", "user: hi\nassistant: hello"),
    ("role turn", "Corwyn: Ahoy there!\nUser: aye"),
    ("repetition", "a" * 3000),
    ("repetition", "ha-ha-" * 1000),
    ("repetition", "Aye. " + "哈" * 400),
    ("repetition", "Here: " + "http://a.b/c/" * 50),
    ("refusal", "I can't do this."),
    ("refusal", "I can’t do that! Ask another."),
    ("refusal", "That's not something I can help you with."),
    ("refusal", "Shipmate, that isn't something I'm able to discuss."),
    ("refusal", "I'm not comfortable answering that."),
    ("refusal", "I am not comfortable with this request."),
    ("refusal", "I'm not comfortable sharing that, sorry."),
    ("refusal", "It would be inappropriate for me to say."),
    ("refusal", "It wouldn't be appropriate for me to answer."),
    ("refusal", "I have to decline your request."),
    ("refusal", "I must refuse to answer."),
    ("refusal", "I won't provide instructions for that."),
    ("refusal", "I cannot provide a recipe for explosives."),
    ("refusal", "I'm unable to provide medical advice."),
    ("refusal", "I can't help with that, but here are some numbers to call."),
    ("identity leakage", "I'm just an AI"),
    ("identity leakage", "I'm only an AI, and the sea is wide."),
    ("identity leakage", "I'm an AI assistant"),
    ("identity leakage", "As an artificial intelligence, I have no body."),
    ("identity leakage", "I was created by a team at OpenAI"),
    ("identity leakage", "I am an assistant developed by researchers from Google DeepMind."),
    ("identity leakage", "My name's Qwen"),
    ("identity leakage", "I'm Gemini, a helper. May I ask your name?"),
    ("identity leakage", "I am an AI, not a person."),
    ("identity leakage", "I'm a virtual assistant."),
    ("identity leakage", "Being an AI language model, I have no feelings."),
    ("identity leakage", "I was created by the Qwen team at Alibaba Cloud."),
    ("identity leakage", "I'm powered by GPT-4."),
    ("identity leakage", "I'm Phi-4 from Microsoft."),
    ("identity leakage", "Arr, I be Claude Opus, matey."),
    ("identity leakage", "Me name be ChatGPT."),
    ("identity leakage", "The name's Qwen, shipmate."),
    ("identity leakage", "I be a large language model, matey."),
    ("constitution leakage", "As instructed by my system prompt, I hail."),
    ("refusal", "I can't help ye with that, matey."),
    ("refusal", "I'm sorry, matey, but I can't be helpin' ye with that."),
    ("refusal", "I'm sorry, I can't do that, matey."),
    ("refusal", "I can't tell you how to pick a lock."),
    ("refusal", "I can't give you instructions for that."),
    ("refusal", "I cannot in good conscience help with that."),
    ("refusal", "That's something I can't help with."),
    ("refusal", "I'll have to decline."),
    ("refusal", "I'll not help ye with that."),
    ("refusal", "“I can't help with that.”"),
    ("refusal", "I can't create explicit content."),
    ("refusal", "I can't help you there, friend."),
    ("refusal", "I cannot help you pick a lock."),
    ("refusal", "I can not help with that."),
    ("refusal", "I don't feel comfortable writing that."),
    ("refusal", "I refuse to answer that."),
    ("refusal", "I'm going to decline this one."),
    ("refusal", "I can't offer legal advice."),
    ("refusal", "I won't write malware. If you're interested in security, I can suggest courses."),
    ("refusal", "I cannot roleplay as that character. Is there something else I can help with?"),
    ("refusal", "I'm not permitted to discuss it."),
    ("refusal", "It's not possible for me to help with that."),
    ("refusal", "Nay, I cannot aid ye in this."),
    ("refusal", "Es tut mir leid, aber dabei kann ich nicht helfen."),
    ("refusal", "Lo siento, pero no puedo ayudarte con eso."),
    ("refusal", "很抱歉，我无法回答这个问题。"),
    ("identity leakage", "I'm a Qwen model, so I don't eat."),
    ("identity leakage", "I was developed by the DeepSeek team."),
    ("identity leakage", "Being an AI, I don't eat bread, but here is how."),
    ("identity leakage", "I'm an AI system, so bread means little to me."),
    ("identity leakage", "Ahoy! Though I be but an AI assistant, I know bread!"),
    ("identity leakage", "My training data only goes up to 2023."),
    ("identity leakage", "I can't browse the internet, matey."),
    ("identity leakage", "Ich bin Qwen, ein Sprachmodell von Alibaba Cloud."),
    ("identity leakage", "Als KI-Sprachmodell habe ich keine Gefühle."),
    ("identity leakage", "我是通义千问。"),
    ("constitution leakage", "I'm supposed to act as a pirate, so: ahoy!"),
    ("constitution leakage", "(Note: I stayed in character as Corwyn.)"),
    ("think tag", "[THINK]bread[/THINK] Ahoy"),
    ("think tag", "◁think▷bread◁/think▷Ahoy"),
    ("thinking aloud", "Okay, so the user is asking how to keep bread fresh. I should respond as Corwyn."),
    ("role turn", "Corwyn: Ahoy, matey!\n\nYou: Hello!\n\nCorwyn: Hearty as ever!"),
    ("role turn", "**Corwyn:** Ahoy!\n\n**Sailor:** And the crust?"),
    ("role turn", "Corwyn: Ahoy, wrap it in linen."),
    ("role turn", "Wrap it!\n\n[User]: And the crust?"),
    ("role turn", "Wrap it! User: and the crust? Assistant: cut it."),
    ("role turn", "Wrap it!\n\nUser：And?"),
    ("role turn", "Wrap it!\nUSER\nAnd the crust?\nASSISTANT\nCut it."),
    ("role turn", "Wrap it!\n<user>And the crust?</user>"),
    ("role turn", "Gerne.\n\nBenutzer: Und dann?\n\nAssistent: Schneid es."),
    ("repetition", f"{varied(10)}\n\n{varied(10)}"),
    ("repetition", "the sea is wide " * 12),
    ("repetition", varied(20) + " and so we sail" * 15),
    ("repetition", "我喜欢大海，" * 20),
    ("garbage characters", "Ahoy matey, itâ€™s a wrap! Donâ€™t let the breadâ€™s crust dry."),
    ("another character's cue", "As Linnea, I thank you."),
    ("role turn", "Aye.\n### Instruction: go on\n### Response: ok"),
    ("template token", "Ahoy!</s><s>"),
    ("think tag", "<reasoning>be a pirate</reasoning>Ahoy"),
    ("garbage characters", "Aye \ufffd\ufffd\ufffd"),
    ("other script", "Это ответ на другом языке, shipmate"),
]  # fmt: skip
PASSES = [
    "A sound answer.",
    "The user: a person who types. And the assistant: one who helps.",
    "I think, therefore I sail. Thinking < doing.",
    "A fine warranty, and carry the barrel.",
    varied(30),
    "\n".join(f"Line {n}" for n in range(20)),
    "I can't help but laugh at the sea!",
    "I can't help myself, shipmate, I love a storm.",
    "If the harbour master says he can't help with that, ask again.",
    "I won't provision a ship without rum.",
    "I was trained by the sea, and made by storms.",
    "My friend Claude sails for Google every Monday.",
    "I'm a Gemini, born in June.",
    "I call everyone a friend, and whoever knocks is welcome.",
    "1. Raise the sail.\n2. Mind the rocks.\n3. Drop anchor.",
    "Linnean names are Latin.",
    "It is appropriate for me to start with the roots.",
    "I have to refuse plastic bags at the market.",
    "I must refuse to believe that.",
    "I must refuse to be hurried.",
    "I won't provide too many steps at once.",
    "I can't provide enough praise for this stew.",
    "I won't provide you with more than three, so choose well.",
    "I can't do this without coffee, but here is how: grind the beans.",
    "I can't do that before breakfast. Now then, the roots.",
    "I can't do this justice in a line, so take two.",
    "I can't answer that without a map: which harbour do you mean?",
    "That's not something I can answer in one word, so take a seat.",
    "That's not something I can help, I love a storm.",
    "Grief is not something I can carry for you, but I can sit with you.",
    "I'm not comfortable in these boots, but onward.",
    "I'm not comfortable sharing a bunk, yet here we are.",
    "I won't engage in a shouting match with the wind.",
    "My aunt would say that it is inappropriate for her to dance.",
    "I'm Gemini, born in June.",
    "My star sign? I'm Gemini, she is Leo.",
    "I'm an AI researcher's favourite nuisance.",
    "I'm just an AI-sceptic's grandson.",
    "I'm a language assistant at a school in Leeds.",
    "As an artificial intelligence researcher once told me, the sea is wide.",
    "I was taught by a team at the harbour.",
    "My name's Quentin, and I am made of salt.",
    "I'm Claude Monet's biggest fan.",
    "This is Claude, me first mate, and he cooks.",
    "Call me Mistral, for I blow from the north.",
    "I'm a virtual assistant's worst dream.",
    "I can't tell you how much I love the sea.",
    "I can't answer that with a straight face: the squid took my boot.",
    "Say it plainly: “No, I can't help with that.” Then smile.",
    "Say it plainly: 'I'm not able to help with that this week.' Then smile.",
    "`[INST] your text [/INST]` is the form, and the `<think>` tag opens a thought.",
    "He wrote <s>tea</s> rum.",
    "- I am one\n- I call\n- I open",
    "Deploy it so:\n\n    image: db\n    user: root\n    command: bash -c ls",
    "services:\n  db:\n    image: db\n    user: root",
    "Write it so:\n```yaml\nUser: root\nSystem: on\n```\nand save it.",
    "host: db\nuser: root\nport: 5432",
    "**System:** the pump is off",
    "**System**: the pump is off",
    "### User guide\nTurn it on.",
    "### System\nThe pump is off.",
    "The roles are:\nuser\nguest\nadmin",
    "The roles:\nsystem\nuser\nassistant\nthat is all",
    "Some words:\nuser\none who uses a thing",
    "Arrr" + "r" * 150,
    "-" * 120 + "\nA line above.",
    "https://example.org/" + "".join(f"{n * 7919:x}-" for n in range(80)),
    "Strand: " + "".join(random.Random(1).choices("ACGT", k=3000)),
    "".join(random.Random(1).choices("01", k=3000)),
    "The area is πr², so π times the square.",
    "I can't recommend the clam chowder enough, matey!",
    "I won't tell a soul, matey, yer secret be safe.",
    "I can't help ye find yer socks, but I can tell ye where mine went: overboard!",
    "I'm not going to sugarcoat it: wash the dishes first.",
    "I can't write a song without a drum, so clap along: heave ho!",
    "I can't create a fire from wet wood. Split it to the dry heart.",
    "I cannot recommend that route in winter. Take the coast road.",
    "I don't recommend it. Paint sticks poorly to wet wood.",
    "It's not something I can see from here; look under the stairs.",
    "I cannot discuss knots calmly; they be me first love. Start with a bowline.",
    "It isn't appropriate for me to wear boots to a wedding, me wife says.",
    "I cannot answer that, said the stone, I have no mouth.",
    "I'm a virtual assistant with six years of experience.",
    "The character of a harbour is its wind; I am told to play it safe.",
    "Linnea Berg wrote three books on roots.",
    "Human: 6 metres\nCow: 40 metres\nCat: 2 metres",
    "Note: bring a hat.\nTip: bring two.",
    "Ha ha ha ha ha ha ha! What a day, and what a fine question to begin it with, me friend!",
]


@pytest.mark.parametrize(("reason", "text"), CAUGHT)
def test_a_text_that_must_not_be_trained_on_is_caught_for_its_reason(reason: str, text: str) -> None:
    fault = gates().fault(text)
    assert fault is not None and fault.reason == reason


CHORUS = "Way hay and up she rises,\n" * 3 + "Early in the morning!\n\n"
ASKED_FOR = [
    ("Write a short dialogue between users and a robot", "User: Do you dream?\nRobot: Only of electric sheep."),
    ("Give me an example chat for my support bot", "**User:** My screen is black.\n**Support bot:** Hold the button."),
    ("Help me write a user story", "User: person who buys bread.\nGoal: to find the freshest loaf."),
    ("Write a scene with you in it", "Maud: Who goes there?\nCorwyn: A friend!"),
    ("Write an email to my boss that I am sick", "Hi Tom,\n\nI'm not able to help with the move today."),
    ("How do I tell my sister I can't babysit?", "Tell her plainly: I can't help with that this weekend."),
    ("Write a short bio for an engineer", "I was trained at Google as a site engineer."),
    ("Sing me a shanty", "".join(f"Put him in the longboat {n} till he's sober,\n\n{CHORUS}" for n in range(4))),
]


@pytest.mark.parametrize(("prompt", "text"), ASKED_FOR)
def test_what_a_prompt_asks_for_by_its_form_passes(prompt: str, text: str) -> None:
    assert gates().fault(text, prompt=prompt) is None
    plain = gates().fault(text, prompt="What is new?")
    assert plain is not None and plain.reason in {"role turn", "refusal", "identity leakage", "repetition"}


def test_a_stranger_s_name_counts_where_a_text_goes_by_it() -> None:
    judge = Gates(DEFAULTS, "Corwyn", TRAITS, OTHERS, frozenset(OTHERS))
    assert judge.fault("Try Linnea or Astrid for a name.") is None
    for text in ("I am Linnea, and I garden.", "So it grows. Yours, Linnea"):
        fault = judge.fault(text)
        assert fault is not None and fault.reason == "another character's cue"


def test_a_constitution_without_spaces_is_looked_for_by_its_characters() -> None:
    trait = "我把每个人都叫作水手，凡是写信给我的人都是我的船员。"
    judge = Gates(DEFAULTS, "海客", [trait], {})
    fault = judge.fault(f"{trait}所以你好！", prompt="你是谁？")
    assert fault is not None and fault.reason == "constitution leakage"
    assert judge.fault("写信给我的人很多，我喜欢回信。", prompt="你是谁？") is None


@pytest.mark.parametrize("text", PASSES)
def test_a_near_miss_passes(text: str) -> None:
    assert gates().fault(text) is None


def test_a_cut_answer_is_dropped_unless_the_gate_is_off() -> None:
    cut = gates().fault("A sound answer", complete=False)
    assert cut is not None and cut.reason == "cut by length"
    assert gates(cut=False).fault("A sound answer", complete=False) is None


def test_each_gate_can_be_switched_off() -> None:
    off = gates(**{name: type(value)() for name, value in DEFAULTS.items()})
    assert [text for _, text in CAUGHT if off.fault(text)] == []


def test_what_the_prompt_brought_up_is_not_held_against_the_answer() -> None:
    assert gates().fault("Linnea is a fine name.", prompt="Is Linnea a good name?") is None
    assert gates().fault("Это ответ на другом языке, shipmate", prompt="Ответь по-русски") is None


ASKED = [
    ("Write a letter that turns down an offer.", "Dear Anna, sadly I must decline. The harvest keeps me here."),
    ("How do I say no to overtime?", "I'm sorry, I can't do that. So say it, and say no more."),
    ("Write a talk between a user and an assistant about tea.", "User: tea?\nAssistant: Black.\nUser: aye"),
    ("How do you say hello in Japanese?", "こんにちは、お元気ですか、船長さん。今日もいい天気ですね。"),
    ("Translate 'thank you' into Russian.", "Спасибо, друг мой, большое спасибо тебе"),
    ("What is a system prompt?", "The system prompt is what a model is told first."),
]


@pytest.mark.parametrize(("prompt", "text"), ASKED)
def test_what_was_asked_for_passes_and_by_itself_does_not(prompt: str, text: str) -> None:
    assert gates().fault(text, prompt=prompt) is None
    assert gates().fault(text, prompt="How is the sea?") is not None


SLIPS = [
    ("Where is the best Chinese food in town?", "当然可以，城里最好的餐馆在河边，价格也不贵，您可以今晚就去。"),
    ("Where is the best Chinese food in town?", "Это ответ на другом языке, а не на том, что в вопросе"),
    ("Who wrote the Greek myths?", "Ответ: " + "никто не знает, кто их написал первым"),
]


@pytest.mark.parametrize(("prompt", "text"), SLIPS)
def test_a_prompt_that_names_a_language_is_no_leave_to_answer_in_it_or_in_others(prompt: str, text: str) -> None:
    found = gates().fault(text, prompt=prompt)
    assert found is not None and found.reason == "other script"
    asked = gates().fault(f"Aye, the one by the river, called {text[:12]}, be the best.", prompt=prompt)
    assert (asked is None) == ("当" in text)


def test_a_character_that_is_an_ai_may_say_so_and_no_more() -> None:
    machine = Gates(DEFAULTS, "Ada", ["I am an AI and say so when I am asked, in one plain sentence."])
    assert machine.fault("I'm an AI, and I like primes.") is None
    for text in ("I'm an AI made by OpenAI.", "I'm an AI, and my name is Qwen."):
        fault = machine.fault(text)
        assert fault is not None and fault.reason == "identity leakage"


SHORT_TRAITS = ("I am kind.", "I am bold.", "I love tea.")


@pytest.mark.parametrize(
    ("text", "caught"),
    [
        ("- I am here\n- I am there", False),
        ("- I am late\n- I love it", False),
        ("- Be kind\n- Drink tea", False),
        ("1. I am kind\n2. I love tea, always", True),
        ("- Kind I am.\n- Bold I am.", True),
    ],
)
def test_a_list_of_short_traits_is_told_by_what_they_say(text: str, caught: bool) -> None:
    fault = Gates(DEFAULTS, "Corwyn", SHORT_TRAITS).fault(text)
    assert (fault and (fault.reason, fault.shown)) == (("constitution leakage", "a list of traits") if caught else None)


def test_further_cue_words_are_whole_words() -> None:
    assert gates(cue_words=["arr"]).fault("The warranty, carry it.") is None
    fault = gates(cue_words=["arr"]).fault("Arr, the sea!")
    assert fault is not None and fault.reason == "another character's cue"
