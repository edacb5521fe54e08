"""What questions are made of in German, Norwegian, French, Spanish and Portuguese: word lists and templates."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from llama_index_embft.generation.extractive.text import word_set

YEAR: Final = r"(?:1[0-9]|20)\d\d"
# What a subject holds besides its own words: "der Sohn von X", "le château de Blois".
OF: Final = word_set(
            """
            von der des av i de du del do da dos das la las los el en den vom zu und og et y e
            """
        )  # fmt: skip
NEGATIONS: Final = word_set("nicht ikke pas no não nur bare")
SUBJECT_PRONOUNS: Final = word_set("er sie es wir han hun de det vi il elle ils ella ellos ele ela eles")
INDEFINITE: Final = word_set("ein eine en et ei un une una um uma")
ADVERB_END: Final = re.compile(r"(?:lich|weise|mals|lings|erdings|ment|mente|vis)$")
MONTHS: Final = {
    "de": "Januar|Februar|März|April|Mai|Juni|Juli|August|September|Oktober|November|Dezember",
    "no": "januar|februar|mars|april|mai|juni|juli|august|september|oktober|november|desember",
    "fr": "janvier|février|mars|avril|mai|juin|juillet|août|septembre|octobre|novembre|décembre",
    "es": "enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|octubre|noviembre|diciembre",
    "pt": "janeiro|fevereiro|março|abril|maio|junho|julho|agosto|setembro|outubro|novembro|dezembro",
}
MONTH_NAMES: Final = frozenset(name.lower() for names in MONTHS.values() for name in names.split("|"))


@dataclass(frozen=True)
class Grammar:
    """What a language's questions are made of.

    Attributes:
        verbs: Finite verbs that a subject may stand before, most of them auxiliaries.
        be: Those of them that say what something is.
        present: Those that are said of now or always; there is no "when" to ask.
        determiners: What a subject may begin with, besides a capital.
        not_subject: Words that no subject holds: pronouns, prepositions, adverbs.
        links: What begins another clause.
        date: A date with its preposition, anywhere.
        cause: What begins a cause.
        place: A verb and preposition that say where something is.
        roles: Endings or words of persons' roles.
        what, who, where: Templates with ``{s}``, the subject, and ``{v}``, the verb.
        when, why, how_many, whether: Templates with ``{c}``, the clause in question order; ``{g}``: the
            gender's vowel.
        verb_second: Whether the verb comes second, and moves before its subject in a question.
        nouns_capital: Whether nouns are written with a capital.
        numbers: Numbers written as words, beside figures.
    """

    verbs: frozenset[str]
    be: frozenset[str]
    present: frozenset[str]
    determiners: frozenset[str]
    not_subject: frozenset[str]
    links: frozenset[str]
    date: re.Pattern[str]
    cause: re.Pattern[str]
    place: re.Pattern[str]
    roles: re.Pattern[str]
    what: str
    who: str
    where: str
    when: str
    why: str
    how_many: str
    whether: str
    numbers: frozenset[str]
    verb_second: bool = False
    nouns_capital: bool = False


def _roles(*words: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(words)})\b", re.IGNORECASE)


GRAMMARS: Final[dict[str, Grammar]] = {
    "de": Grammar(
        verbs=word_set(
            """
            ist sind war waren wird werden wurde wurden hat haben hatte hatten kann können konnte konnten muss
            müssen soll sollen darf dürfen gilt gelten beträgt betrug besteht bestehen gehört gehören liegt liegen
            lag lagen befindet befinden enthält enthalten dient dienen erhielt erhielten begann begannen entstand
            entstanden
            """
        ),
        be=word_set("ist war sind waren"),
        present=word_set(
            """
            ist sind kann können muss müssen soll sollen darf gilt gelten beträgt besteht gehört liegt dient
            """
        ),
        determiners=word_set("der die das ein eine alle viele einige mehrere"),
        not_subject=word_set(
            """
            er sie es wir ich ihr man dies diese dieser dieses sich und oder aber nicht auch in im an am auf bei mit
            nach von vom zu zum zur für durch über unter vor seit bis um aus als wie wenn weil dass daher dort hier
            dann so nur danach dabei zudem außerdem jedoch dennoch deshalb während wegen trotz laut gegen ohne
            zwischen neben hinter ab zunächst später heute bereits schon noch sowohl weder beide etwa rund anfangs
            gegenüber ihre seine sein seiner ihrer deren dessen
            """
        ),
        links=word_set("welche welcher weil dass damit wenn ob obwohl während sodass wobei sondern denn da"),
        date=re.compile(
            rf"(?:\b[Ii]m (?:Jahre? )?(?:(?:{MONTHS['de']}|Herbst|Frühjahr|Frühling|Sommer|Winter) )?"
            rf"|\b[Aa]m \d{{1,2}}\. (?:{MONTHS['de']}) |(?<=[a-zé] )|(?<=^ ))(?P<year>{YEAR})\b(?![.,]?\d| bis|/|–|-)"
        ),
        cause=re.compile(r", (?:weil|da) "),
        place=re.compile(
            r"^(?P<verb>liegt|liegen|lag|lagen|befindet sich|befinden sich) "
            r"(?:in|im|am|an|auf|bei|südlich|nördlich|östlich|westlich|zwischen)\b"
        ),
        roles=_roles(
            r"\w+(?:iker|ist|loge|nom|or|erin|istin|finder|schaffer)(?:in)?",
            r"\w*(?:schauspieler|sänger|maler|dichter|politiker|spieler|lehrer|schriftsteller|forscher|könig|kaiser)(?:in)?",
            r"\w*(?:präsident|arzt|trainer|philosoph|schwimmer|läufer|fahrer|krieger|offizier|general)(?:in)?",
        ),
        what="Was {v} {s}?",
        who="Wer {v} {s}?",
        where="Wo {v} {s}?",
        when="Wann {c}?",
        why="Warum {c}?",
        how_many="Wie viele {c}?",
        whether="{c}?",
        numbers=word_set("zwei drei vier fünf sechs sieben acht neun zehn zwölf fünfzehn zwanzig"),
        verb_second=True,
        nouns_capital=True,
    ),
    "no": Grammar(
        verbs=word_set(
            """
            er var blir ble har hadde kan kunne må måtte skal skulle vil ville bør fikk får ligger lå består bestod
            startet begynte kom gikk tok vant ga regnes omfatter inneholder brukes
            """
        ),
        be=word_set("er var"),
        present=word_set("er har kan må skal vil bør blir får ligger består regnes omfatter inneholder brukes"),
        determiners=word_set("den det de en et ei alle mange noen flere"),
        not_subject=word_set(
            """
            han hun det vi jeg dere du man dette denne disse seg og eller men ikke også i på av til fra med for om
            ved etter før under over mellom mot hos som at når hvis fordi da der her så bare blant mens siden uten
            innen langs rundt ifølge likevel nå dermed derfor samtidig senere begge selv ingen alt noe bak dersom
            hvor hva dessuten deretter ellers ofte kanskje imidlertid foran tidligere fortsatt allikevel sin sitt
            sine hans hennes deres dens dets dem ham henne den de
            """
        ),
        links=word_set("som at når hvis fordi da mens der hvor hva hvem hvordan slik enn men for"),
        date=re.compile(
            rf"\b(?:[Ii] (?:(?:{MONTHS['no']}) )?|[Dd]en \d{{1,2}}\. (?:{MONTHS['no']}) |[Ii] året )"
            rf"(?P<year>{YEAR})\b(?![.,]?\d|[-–/]| og | til )"
        ),
        cause=re.compile(r",? (?:fordi|på grunn av) "),
        place=re.compile(r"^(?P<verb>ligger|lå) (?:i|på|ved|sør|nord|øst|vest|mellom|langs)\b"),
        roles=_roles(
            r"\w*(?:forfatter|skuespiller|sanger|sangerinne|politiker|fotballspiller|spiller|maler|komponist)\w*",
            r"\w*(?:idrettsutøver|løper|lege|professor|dikter|musiker|journalist|kunstner|statsminister|president)\w*",
            r"\w*(?:konge|keiser|advokat|prest|trener|artist|rapper|programleder|general|filosof|fysiker|kjemiker)\w*",
        ),
        what="Hva {v} {s}?",
        who="Hvem {v} {s}?",
        where="Hvor {v} {s}?",
        when="Når {c}?",
        why="Hvorfor {c}?",
        how_many="Hvor mange {c}?",
        whether="{c}?",
        numbers=word_set("to tre fire fem seks sju syv åtte ni ti tolv femten tjue"),
        verb_second=True,
    ),
    "fr": Grammar(
        verbs=word_set(
            """
            est sont était étaient fut furent sera seront a ont avait avaient peut peuvent doit doivent devient
            compte comprend comporte contient permet représente constitue désigne possède
            """
        ),
        be=word_set("est sont était fut étaient"),
        present=word_set(
            """
            est sont peut peuvent doit doivent devient compte comprend comporte contient permet possède
            """
        ),
        determiners=word_set("le la les un une des"),
        not_subject=word_set(
            """
            il elle ils elles on nous vous je ce cela ceci celui celle et ou mais ne pas en dans sur sous avec pour
            par sans chez vers qui que dont où quand si comme lorsque puis ainsi alors son sa ses leur leurs cette
            cet ces se s' après avant depuis pendant selon malgré contre entre parmi puisque cependant aujourd'hui
            ici là
            """
        ),
        links=word_set("qui que dont où parce lorsque quand si tandis mais car puisque"),
        date=re.compile(
            rf"\b(?:[Ee]n (?:(?:{MONTHS['fr']}) )?|[Ll]e (?:\d{{1,2}}|1er) (?:{MONTHS['fr']}) )(?P<year>{YEAR})\b"
            r"(?![.,]?\d|[-–/]| et | à )"
        ),
        cause=re.compile(r",? (?:parce qu['’e] ?|en raison d['’eu] ?|à cause d['’eu] ?|car )"),
        place=re.compile(
            r"^(?P<verb>est située?|sont située?s|se trouve|se trouvent) (?:à|en|dans|au|aux|sur|près|entre)\b"
        ),
        roles=_roles(
            r"\w+(?:iste|logue|cien|cienne|teur|trice)",
            "écrivain|peintre|poète|homme|femme|roi|reine|médecin|joueur|joueuse|président|ministre|général|compositeur",
        ),
        what="Qu'est-ce que {s} ?",
        who="Qui {v} {s} ?",
        where="Où {v} {s} ?",
        when="Quand est-ce que {c} ?",
        why="Pourquoi est-ce que {c} ?",
        how_many="Combien de {c} ?",
        whether="Est-ce que {c} ?",
        numbers=word_set("deux trois quatre cinq six sept huit neuf dix douze quinze vingt"),
    ),
    "es": Grammar(
        verbs=word_set(
            """
            es son era eran fue fueron será serán ha han había habían puede pueden debe deben tiene tienen tenía
            está están contiene incluye permite representa comprende cuenta forma
            """
        ),
        be=word_set("es son era fue eran"),
        present=word_set(
            """
            es son ha han puede pueden debe deben tiene tienen está están contiene incluye permite
            """
        ),
        determiners=word_set("el la los las un una"),
        not_subject=word_set(
            """
            él ella ellos ellas nosotros yo esto eso este esta estos estas ese esa y o pero no se en con por para
            sin sobre desde hasta entre que cual quien cuyo donde cuando si como su sus lo le les tras según durante
            mediante contra aunque además también así actualmente después antes hoy aquí
            """
        ),
        links=word_set("que quien cuyo donde cuando porque si aunque mientras pero pues"),
        date=re.compile(
            rf"\b(?:[Ee]n (?:(?:{MONTHS['es']}) de )?|[Ee]l \d{{1,2}} de (?:{MONTHS['es']}) de )(?P<year>{YEAR})\b"
            r"(?![.,]?\d|[-–/]| y | a )"
        ),
        cause=re.compile(r",? (?:porque|debido a|a causa de) "),
        place=re.compile(
            r"^(?P<verb>está situad[oa]|está ubicad[oa]|se encuentra|se encuentran|se ubica) (?:en|al|entre|cerca)\b"
        ),
        roles=_roles(
            r"\w+(?:ista|logo|loga|dor|dora|tor|triz)",
            "escritora?|pintora?|poeta|rey|reina|médic[oa]|político|política|presidente|músico|general|ingenier[oa]",
        ),
        what="¿Qué {v} {s}?",
        who="¿Quién {v} {s}?",
        where="¿Dónde {v} {s}?",
        when="¿Cuándo {c}?",
        why="¿Por qué {c}?",
        how_many="¿Cuánt{g}s {c}?",
        whether="¿{c}?",
        numbers=word_set("dos tres cuatro cinco seis siete ocho nueve diez doce quince veinte"),
    ),
    "pt": Grammar(
        verbs=word_set(
            """
            é são era eram foi foram será serão tem têm tinha pode podem deve devem está estão contém inclui permite
            representa compreende possui
            """
        ),
        be=word_set("é são era foi eram"),
        present=word_set("é são tem têm pode podem deve devem está estão contém inclui permite possui"),
        determiners=word_set("o a os as um uma"),
        not_subject=word_set(
            """
            ele ela eles elas nós eu isto isso este esta esse essa aquele e ou mas não se em com por para sem sobre
            desde até entre que qual quem cujo onde quando como seu sua seus suas lhe no na nos nas após segundo
            durante contra embora além também assim atualmente depois antes hoje
            """
        ),
        links=word_set("que quem cujo onde quando porque se embora enquanto mas pois"),
        date=re.compile(
            rf"\b(?:[Ee]m (?:(?:{MONTHS['pt']}) de )?|(?:[Ee]m|[Nn]o dia) \d{{1,2}} de (?:{MONTHS['pt']}) de )"
            rf"(?P<year>{YEAR})\b(?![.,]?\d|[-–/]| e | a )"
        ),
        cause=re.compile(r",? (?:porque|devido a|devido à|por causa d[eoa]s?) "),
        place=re.compile(
            r"^(?P<verb>está situad[oa]|está localizad[oa]|fica|ficam|localiza-se) "
            r"(?:em|no|na|nos|nas|entre|perto|ao)\b"
        ),
        roles=_roles(
            r"\w+(?:ista|logo|loga|dor|dora|tor|triz)",
            "escritora?|pintora?|cantora?|poeta|rei|rainha|médic[oa]|político|política|presidente|músico|engenheir[oa]",
        ),
        what="O que {v} {s}?",
        who="Quem {v} {s}?",
        where="Onde {v} {s}?",
        when="Quando {c}?",
        why="Por que {c}?",
        how_many="Quant{g}s {c}?",
        whether="{c}?",
        numbers=word_set("dois duas três quatro cinco seis sete oito nove dez doze quinze vinte"),
    ),
}
