"""From nodes to a data set of extractive questions: which chunks, which kinds, no duplicate, same result each time."""

from __future__ import annotations

import bisect
import hashlib
import logging
import random
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from llama_index.core.schema import BaseNode, MetadataMode

from llama_index_embft._core.checks import check_number
from llama_index_embft.dataset.documents.loading import dataset_corpus
from llama_index_embft.dataset.provenance import BY_TEXT, Provenance
from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError, GenerationError
from llama_index_embft.generation.extractive.chunk import Chunk, headings_of, organisation_of
from llama_index_embft.generation.extractive.kinds import KINDS
from llama_index_embft.generation.extractive.terms import CorpusTerms, terms
from llama_index_embft.generation.extractive.text import LONGEST_SENTENCE, is_unspaced, words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

logger = logging.getLogger(__name__)

# Words from which on a question and a chunk are compared.
_SHINGLE: Final = 4

DEFAULT_KINDS: Final = ("pattern",)
# Where no template fits. A sentence with words left out is no copy, by which any retriever would find its chunk; key
# words are for text without sentences; in a language that has templates that is a table, of no use.
# English keeps its sentences whole: they trained better than thinned ones (docs/explanation/extractive.md).
_FALLBACK_KINDS: Final = ("dropout", "keywords", "cloze")
_FALLBACK_OF: Final = {"en": ("cloze",), "zh": ("dropout", "cloze"), "ja": ("dropout", "cloze")}
# Candidates of each kind and chunk beyond those asked for: some fall away as another chunk's too.
_SPARE: Final = 3


def generate_extractive_pairs(
    nodes: Sequence[BaseNode],
    *,
    kinds: Sequence[str] | None = None,
    num_questions_per_chunk: int = 2,
    seed: int = 0,
    metadata_mode: MetadataMode = MetadataMode.EMBED,
    show_progress: bool = False,
) -> EmbeddingQAFinetuneDataset:
    """Make questions from the chunks themselves, without an LLM, a key or a download.

    Such questions are a poor man's labels: they share words with their chunk, as a user's question often does not.
    What each kind gained or cost against human questions is in `docs/explanation/extractive.md`; compare the trained
    model with the base on real questions before you use it.

    A question that two different chunks would give is given to neither; chunks with one and the same text share
    theirs. Needs the candidates of all chunks in memory, about 1 kB a chunk and kind.

    Args:
        nodes: The chunks, as they will be indexed.
        kinds: Names from `KINDS`, used in turn. The default None means ``"pattern"``: these read as people ask, and no
            other kind was clearly better where all were measured. There are templates in English, Chinese, Japanese,
            German, Norwegian, French, Spanish and Portuguese. A chunk that no template fits, in whatever language,
            gives ``"dropout"`` questions instead, ``"keywords"`` where it has no sentence, and ``"cloze"`` ones last;
            in English ``"cloze"`` ones.
        num_questions_per_chunk: Most questions a chunk, over all kinds; a chunk with little prose gives fewer.
        seed: The same nodes and seed give the same questions, in whatever order the nodes come.
        metadata_mode: What the corpus holds. The default is what a `VectorStoreIndex` embeds; the questions are made
            from the text without metadata, and, by the kind ``"title"``, from titles and headings in the metadata.
        show_progress: Show a progress bar.

    Returns:
        The data set. Chunks without a question stay in its corpus, as they do in the index; empty ones do not.

    Raises:
        ConfigError: An unknown kind or none, a number of questions below 1, or no such metadata mode.
        DatasetError: Two nodes have one id, or something is no node.
        GenerationError: There is no text, or no question could be made from any of it.
    """
    if kinds is not None and (not kinds or isinstance(kinds, str) or any(kind not in [*KINDS] for kind in kinds)):
        raise ConfigError(f"`kinds` is {kinds!r}; give a list of one or more of: {', '.join(KINDS)}.")
    check_number("num_questions_per_chunk", num_questions_per_chunk, at_least=1)
    nodes = list(nodes)
    fields = dataset_corpus(nodes, metadata_mode=metadata_mode)
    if not fields.corpus:
        raise GenerationError(f"None of the {len(nodes)} nodes has text; check how the documents were read.")
    metadata = {node.node_id: node.metadata for node in nodes}
    ids_of: dict[str, list[str]] = {}
    for node_id, embedded in fields.corpus.items():
        bisect.insort(ids_of.setdefault(fields.bare_texts.get(node_id, embedded), []), node_id)
    speaker = _organisations(ids_of, fields.source_documents)
    chunks = {
        text: Chunk(text, _headings([metadata[node_id] for node_id in ids], text), speaker[text])
        for text, ids in ids_of.items()
    }
    corpus = CorpusTerms(chunks)
    found = {
        text: _first_usable(chunk, corpus, kinds, seed, num_questions_per_chunk + _SPARE)
        for text, chunk in _progress(chunks.items(), len(chunks), show_progress)
    }

    chunks_giving = Counter(key for pairs in found.values() for key in {_key(question) for _, question in pairs})
    holders = _holders({_key(question) for pairs in found.values() for _, question in pairs}, chunks)
    queries: dict[str, str] = {}
    relevant_docs: dict[str, list[str]] = {}
    per_kind: Counter[str] = Counter()
    n_without = n_repeated = 0
    for text, ids in ids_of.items():
        own = [
            (kind, question)
            for kind, question in found[text]
            if _belongs_to(text, _key(question), chunks_giving, holders)
        ]
        kinds_here = list(dict.fromkeys(kind for kind, _ in own)) or DEFAULT_KINDS if kinds is None else kinds
        chosen = _take_turns(own, kinds_here, num_questions_per_chunk, _random(seed, "turns", text))
        n_without += not chosen
        n_repeated += bool(found[text]) and not own
        for kind, question in chosen:
            per_kind[kind] += 1
            query_id = _digest(ids[0], kind, question)
            queries[query_id] = question
            relevant_docs[query_id] = ids
    if 2 * n_repeated > len(chunks):
        logger.warning(
            "%d of %d chunks gave no question because other chunks hold the same sentences; leave out chunks that "
            "repeat others, such as the parents of a hierarchical parser (`get_leaf_nodes(nodes)`).",
            n_repeated,
            len(chunks),
        )
    if not queries:
        tried = dict.fromkeys(
            kinds or [kind for chunk in chunks.values() for kind in (*DEFAULT_KINDS, *_fallbacks(chunk))]
        )
        why = (
            "other chunks hold the same sentences; leave out chunks that repeat others"
            if 2 * n_repeated > len(chunks)
            else "they hold no running text (tables, lists, very short chunks?); use larger chunks"
        )
        raise GenerationError(
            f"No question of the kind {' or '.join(tried)} could be made from {len(chunks)} chunks: {why}, or"
            " `generate_qa_embedding_pairs` with an LLM."
        )
    logger.info(
        "%d questions from %d chunks (%s); %d chunks gave none.",
        len(queries),
        len(chunks),
        ", ".join(f"{kind} {n}" for kind, n in sorted(per_kind.items())),
        n_without,
    )
    return EmbeddingQAFinetuneDataset(
        queries=queries, relevant_docs=relevant_docs, provenance=Provenance(made_by=BY_TEXT), **fields._asdict()
    )


def _holders(keys: set[str], chunks: Iterable[str]) -> dict[str, set[str]]:
    """Which chunks hold a question's words in a row: another one than its own would be labelled as not relevant."""
    starts: dict[tuple[str, ...], list[str]] = {}
    inner = {key: _inner(key) for key in keys}
    for key, held in inner.items():
        starts.setdefault(tuple(held[:_SHINGLE]), []).append(key)
    holders: dict[str, set[str]] = {}
    for text in chunks:
        tokens = _key(text).split()
        for n in range(len(tokens) - _SHINGLE + 1):
            for key in starts.get(tuple(tokens[n : n + _SHINGLE]), ()):
                if tokens[n : n + len(inner[key])] == inner[key]:
                    holders.setdefault(key, set()).add(text)
    return holders


def _inner(key: str) -> list[str]:
    """A question's words without the first and the last: where its chunk begins or ends, it may hold half a number."""
    tokens = key.split()
    return tokens[1:-1] if len(tokens) >= _SHINGLE + 2 else tokens


def _belongs_to(text: str, key: str, chunks_giving: Counter[str], holders: dict[str, set[str]]) -> bool:
    return chunks_giving[key] == 1 and holders.get(key, set()) <= {text}


def _organisations(ids_of: Mapping[str, Sequence[str]], source_documents: Mapping[str, str]) -> dict[str, str]:
    """Text of a chunk -> who "we" is in it; empty where documents that hold the text do not agree."""
    documents_of = {text: {source_documents.get(node_id, node_id) for node_id in ids} for text, ids in ids_of.items()}
    texts: dict[str, list[str]] = {}
    for text, documents in documents_of.items():
        for document in documents:
            texts.setdefault(document, []).append(text)
    found = {document: organisation_of(parts) for document, parts in texts.items()}
    agreed = {text: {found[document] for document in documents} for text, documents in documents_of.items()}
    return {text: names.pop() if len(names) == 1 else "" for text, names in agreed.items()}


def _headings(metadata: Sequence[Mapping[str, Any]], text: str) -> tuple[str, ...]:
    """The headings of a text in all places where it stands: a title of one place would ask for the others too."""
    first, *others = [headings_of(held, text) for held in metadata]
    return tuple(heading for heading in first if all(heading in other for other in others))


def _first_usable(
    chunk: Chunk, corpus: CorpusTerms, kinds: Sequence[str] | None, seed: int, limit: int
) -> list[tuple[str, str]]:
    """The questions of the kinds; of the fallback where no template fits any sentence."""
    found = _usable(chunk, corpus, kinds or DEFAULT_KINDS, seed, limit)
    for fallback in _fallbacks(chunk) if kinds is None else ():
        found = found or _usable(chunk, corpus, [fallback], seed, limit)
    return found


def _fallbacks(chunk: Chunk) -> tuple[str, ...]:
    return _FALLBACK_OF.get(chunk.language, _FALLBACK_KINDS)


def _usable(chunk: Chunk, corpus: CorpusTerms, kinds: Sequence[str], seed: int, limit: int) -> list[tuple[str, str]]:
    """Up to `limit` usable questions of each kind, each question once."""
    seen: set[str] = set()
    found: list[tuple[str, str]] = []
    for kind in kinds:
        n = 0
        for question in KINDS[kind](chunk, corpus, _random(seed, kind, chunk.text)):
            question = re.sub(r"\s+", " ", question).strip()
            if len(question) > LONGEST_SENTENCE:
                continue  # a title or a crop with what is no word, such as a file written in letters
            key = _key(question)
            if n < limit and key not in seen and _says_enough(question):
                seen.add(key)
                found.append((kind, question))
                n += 1
    return found


def _says_enough(question: str) -> bool:
    """At least two terms, or one long one; four characters where words are not separated by spaces."""
    if is_unspaced(question):
        return len(words(question)) >= 4
    found = set(terms(question))
    return len(found) >= 2 or any(len(term) >= 8 for term in found)


def _take_turns(
    found: Sequence[tuple[str, str]], kinds: Sequence[str], limit: int, rng: random.Random
) -> list[tuple[str, str]]:
    """Take one question of each kind in turn until there are `limit`; which kind begins differs by chunk."""
    queues = {kind: [pair for pair in found if pair[0] == kind] for kind in kinds}
    first = rng.randrange(len(kinds))
    order = [*kinds[first:], *kinds[:first]]
    chosen: list[tuple[str, str]] = []
    while len(chosen) < limit and any(queues.values()):
        for kind in order:
            if queues[kind] and len(chosen) < limit:
                chosen.append(queues[kind].pop(0))
    return chosen


def _key(text: str) -> str:
    """What makes two questions the same: their words, whatever the case and punctuation."""
    return " ".join(words(text.lower()))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:32]


def _random(seed: int, purpose: str, text: str) -> random.Random:
    """A generator of its own for each chunk and kind, so that neither order nor other kinds change its choices."""
    return random.Random(_digest(str(seed), purpose, text))


def _progress(items: Iterable[tuple[str, Chunk]], total: int, show: bool) -> Iterator[tuple[str, Chunk]]:
    if not show:
        yield from items
        return
    from tqdm.auto import tqdm

    yield from tqdm(items, total=total, desc="Making questions", unit="chunk")
