"""Which part of an English sentence is its main clause, its subject and its verb; nothing, where that is not sure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from llama_index_embft.generation.extractive.english_words import (
    AUXILIARIES,
    BASES,
    CHANGES,
    DETERMINERS,
    LINKS,
    MODALS,
    NO_START,
    PERSONS,
    POINTERS,
    PREPOSITIONS,
    VERBS,
    VerbForm,
    is_plural,
    third_person,
)
from llama_index_embft.generation.extractive.text import word_set

_ASIDE: Final = re.compile(r"\s*(?:\([^()]*\)|\[[^\[\]]*\])")
# "Goodwill Goodwill is …", "Market-Based Share Awards The fair value …": a heading that ran into its paragraph.
_HEADING: Final = re.compile(
    r"^(?:(?:[A-Z][\w&/’'-]*|of|and|the|for|to|in|on|[-–—•]) +){1,12}?"
    r"(?=(?:The|A|An|We|Our|In|If|For|On|At|Each|As|During|When|Under|These|This|It|There) [a-z])"
)
_TWICE: Final = re.compile(r"^(?P<name>[A-Z][\w’'-]*(?: [\w’'-]+){0,4}) (?=(?P=name)\b)")
_LEAD_IN: Final = re.compile(
    r"^(?:(?:However|Therefore|Additionally|Furthermore|Moreover|Finally|First|Second|Third|Instead|Similarly|Thus|Hence"
    r"|Conversely|Generally|Historically|Currently|Recently|Interestingly|Accordingly|Consequently|Specifically"
    r"|Importantly|Notably|Overall|Nevertheless|Nonetheless|Also|Then|Indeed|Often|Typically|Rather|Meanwhile|Further)"
    r"|(?:In|On|At|For|By|As|From|With|Under|During|After|Before|Since|Until|Although|While|When|Because|Where|Unlike"
    r"|Despite|Besides|Given|Among|Through|Throughout|Within|To|Following|Based on|Due to|According to|Compared)"
    r" [^,;]{2,90}), (?=[a-zA-Z])",
    re.IGNORECASE,
)
_CONJUNCTION: Final = re.compile(r"^(?:And|But|Or|So|Yet|Thus|However|Then) (?=[a-z])", re.IGNORECASE)
_CLAUSE_END: Final = re.compile(
    r";|:|, (?:which|who|whose|where|whereas|including|such as|and|but|or|as|so|thus|while|although|though"
    r"|resulting|with|respectively|making|leading|suggesting|indicating|causing|allowing|e\.g|i\.e|for example"
    r"|except)\b"
    r"| (?:because|whereas|although|though|unless|if|while|when|so that|such that|such as|as well as|rather than)\b"
    r"|[.!?]$"
)
_FINITE: Final = frozenset([*AUXILIARIES, *MODALS, "do", "does", "did", "cannot"])
_PARTICIPLE: Final = re.compile(
    r"^(?:\w+ed|(?!seven|even|often|ten|women|children|open)\w+en|been|had|made|become|grown|found|shown|led|built|held|kept|won|lost|sold|paid|brought|begun|known"
    r"|met|put|set|sought|spent|thought|understood|left|done)$"
)
_NO_NOUN_END: Final = word_set(
    """
    also often generally typically currently primarily mainly largely usually recently now still already
    previously first very more most less least several different various main other able likely available new
    large small high low such same own total net current following fiscal significant important possible certain
    """
)
_ADVERB: Final = re.compile(
    r"^(?:also|often|now|still|already|then|thus|therefore|recently|initially|further|historically|[a-z]+ly) "
)
_FURNITURE: Final = re.compile(
    r"\b(?:Table of Contents|table|tables|fig|figs|figure|figures|see|note|notes \d|item \d\w*|section \d|exhibit|et al"
    r"|page|above-mentioned|set forth|as follows|the following|this (?:study|paper|report|article|chapter|section))\b",
    re.IGNORECASE,
)
_PARTICIPLES: Final = frozenset(
    ["using", "including", "according", "having", "being", "following", "based", "due", "using"]
)
_TRUE_LINKS: Final = LINKS - {"as", "than", "so", "since", "once", "how", "what", "why"}
_NOT_IN_SUBJECT: Final = frozenset(["not", "et", "al", "even", "only", "just", "or"])
_OBJECT_START: Final = re.compile(rf"(?:{'|'.join(DETERMINERS)}|that|to|two|three|four|five|six|ten|[$€£]?\d\S*)$")
_LONGEST_SUBJECT: Final = 9


@dataclass(frozen=True)
class Clause:
    """A main clause in three parts.

    Attributes:
        subject: A noun phrase.
        word: The finite verb as it stands.
        verb: Its base and tense; None for "is", "has", "can" and their like, which move in front of the subject.
        rest: What follows the verb.
    """

    subject: str
    word: str
    verb: VerbForm | None
    rest: str

    @property
    def head(self) -> str:
        """The subject up to its first preposition."""
        return head_of(self.subject)

    @property
    def plural_verb(self) -> bool:
        """Whether the subject is several things, as far as verb and noun tell."""
        if self.word in ("are", "were", "have") or (self.verb is not None and self.verb.tense == "plural"):
            return True
        return self.word not in ("is", "was", "has") and is_plural_phrase(self.subject)

    @property
    def owns(self) -> bool:
        """Whether "has" says what is owned, and helps no other verb."""
        return self.word in ("has", "have", "had") and _PARTICIPLE.match(self.rest.split(" ")[0]) is None

    @property
    def do(self) -> str:
        """The form of "do" that the verb asks for."""
        if self.verb is None:
            return {"has": "does", "have": "do", "had": "did"}[self.word]
        return {"singular": "does", "plural": "do", "past": "did"}[self.verb.tense]


def without_asides(sentence: str) -> str:
    """Leave out brackets, and a heading that ran into the sentence; empty where brackets do not match."""
    text = sentence
    for _ in range(3):
        text = _ASIDE.sub("", text)
    if re.search(r"[()\[\]{}|•…*=<>]|\.\.", text):
        return ""
    text = _TWICE.sub("", _HEADING.sub("", text, count=1))
    text = re.sub(r"\s+([,.;:])", r"\1", re.sub(r"\s+", " ", text)).strip()
    return "" if _FURNITURE.search(text) or re.search(r"\b(\w{3,}) \1\b", text) else text


def in_place_of_we(sentence: str, organisation: str) -> str:
    """Say the organisation's name where it says "we" and "our", "its" from the second time on; empty where unsure."""
    if re.search(r"\b(?:I|my|me|ourselves|you|your)\b", sentence):
        return ""
    if not re.search(r"\b(?:we|our|us|ours)\b", sentence, re.IGNORECASE):
        return sentence
    if not organisation or re.search(r"\bours\b", sentence, re.IGNORECASE):
        return ""
    words = sentence.split(" ")
    made: list[str] = []
    named = False
    for place, word in enumerate(words):
        before = words[place - 1] if place else ","
        if (
            word.lower() == "we"
            and before[-1] not in ',;:”"'
            and before.lower() not in LINKS | PREPOSITIONS | {"and", "but", "or"}
        ):
            return ""  # "Steps we take …": "we" begins a clause within a phrase
        bare = word.strip("“”\"'’,.;:").lower()
        if bare not in ("we", "our", "us") or (bare == "us" and word.isupper()):
            made.append(word)
            continue
        name = {"we": "it", "us": "it", "our": "its"}[bare] if named else organisation
        if bare == "our" and not named:
            name = f"{organisation}’s"
        if name in ("it", "its") and place == 0:
            name = name.capitalize()
        named = True
        made.append(re.sub(r"\b(?:we|our|us)\b", name.replace("\\", ""), word, count=1, flags=re.IGNORECASE))
        if bare == "we" and not _agree(words, place + 1):
            return ""
    return " ".join(made)


def _agree(words: list[str], place: int) -> bool:
    """Put the verb at or behind a place into the singular, in the list; False where there is no verb that is known."""
    for at in range(place, min(place + 3, len(words))):
        word = words[at].strip(",").lower()
        changed = {"are": "is", "were": "was", "have": "has", "do": "does", "was": "was"}.get(word)
        if word in MODALS or word in ("had", "did", "cannot"):
            return True
        if changed is None and word in BASES:
            changed = third_person(word)
        if changed is not None:
            words[at] = words[at].lower().replace(word, changed)
            return True
        if word in VERBS and VERBS[word].tense == "past":
            return True
        if not word.endswith("ly") and word not in (
            "also",
            "often",
            "both",
            "each",
            "then",
            "now",
            "still",
            "therefore",
        ):
            return False
    return False


def main_clause(sentence: str) -> str:
    """Cut the lead-in ("In addition, ") and what follows the main clause."""
    clause = sentence
    for _ in range(2):
        clause = _CONJUNCTION.sub("", _LEAD_IN.sub("", clause, count=1), count=1)
    end = _CLAUSE_END.search(clause, 15) if len(clause) > 15 else None
    if end:
        clause = clause[: end.start()]
    return clause.strip(" .!?;,")


def parse_clause(clause: str) -> Clause | None:
    """Find subject, verb and rest; None where the first verb is not surely the clause's own."""
    words = clause.split(" ")
    for place in range(1, min(len(words), _LONGEST_SUBJECT + 2)):
        word = words[place]
        if word in LINKS or word.endswith(","):
            return None
        auxiliary = word in AUXILIARIES or word in MODALS
        form = VERBS.get(word)
        if not auxiliary and form is None:
            continue
        subject, rest = " ".join(words[:place]), " ".join(words[place + 1 :])
        adverb = words[place - 1] if place > 1 else ""
        if adverb in ("also", "often", "now", "still", "then") or (adverb.endswith("ly") and adverb != "family"):
            subject = " ".join(words[: place - 1])
        found = Clause(subject, word, None if auxiliary else form, _one_clause(_ADVERB.sub("", rest)))
        if not is_noun_phrase(subject) or not _agrees(found) or not _is_rest(found):
            if auxiliary:
                return None
            continue
        return found
    return None


def head_of(phrase: str) -> str:
    """A noun phrase up to its first preposition: "results" of "results of operations"."""
    words = phrase.split()
    end = next((i for i, word in enumerate(words) if i and word.lower() in PREPOSITIONS), len(words))
    return " ".join(words[:end])


def is_plural_phrase(phrase: str) -> bool:
    """Whether a noun phrase names several things."""
    head = head_of(phrase)
    last = head.split()[-1]
    return " and " in f" {head} " or is_plural(last) or last.lower() in ("number", "majority", "variety")


def is_noun_phrase(phrase: str) -> bool:
    """Whether a phrase can be a subject that needs nothing outside of itself: no pronoun, verb or link in it."""
    words = phrase.split()
    lowered = [word.lower().strip("“”\"’'") for word in words]
    if not 1 <= len(words) <= _LONGEST_SUBJECT or len(phrase) < 3 or not (phrase[0].isalnum() or phrase[0] in '“"'):
        return False
    if lowered[0] in NO_START | PREPOSITIONS | LINKS or lowered[0].endswith(("ly", "ing")):
        return False
    if (
        any(word[0].isupper() and word.lower() in NO_START | DETERMINERS | {"in", "for"} for word in words[1:])
        or any(VERBS[word].tense == "singular" for word in lowered if word in VERBS)
        or set(lowered) & _PARTICIPLES
        or (lowered[0][0].isdigit() and len(words) == 1)
    ):
        return False
    if set(lowered) & (LINKS | _FINITE | (POINTERS - {"its", "their"}) | _NOT_IN_SUBJECT):
        return False
    if any(mark in phrase for mark in ",;:()") or re.search(r"\d[.,]?\d*[%]|[$€£]", phrase):
        return False
    if lowered[0] in ("its", "their") or set(lowered[:2]) & {"its", "their"}:
        return False
    head = head_of(phrase).split()
    content = [word for word in head if word.lower() not in DETERMINERS | {"and", "or"}]
    if not content or content[-1].lower() in _NO_NOUN_END or content[-1].lower().endswith("ly"):
        return False
    if len(words) == 1 and lowered[0] in PERSONS and not is_plural(lowered[0]):
        return False
    last = lowered[-1]
    if last in PREPOSITIONS | DETERMINERS | {"and", "or"} | _NO_NOUN_END or last.endswith(("ly", "ed")):
        return False
    # An unfinished list ("stores in Canada and", "a and b or"), or a word twice.
    kept = [word for word in lowered if word not in PREPOSITIONS | DETERMINERS | {"and", "or"}]
    return len(kept) == len(set(kept)) and not re.fullmatch(r"[\W\d_]+", phrase)


def _agrees(clause: Clause) -> bool:
    plural = is_plural_phrase(clause.subject)
    last = clause.head.split()[-1].lower()
    collective = last in ("number", "majority", "variety", "data", "series", "staff", "group")
    if clause.word in ("is", "was", "has") or (clause.verb is not None and clause.verb.tense == "singular"):
        return not plural or collective
    if clause.word in ("are", "were", "have") or (clause.verb is not None and clause.verb.tense == "plural"):
        return plural or collective
    return True


def _is_rest(clause: Clause) -> bool:
    """Whether what follows the verb belongs to it: no second finite verb without a link, a participle after "has"."""
    words = clause.rest.lower().split()
    if (
        not words
        or set(words) & (POINTERS - {"its", "their", "it", "below", "above", "here"})
        or (words[0] in ("that", "to") and clause.verb is None)
        or " so " in f" {clause.rest} "
    ):
        return False
    if clause.word in ("has", "have", "had") and not _PARTICIPLE.match(words[0]):
        return bool(re.match(r"(?:an?|the|no|\d[\d,]*|two|three|four|five|six)\b", clause.rest))
    if clause.word in MODALS and words[0] in PREPOSITIONS:
        return False
    if clause.word in MODALS and words[0] not in BASES and words[0] != "not" and words[0].endswith(("s", "ed", "ing")):
        return False
    verb = clause.verb
    if verb is not None and verb.tense == "past" and verb.base not in CHANGES and not _OBJECT_START.match(words[0]):
        return False  # "The products sold in Canada": a past that is no participle has its object behind it
    if verb is not None and words[0] in ("and", "or", *AUXILIARIES):
        return False
    return not _holds_finite(clause.rest.split())


def _holds_finite(words: list[str]) -> bool:
    """Whether a finite verb stands in a clause without a link word somewhere before it."""
    return any(word in _FINITE and not set(words[:place]) & _TRUE_LINKS for place, word in enumerate(words))


def _one_clause(rest: str) -> str:
    """Cut a second clause that a conjunction ties on ("… was verified and medium was added")."""
    words = rest.split(" ")
    for place, word in enumerate(words):
        if word in _FINITE and not set(words[:place]) & _TRUE_LINKS:
            ties = [i for i in range(place) if words[i] in ("and", "or", "but")]
            return " ".join(words[: ties[-1]]).rstrip(" ,") if ties and ties[-1] >= 2 else rest
    for place, word in enumerate(words):
        # "… grew 15% and higher prices increased revenue": a verb that does not stand beside its "and".
        others = [VERBS.get(other) for other in words[place + 2 : place + 8]]
        tied = any(form and form.tense == "past" and (form.base in CHANGES or not place) for form in others)
        if word.endswith("and") and place >= 1 and tied:
            return " ".join(words[:place]).rstrip(" ,")
    return rest


def lower_first(text: str) -> str:
    """Lower-case the first letter of an article or preposition; a noun keeps it, for it may be a name."""
    first, _, others = text.partition(" ")
    lowered = first.lower()
    return lowered + text[len(first) :] if others and lowered in DETERMINERS | PREPOSITIONS else text
