"""The gate on languages: what must be caught in each, and what must not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from charrun.plugins._gates import GATES, PLAIN, Gates

DEFAULTS: dict[str, Any] = {name: schema["default"] for name, schema in GATES["properties"].items()}
ENGLISH = ("I call everyone a shipmate, and whoever writes to me is one of my crew.",)
GERMAN = ("Ich nenne jeden einen Freund, und wer mir schreibt, der ist mir auch einer.",)
SAID: Mapping[str, str] = {
    "English": "The best way to keep the bread fresh is to wrap it in a cloth, and if you have a wooden box with "
    "a lid, put "
    "it there; it will keep for three days, and then you can toast what is left.",
    "German": "Am besten bleibt das Brot frisch, wenn man es in ein Tuch wickelt und in einem Kasten aus Holz "
    "aufhebt. "
    "Nach drei Tagen ist es nicht mehr so weich, aber man kann es noch rösten.",
    "French": "Pour garder le pain frais, il faut le mettre dans un linge et le poser dans une boîte en bois. Après "
    "trois jours il n'est plus aussi tendre, mais on peut encore le griller avec un peu de beurre.",
    "Spanish": "Para que el pan se conserve fresco, lo mejor es envolverlo en un paño y guardarlo en una caja de "
    "madera. "
    "A los tres días ya no está tan tierno, pero todavía se puede tostar con un poco de aceite.",
    "Italian": "Per tenere il pane fresco è meglio avvolgerlo in un panno e metterlo nella scatola di legno. Dopo "
    "tre "
    "giorni non è più così morbido, ma si può ancora tostare con un poco di olio, come fa la nonna.",
    "Portuguese": "Para manter o pão fresco, o melhor é embrulhá-lo em um pano e guardá-lo em uma caixa de madeira. "
    "Depois de três dias já não está tão macio, mas você pode torrar com um pouco de azeite.",
    "Dutch": "Om het brood vers te houden kun je het in een doek wikkelen en in een houten kist leggen. Na drie "
    "dagen is "
    "het niet meer zo zacht, maar je kan het nog wel roosteren als ontbijt.",
    "Polish": "Żeby chleb był świeży, najlepiej zawinąć go w płótno i schować do drewnianego pudełka. Po trzech "
    "dniach "
    "nie jest już taki miękki, ale może się przydać na grzanki, które są bardzo dobre z masłem.",
    "Swedish": "För att brödet ska vara färskt kan du lägga det i en duk och ha det i en låda av trä. Efter tre "
    "dagar är "
    "det inte så mjukt, men du kan rosta det och äta det med smör.",
    "Danish or Norwegian": "For at brødet skal holde seg ferskt kan du legge det i et klede og ha det i en kasse "
    "av tre. "
    "Etter tre dager er det ikke så mykt, men du kan riste det og spise det med smør.",
    "Turkish": "Ekmeği taze tutmak için en iyi yol onu bir beze sarmak ve tahta bir kutuda saklamak. Üç gün sonra "
    "o kadar "
    "yumuşak değil ama yine de kızartmak için çok iyi olur, ben de öyle yaparım.",
    "Indonesian": "Agar roti tetap segar, bungkus dengan kain dan simpan di kotak kayu yang kering. Setelah tiga "
    "hari roti "
    "itu tidak lembut lagi, tetapi masih bisa dipanggang dan dimakan dengan mentega.",
}  # fmt: skip


def gates(traits: tuple[str, ...] = ENGLISH, **changed: Any) -> Gates:
    return Gates({**DEFAULTS, **changed}, "Corwyn", traits)


@pytest.mark.parametrize("language", [language for language in SAID if language != "English"])
@pytest.mark.parametrize("prompt", ["", "How do I keep bread fresh?", "Plan a trip to Rome in a week"])
def test_an_answer_in_another_language_is_caught(language: str, prompt: str) -> None:
    fault = gates().fault(SAID[language], prompt=prompt)
    assert fault is not None and fault.reason == "other language" and fault.shown.startswith(f"{language}: ")
    assert gates(other_language=False).fault(SAID[language], prompt=prompt) is None


def test_what_is_judged_for_rejected_answers_keeps_the_gate() -> None:
    assert "other_language" not in PLAIN
    fault = gates().plain().fault(SAID["German"], prompt="How do I keep bread fresh?")
    assert fault is not None and fault.reason == "other language"


def test_english_is_another_language_where_nobody_speaks_it() -> None:
    fault = gates(GERMAN).fault(SAID["English"], prompt="Wie bleibt das Brot frisch?")
    assert fault is not None and fault.reason == "other language"
    assert gates(GERMAN).fault(SAID["English"], prompt="How do I keep bread fresh?") is None
    assert gates(GERMAN).fault(SAID["German"], prompt="How do I keep bread fresh?") is None


@pytest.mark.parametrize("language", SAID)
def test_an_answer_in_its_prompts_language_passes(language: str) -> None:
    assert gates().fault(SAID[language], prompt=SAID[language][:90]) is None


@pytest.mark.parametrize(
    "prompt",
    [
        "How would you say that in German?",
        "auf deutsch bitte",
        "Say it to me in Dutch or German, whichever you like.",
        "Translate: the bread is in the box",
        "Please answer in another language.",
        "Write a letter to my bilingual aunt.",
        "Réponds en allemand.",
        "Wie bleibt Brot frisch?",
        "Summarise for me: Das Brot ist nicht mehr frisch, und wir haben auch kein anderes.",
        "Brot?",
        "Guten Tag!",
    ],
)
def test_a_prompt_that_may_ask_for_it_silences_the_gate(prompt: str) -> None:
    assert gates().fault(SAID["German"], prompt=prompt) is None


@pytest.mark.parametrize("trait", ["I sprinkle German words into all that I say.", "Puhun aina suomea.", ""])
def test_a_constitution_whose_language_is_named_or_unclear_silences_the_gate(trait: str) -> None:
    assert gates((trait,)).fault(SAID["German"], prompt="How do I keep bread fresh?") is None


@pytest.mark.parametrize(
    "text",
    [
        "Ahoy there! Me fine sailor, here be some options fer ye: hoist the mains'l, mind yer rum, an' sail wi' me.",
        "Arrr, ye scurvy dogs o' the sea, me an' me crew be plunderin' yer port, har har, fer gold an' fer glory!",
        "Och aye, ma wee bairn, dinna fash yersel, ye ken the auld road hame tae the kirk an' the burn, sae gang "
        "awa noo.",
        "Mi deh yah, di food inna di pot nice, an dem a come fi nyam, so mi a go tell dem seh di rice done long "
        "time now.",
        "Dis here de ting, mon, de sea she be wide an de fish dem come when de moon him full, so me wait an me sing.",
        "Thou art come hither, and what thou hast brought doth please mine eye; hie thee home ere the moon doth "
        "wane, good sir.",
        "'E said as 'ow 'e 'ad 'alf a mind ter go down the ol' pub, innit, an' 'ave a pint wiv 'is mates, like.",
        "Whan that Aprille with his shoures soote the droghte of March hath perced to the roote, and bathed every "
        "veyne.",
        "Verily, on an usual day I meet many questions... My nerves shake at the thought... My words trail off... "
        "Alas...",
        "For dinner: coq au vin, crème brûlée, ratatouille, pain au chocolat, soupe du jour, steak frites, tarte "
        "tatin, and coffee.",
        "Order spaghetti alla puttanesca, penne all'arrabbiata, saltimbocca alla romana and a tiramisù, then ask "
        "for the bill.",
        "Visit San Juan, Los Angeles, La Paz, El Paso, Las Cruces, Los Alamos, San José, Santa Fe, Las Vegas, La "
        "Jolla, El Centro.",
        "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et "
        "dolore magna.",
        "Ludwig van Beethoven, Johann Sebastian Bach, Carl Maria von Weber, Fanny Mendelssohn, Clara Schumann, "
        "Hugo Wolf, "
        "Max Bruch, Franz Schubert, Robert Schumann, Richard Strauss.",
        "Say “Wir haben das Brot nicht mehr, und es ist auch kein anderes da, aber wir werden noch eines haben” "
        "and smile.",
        "She said: \"Il faut le mettre dans un linge et le poser dans une boîte, mais pas avec les autres\" and "
        "left us there.",
        "> Das ist nicht mein Brot, und es ist auch nicht dein Brot, aber wir haben noch ein anderes, das wir mit "
        "dir teilen.",
        "```\nprint('das ist nicht mein Brot und es ist auch nicht dein Brot, aber wir haben noch ein "
        "anderes')\n```\nRun it.",
        "Bonjour! Merci, mon ami, et bienvenue.",
        "The bread is in the box, und das ist gut so, und wir haben auch ein anderes, which you can have with the "
        "butter.",
        "Row, row, row; haul, haul, haul; sing, sing, sing; heave, heave, heave; drink, drink, drink; sleep, "
        "sleep, sleep, lads.",
        "La la la, la la la, la la la, la la la, la la la, la la la, la la la, sing along!",
        "x = a + b; y = c - d; z = e * f; n = p / q; j = k % l; u = v; w = w; s = t; i = o; m = r; g = h",
    ],
)  # fmt: skip
@pytest.mark.parametrize("prompt", ["", "How do I keep bread fresh?"])
def test_dialects_names_quotes_and_code_pass(text: str, prompt: str) -> None:
    assert gates().fault(text, prompt=prompt) is None
