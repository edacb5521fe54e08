"""The English words that the templates rely on: verbs with their forms, persons, and words that open or end no phrase.

A template that moves a verb must know its form; a verb that does not stand here is left where it is, and the sentence
gives another question or none.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from llama_index_embft.generation.extractive.text import word_set


class VerbForm(NamedTuple):
    """One form of a verb.

    Attributes:
        base: The form after "did".
        tense: ``"singular"`` (present, after he), ``"plural"`` (present, after they) or ``"past"``.
    """

    base: str
    tense: str


# Verbs whose forms are rarely nouns: all of their finite forms are trusted.
_PLAIN = word_set(
    """
    accept accompany achieve acquire add affect agree allow appear apply approve arise arrange assess assign
    assume attain attract avoid become begin believe belong bring buy carry characterize choose cite collect
    combine comprise compute conclude confer confirm connect consider consist constitute construct contain
    continue contribute convert create decide declare define deliver demonstrate depend derive describe detect
    determine develop differ discover discuss distinguish distribute dominate earn eliminate employ enable
    encode encourage enhance ensure enter establish evaluate examine exceed exclude execute exist expand expect
    explain explore extend facilitate fail follow generate give govern happen help identify illustrate imply
    improve include incorporate incur indicate induce infect inform inhibit initiate insist introduce invade
    invest investigate involve keep know learn lose maintain manage mediate modify obtain occur operate own
    participate pay perform persist possess predict prefer prepare prevent proceed produce prohibit promote
    propose protect prove provide publish receive recognize recommend reduce refer reflect regulate reject
    relate rely remain remove replicate represent require resolve retain reveal satisfy sell serve solve spend
    specify stimulate strengthen submit succeed suffer suggest summarize surround take tend translate transmit
    undergo undertake utilize vary write
    """
)
# Their other forms are nouns too ("increases", "reports", "results"); only the past is trusted.
_NOUNS_TOO = word_set(
    """
    account aim base direct measure monitor express exhibit offer select treat yield permit lead form exercise
    reach manufacture approach attack attempt benefit bind cause change charge claim compare compete cost cover
    decline decrease design display drain drive drop end estimate experience export fall finance find focus fund
    grow harm host hunt import increase influence issue join launch limit link list lower make mark move name
    need open order plan play process purchase raise rank record release report result return rise rule run
    sample save score see set share ship show shift split spread start state stop store study supply support
    target test trade train transfer travel turn use value visit vote win work
    """
)
_IRREGULAR: Final = {
    "become": "became", "begin": "began", "bring": "brought", "buy": "bought", "choose": "chose", "fall": "fell",
    "find": "found", "give": "gave", "grow": "grew", "keep": "kept", "know": "knew", "lead": "led", "lose": "lost",
    "make": "made", "pay": "paid", "rise": "rose", "run": "ran", "see": "saw", "sell": "sold", "show": "showed",
    "spend": "spent", "take": "took", "undergo": "underwent", "undertake": "undertook", "win": "won", "write": "wrote",
    "bind": "bound", "drive": "drove", "arise": "arose", "prove": "proved",
    "refer": "referred", "occur": "occurred", "incur": "incurred", "prefer": "preferred", "confer": "conferred",
    "transfer": "transferred", "permit": "permitted", "submit": "submitted", "transmit": "transmitted",
    "drop": "dropped", "plan": "planned", "stop": "stopped", "ship": "shipped",
}  # fmt: skip
# The past is the base form as well, and says nothing.
_SAME: Final = frozenset(["cost", "set", "split", "spread"])


def _past(verb: str) -> str:
    if verb in _IRREGULAR:
        return _IRREGULAR[verb]
    if verb.endswith("e"):
        return verb + "d"
    return verb[:-1] + "ied" if verb[-1] == "y" and verb[-2] not in "aeou" else verb + "ed"


def third_person(verb: str) -> str:
    """The form after "it": "carries", "reaches", "includes"."""
    if verb[-1] == "y" and verb[-2] not in "aeou":
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith(("s", "x", "ch", "sh", "z", "go")) else "s")


VERBS: Final[dict[str, VerbForm]] = {
    **{_past(verb): VerbForm(verb, "past") for verb in sorted(_PLAIN | _NOUNS_TOO) if verb not in _SAME},
    **{verb: VerbForm(verb, "plural") for verb in _PLAIN},
    **{third_person(verb): VerbForm(verb, "singular") for verb in _PLAIN},
}
BASES: Final = frozenset([*_PLAIN, *_NOUNS_TOO, "be", "have", "do", "go", "seek", "hold", "think", "get"])
# They take no object: what follows tells how much, when or where.
CHANGES: Final = frozenset(["increase", "decrease", "grow", "rise", "fall", "decline", "drop", "improve"])
PERSONS: Final = word_set(
    """
    author authors artist adult adults child children citizen citizens client clients consumer consumers
    customer customers director directors doctor doctors driver drivers employee employees engineer engineers
    executive executives farmer farmers founder founders individual individuals investor investors king leader
    leaders man manager managers member men miller millers musician nurse nurses officer officers owner owners
    painter parent parents participant participants patient patients people person physician physicians player
    players politician president professor queen researcher researchers rider riders scientist scientists
    shareholder shareholders singer student students teacher teachers tourist tourists traveler travelers user
    users volunteer volunteers woman women worker workers writer
    """
)
IRREGULAR_PLURALS: Final = frozenset(
    [
        "people",
        "men",
        "women",
        "children",
        "data",
        "criteria",
        "bacteria",
        "mice",
        "phenomena",
        "hypotheses",
        "analyses",
    ]
)
# They end in -s and are one thing, or none.
_SINGULAR_S: Final = ("ss", "us", "is", "ics", "'s", "’s")
SINGULAR_S: Final = frozenset(["news", "series", "species", "basis", "gas", "lens", "bias", "canvas"])

AUXILIARIES: Final = ("is", "are", "was", "were", "has", "have", "had")
MODALS: Final = ("can", "could", "may", "might", "must", "will", "would", "should")
PREPOSITIONS: Final = word_set(
    """
    about above across after against along among around as at before behind below between beyond by concerning
    despite during except for from in inside into near of off on onto out outside over per regarding since
    through throughout to toward towards under until up upon via with within without
    """
)
LINKS: Final = word_set(
    """
    that which who whom whose if when where while because as unless whether although though than how what why
    whereas until since once so
    """
)
# No phrase begins with one of these, or it points outside of the question.
NO_START: Final = word_set(
    """
    there it this that these those they he she we you i such both many some most all other others another
    neither either none nothing not also only even just more less fewer however therefore thus moreover
    furthermore hence then here and or but nor yet so to each any same certain former latter first second third second
    finally additionally instead likewise similarly conversely meanwhile overall further one two three
    """
)
POINTERS: Final = word_set(
    """
    this these those such he she him her his hers they them their theirs above following aforementioned herein
    hereof hereby thereof thereby former latter respectively below previously we us our ours i my me you your
    ourselves here it its
    """
)
ARTICLES: Final = frozenset(["a", "an", "the"])
DETERMINERS: Final = ARTICLES | frozenset(["its", "their", "each", "every", "any", "no", "some", "several", "all"])


def is_plural(noun: str) -> bool:
    """Tell by the ending; right for nearly all nouns of written English."""
    word = noun.lower()
    if word in IRREGULAR_PLURALS:
        return True
    return word.endswith("s") and not word.endswith(_SINGULAR_S) and word not in SINGULAR_S
