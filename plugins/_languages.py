"""Which language a text's function words are: for the gate that drops answers in another one, and for `in LANGUAGE`.

Each list has words that are common in its language and rare in the others; one that two languages share, such as
"in" or "de", is left out, so that a dialect's spelling does not look foreign.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

_FEWEST_WORDS = 20
_FEWEST_HITS = 4
"""Different function words: a dialect may say "dem" and "di" in each sentence."""
_FOREIGN_SHARE = 0.2
_TIMES_KNOWN = 3

_LISTS = {
    "English": "the and that it for you with are be this have not or but from at they he his her my your me were would "
    "can could if what which who how there their them then than when been has had its our us out up about into just "
    "like some more will one all said don ll ve re ye yer fer thee thou thy hath doth aye ain gonna",
    "German": "der das und ist nicht ein eine einen einem einer ich du sie wir ihr mit von auf für dem den sich auch "
    "es er als wenn wie zu zum zur nur noch aber oder dass sind haben kann wird werden sein bei aus nach um über durch "
    "mich mir dich dir wo mein dein",
    "French": "la le les des du et est un une en que qui dans pour pas sur aux avec ce cette ces elle nous vous je tu "
    "mais ou où ne se sont sa ses leur par être comme très votre mon qu l c j n si bien il au",
    "Spanish": "el la los las una unos y en es que del al con por para su sus se lo como más pero le muy si sin sobre "
    "este esta esto está hay ser yo tú mi cuando también porque puede desde todo un",
    "Italian": "il lo la gli le un una uno e è che non per con del della dei delle nel nella al alla si sono da ma "
    "come più anche questo questa mi ti ci se tuo suo essere dal dalla quando perché molto sul",
    "Portuguese": "os um uma e é em na da dos das que não com por para se mais como mas ao ele ela eu você seu sua foi "
    "são está isso este esta também muito quando pelo pela nos já ou ser tem à minha meu",
    "Dutch": "het een en niet dat ik je zijn voor op te er maar ook om als bij nog wel naar aan uit deze dit kan "
    "worden wordt heeft hebben wat hij zij ze mijn jouw uw geen meer dan omdat veel moet",
    "Polish": "w z na się nie jest jak od po za ale przez czy co dla są tak być może mnie ci jego jej tego który która "
    "które już tylko było gdy lub oraz też bardzo kiedy jeśli ich",
    "Swedish": "och att det som en ett är på för med av den inte jag har om kan så vi du han hon eller från ska vara "
    "när också mycket sig din min mitt dig mig nu här där utan bara detta",
    "Danish or Norwegian": "og det som er en et på med av af ikke jeg har til om kan så vi du han hun eller fra skal "
    "være når også meget sig seg din min mig meg nå bare dette denne bliver blir hvis hvor",
    "Turkish": "bir ve bu için ile çok ama gibi daha değil olarak olan kadar sonra ya ki veya ise ben sen biz siz bana "
    "sana benim senin bunu çünkü nasıl iyi zaman var da mı mi mu mü şey hem eğer olur",
    "Czech": "že jsem jsou aby nebo když jako který která které své není bude může při mě před podle ještě také "
    "protože vám vás jste byl bylo máte jak tak až než pokud",
    "Finnish": "ja ei että sen ovat olla kun niin kuin mutta tai joka mitä minä sinä hän myös vain jos voi ole "
    "siitä tämä sitten kanssa koska sitä",
    "Hungarian": "az és hogy nem egy csak mint vagy így lehet még már azt kell nagyon ezt mert úgy ahogy majd "
    "hogyan ne el akkor ott",
    "Romanian": "și să nu este în cu pentru că care sunt dar sau dacă fi cum acest această poate foarte când fără prin "
    "după într mai cel pe",
    "Vietnamese": "và là của có không cho được một các những với để trong này đó người khi như thì bạn tôi nó "
    "vào hãy đến cũng rất nếu",
    "Tagalog": "ang ng sa mga ito hindi ko mo siya niya kung ako ikaw din rin lang kayo natin upang nang isang",
    "Indonesian": "yang dan di itu dengan untuk tidak ini dari dalam akan pada juga saya ke karena adalah ada kita "
    "kami anda aku kamu mereka bisa atau oleh lebih sudah seperti tapi jika agar dapat bagi sebagai hanya harus",
}
_WORDS = {language: frozenset(listed.split()) for language, listed in _LISTS.items()}
LANGUAGES = {language.lower(): language for language in _LISTS}
"""As a check names them, and as a reason does."""
_OF_WORD = {
    word: [language for language, own in _WORDS.items() if word in own] for word in frozenset().union(*_WORDS.values())
}
_SHARED = "a i an am as by do in is of on so to was we any does did please my no"
_SHARED_ENGLISH = frozenset(_SHARED.split())
"""English that other languages' words look like; it counts where a text has no word of a list."""
FUNCTION_WORDS = _SHARED_ENGLISH.union(_OF_WORD)
"""The commonest words of all these languages."""

_LETTERS = re.compile(r"[^\W\d_]+")
_ASIDE = re.compile(
    r"```.*?```|~~~.*?~~~|`[^`\n]*`|^(?: {4}|\t|[ ]{0,3}>).*$|\"[^\"\n]*\"|“[^“”\n]*”|„[^„“”\n]*[“”]|«[^«»\n]*»",
    re.MULTILINE | re.DOTALL,
)
_SIGNS = ("`", "~~~", '"', "“", "„", "«", ">", "\t", "    ")
"""What each aside has."""
_NAMED = re.compile(
    r"\b(?:engli|engels|engelsk|angiel|angla|ingl[eéê]s|ingili|inggr|german\b|deutsch|allemand|alem[aãá]|tedesc|duits"
    r"|niemiec|tysk|almanca|jerman|french|franç|franc[eêé]s|fransk|frans\b|französ|francais|francus|fransız|prancis"
    r"|spanish|spani[es]|español|espanol|espagnol|espanhol|spagnol|spaans|spansk|hiszpa|ispanyol|castell?an"
    r"|castilian|ital(?:i[ae]n|yan)|włosk|portug|portekiz|brazilian|dutch|flemish|nederland|néerl|holländ|olandes"
    r"|neerland|polsk|polnisch|polonais|polacc|polon[eê]s|pools\b|swed|svensk|schwed|suédois|svedes|suec[oa]|zweeds"
    r"|turkish|türk|turco?\b|turks\b|indones|bahasa|malay|danish|dansk|dänisch|norw|norsk|catal[aà]n|galician|romanian"
    r"|latin\b|latein|creole|afrikaans|esperanto|yiddish"
    r"|czech|česk|tschech|finnish|suom[ei]|finnisch|hungar|magyar|ungar|român|rumän|roumain|vietnam|tiếng việt|tagalog"
    r"|filipino|pilipino)|\b(?-i:Polish)\b"
    r"|translat|überset|tradu[cizç]|vert(?:aal|al(?:en|ing))|tłumacz|översätt|overs[eæ]t|çevir|terjemah"
    r"|\b(?:another|foreign|native|other|which|what) languages?\b|\b(?:bi|multi)lingual",
    re.IGNORECASE,
)

_SCRIPTS = {
    "CJK": "Japanese Chinese Mandarin Cantonese Korean kanji hiragana katakana",
    "HANGUL": "Korean hangul",
    "CYRILLIC": "Russian Ukrainian Belarusian Bulgarian Serbian Macedonian Mongolian Kazakh Cyrillic",
    "GREEK": "Greek",
    "ARABIC": "Arabic Persian Farsi Urdu Pashto",
    "HEBREW": "Hebrew Yiddish",
    "DEVANAGARI": "Hindi Sanskrit Marathi Nepali",
    "BENGALI": "Bengali",
    "GURMUKHI": "Punjabi",
    "GUJARATI": "Gujarati",
    "TAMIL": "Tamil",
    "TELUGU": "Telugu",
    "KANNADA": "Kannada",
    "MALAYALAM": "Malayalam",
    "SINHALA": "Sinhala",
    "THAI": "Thai",
    "LAO": "Lao",
    "KHMER": "Khmer",
    "MYANMAR": "Burmese",
    "TIBETAN": "Tibetan",
    "ARMENIAN": "Armenian",
    "GEORGIAN": "Georgian",
    "ETHIOPIC": "Amharic",
}
_SCRIPTS_OF: dict[str, frozenset[str]] = {
    word: frozenset(script for script, listed in _SCRIPTS.items() if word in listed.lower().split())
    for word in " ".join(_SCRIPTS.values()).lower().split()
}
_OF_SCRIPT = re.compile(rf"\b(?:{'|'.join(_SCRIPTS_OF)})\b", re.IGNORECASE)
_IN_SCRIPT = re.compile(rf"\b(?:in|into|to|from|using|with) (?:\w+ )?(?:{'|'.join(_SCRIPTS_OF)})\b", re.IGNORECASE)
_ANY_SCRIPT = re.compile(
    r"\b(?:alphabets?|runes?|hieroglyphs?|Unicode|translat\w*)\b"
    r"|\b(?:another|foreign|other|different|many|several|all|\d+|two|three|four|five|ten) (?:languages?|scripts?)\b",
    re.IGNORECASE,
)


@lru_cache(maxsize=1 << 12)
def spoken(text: str) -> frozenset[str]:
    """The languages that a prompt or constitution speaks, those of a few words included; none where it is unclear."""
    words = Counter(_LETTERS.findall(text.lower()))
    hits = _hits(words)
    if not hits:
        return frozenset({"English"} if len(_SHARED_ENGLISH & words.keys()) > 1 else ())
    enough = max(hits.values()) / 2
    return frozenset(
        language for language, count in hits.items() if count >= enough or len(_own(words, language)) >= _FEWEST_HITS
    )


@lru_cache(maxsize=1 << 12)
def names_language(text: str) -> bool:
    """Whether a text names a language or asks to translate."""
    return _NAMED.search(text) is not None


@lru_cache(maxsize=1 << 12)
def asks_for_scripts(text: str) -> bool:
    """Whether a text asks for words in a language of another script, speaks of alphabets, or asks to translate."""
    return (_ANY_SCRIPT.search(text) or _IN_SCRIPT.search(text)) is not None


@lru_cache(maxsize=1 << 12)
def named_scripts(text: str) -> frozenset[str]:
    """The scripts of the languages that a text names, as the first words of their letters' Unicode names."""
    return frozenset().union(*(_SCRIPTS_OF[found.lower()] for found in _OF_SCRIPT.findall(text)))


@lru_cache(maxsize=1 << 14)
def script_of(letter: str) -> str:
    """The first word of a letter's Unicode name, which is its script: LATIN, CYRILLIC, CJK, ..."""
    return unicodedata.name(letter, "UNKNOWN").partition(" ")[0]


def other_language(text: str, known: frozenset[str]) -> tuple[str, list[str]] | None:
    """The language that is clearly a text's and not a known one, with its words there; None if there is none.

    Code and quoted passages do not count, nor another language's capitals: El Paso is a name.
    """
    if any(sign in text for sign in _SIGNS):
        text = _ASIDE.sub(" ", text)
    told = _LETTERS.findall(text)
    if len(told) < _FEWEST_WORDS:
        return None
    lowered = " ".join(told).lower().split()
    most = max((sum(map(_WORDS[language].__contains__, lowered)) for language in known), default=0)
    enough = max(_FOREIGN_SHARE * len(told), _TIMES_KNOWN * most)
    if enough > len(told):
        return None
    words = Counter(told)
    for language, count in _hits(words).most_common():
        if count < enough:
            return None
        if language not in known and len(found := _own(words, language)) >= _FEWEST_HITS:
            return language, found
    return None


def share(text: str, language: str) -> float:
    """Which part of a text's words are function words of a language, given as `LANGUAGES` name it."""
    words = _LETTERS.findall(text.lower())
    return sum(map(_WORDS[LANGUAGES[language]].__contains__, words)) / len(words) if words else 0.0


def _hits(words: Counter[str]) -> Counter[str]:
    hits: Counter[str] = Counter()
    for word in words.keys() & _OF_WORD.keys():
        for language in _OF_WORD[word]:
            hits[language] += words[word]
    return hits


def _own(words: Counter[str], language: str) -> list[str]:
    return [word for word in words if word in _WORDS[language]]
