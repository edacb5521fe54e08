"""From nodes to a data set of extractive questions: which chunks, which kinds, no duplicate, same result each time."""

from __future__ import annotations

import hashlib
import logging
import random
import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from llama_index.core.schema import MetadataMode, TextNode

from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError, GenerationError
from llama_index_embft.generation.extractive.kinds import KINDS
from llama_index_embft.generation.extractive.text import Chunk, CorpusTerms, is_unspaced, terms, words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

logger = logging.getLogger(__name__)

DEFAULT_KINDS: Final = ("title", "pattern", "asked", "keywords")
_HEADING_KEYS: Final = ("title", "document_title", "section_title", "section", "heading", "header", "header_path")
_SOURCE_KEYS: Final = ("file_path", "file_name", "source", "url")


def generate_extractive_pairs(
    nodes: Sequence[TextNode],
    *,
    kinds: Sequence[str] = DEFAULT_KINDS,
    num_questions_per_chunk: int = 2,
    seed: int = 0,
    metadata_mode: MetadataMode = MetadataMode.EMBED,
    max_chars: int | None = None,
    show_progress: bool = False,
) -> EmbeddingQAFinetuneDataset:
    """Make questions from the chunks themselves, without an LLM, a key or a download.

    Such questions are a poor man's labels: they share words with their chunk, as a user's question often does not.
    What each kind gained or cost against human questions is in `docs/explanation/extractive.md`; always compare the
    trained model with the base on real questions before you use it.

    A question that two different chunks would give is given to neither; chunks with one and the same text share
    theirs. Needs the candidates of all chunks in memory, about 2 kB a chunk and kind.

    Args:
        nodes: The chunks, as they will be indexed.
        kinds: Names from `KINDS`, used in turn. The default holds those that helped where they were measured.
        num_questions_per_chunk: Most questions a chunk, over all kinds; a chunk with little prose gives fewer.
        seed: The same nodes and seed give the same questions, in whatever order the nodes come.
        metadata_mode: What the corpus holds. The default is what a `VectorStoreIndex` embeds; the questions are made
            from the text without metadata, and from titles and headings in the metadata.
        max_chars: Make questions only from a chunk's first `max_chars` characters. A model that reads 256 tokens
            cannot learn from what stands behind them (about 1,000 characters of English). The default None uses all.
        show_progress: Show a progress bar.

    Returns:
        The data set. Chunks without a question stay in its corpus, as they do in the index; empty ones do not.

    Raises:
        ConfigError: An unknown kind, no kind, a number of questions or characters below 1, or a duplicate node id.
        GenerationError: There is no text, or no question could be made from any of it.
    """
    _check(nodes, kinds, num_questions_per_chunk, max_chars)
    nodes_with_text: dict[str, list[TextNode]] = {}
    for node in nodes:
        if node.text.strip():
            nodes_with_text.setdefault(node.text, []).append(node)
    if not nodes_with_text:
        raise GenerationError(
            f"None of the {len(nodes)} nodes holds any text; pass nodes made from readable documents."
        )

    chunks = {text: Chunk(text[:max_chars], headings_of(same[0])) for text, same in nodes_with_text.items()}
    corpus = CorpusTerms(text for text in chunks)
    candidates = {
        text: _candidates(chunk, corpus, kinds, seed, num_questions_per_chunk + 3)
        for text, chunk in _progress(chunks.items(), len(chunks), show_progress)
    }
    chunks_giving = Counter(key for found in candidates.values() for key in {_key(q) for _, q in found})
    whole_chunks = {_key(text) for text in chunks}

    queries: dict[str, str] = {}
    relevant_docs: dict[str, list[str]] = {}
    made_of: Counter[str] = Counter()
    n_without = 0
    for text, same in nodes_with_text.items():
        own = [(kind, q) for kind, q in candidates[text] if chunks_giving[_key(q)] == 1 and _key(q) not in whole_chunks]
        chosen = _take_turns(own, kinds, num_questions_per_chunk, _random(seed, "turns", text))
        n_without += not chosen
        for kind, question in chosen:
            made_of[kind] += 1
            query_id = _digest(same[0].node_id, kind, question)
            queries[query_id] = question
            relevant_docs[query_id] = [node.node_id for node in same]
    if not queries:
        raise GenerationError(
            f"No question could be made from {len(chunks)} chunks with the kinds {', '.join(kinds)}: they hold no"
            " running text (tables, lists, very short chunks?); use larger chunks, or"
            " `generate_qa_embedding_pairs` with an LLM."
        )
    logger.info(
        "%d questions from %d chunks (%s); %d chunks gave none, %d nodes were empty.",
        len(queries),
        len(chunks),
        ", ".join(f"{kind} {made_of[kind]}" for kind in kinds),
        n_without,
        sum(1 for node in nodes if not node.text.strip()),
    )
    kept = [node for node in nodes if node.text.strip()]
    return EmbeddingQAFinetuneDataset(
        queries=queries,
        corpus={node.node_id: node.get_content(metadata_mode) for node in kept},
        relevant_docs=relevant_docs,
        bare_texts={node.node_id: node.text for node in kept},
        source_documents={node.node_id: source for node in kept if (source := source_of(node))},
    )


def headings_of(node: TextNode) -> tuple[str, ...]:
    """Titles and headings of a node: its metadata's, the nearest first, then Markdown and heading-like lines."""
    found = []
    for key, value in node.metadata.items():
        if isinstance(value, str) and (key.lower() in _HEADING_KEYS or re.fullmatch(r"header[ _]?\d", key.lower())):
            found += value.strip("/").split("/")[::-1] if key == "header_path" else [value]
    lines = node.text.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if match := re.match(r"\s{0,3}#{1,6}\s+(.+?)\s*#*$", line):
            found.append(match[1])
        elif _looks_like_heading(line) and len(following) > len(line):
            found.append(
                re.sub(r"^\s*(?:\d+(?:\.\d+)*\.?|[IVX]+\.|[(（]?[一二三四五六七八九十]+[)）、.])\s*", "", line).strip()
            )
    unique = {re.sub(r"\s+", " ", heading).strip(): None for heading in found}
    return tuple(heading for heading in unique if heading)


def source_of(node: TextNode) -> str | None:
    """The source document of a node: its file where the metadata name one (a PDF reader makes a document a page)."""
    for key in _SOURCE_KEYS:
        if value := node.metadata.get(key):
            return str(value)
    return node.ref_doc_id


def _looks_like_heading(line: str) -> bool:
    """A short line in title case or with a section number, without a full stop."""
    line = line.strip()
    tokens = line.split()
    if not 1 < len(tokens) <= 10 or line[-1] in ".,;:!?。，；：" or not any(c.isalpha() for c in line):
        return False
    if re.match(r"\d+(?:\.\d+)*\.?\s+[A-Z]", line):
        return True
    long_words = [t for t in tokens if len(t) > 3]
    return (
        bool(long_words)
        and line[0].isupper()
        and all(t[0].isupper() for t in long_words)
        and not re.search(r"\d", line)
    )


def _check(nodes: Sequence[TextNode], kinds: Sequence[str], per_chunk: int, max_chars: int | None) -> None:
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds or isinstance(kinds, str):
        raise ConfigError(f"`kinds` is {kinds!r}; give a list of one or more of: {', '.join(KINDS)}.")
    if per_chunk < 1:
        raise ConfigError(f"`num_questions_per_chunk` is {per_chunk}; it must be at least 1.")
    if max_chars is not None and max_chars < 1:
        raise ConfigError(f"`max_chars` is {max_chars}; it must be at least 1, or None for the whole chunk.")
    twice = [node_id for node_id, n in Counter(node.node_id for node in nodes).items() if n > 1]
    if twice:
        raise ConfigError(f"{len(twice)} node ids occur twice, {twice[0]!r} the first; give every node its own id.")


def _candidates(
    chunk: Chunk, corpus: CorpusTerms, kinds: Sequence[str], seed: int, limit: int
) -> list[tuple[str, str]]:
    """Up to `limit` usable questions of each kind, each question once."""
    seen: set[str] = set()
    found = []
    for kind in kinds:
        n = 0
        for question in KINDS[kind](chunk, corpus, _random(seed, kind, chunk.text)):
            question = re.sub(r"\s+", " ", question).strip()
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
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _random(seed: int, purpose: str, text: str) -> random.Random:
    """A generator of its own for each chunk and kind, so that neither order nor other kinds change its choices."""
    return random.Random(_digest(str(seed), purpose, text))


def _progress(items: Iterable[tuple[str, Chunk]], total: int, show: bool) -> Iterator[tuple[str, Chunk]]:
    if not show:
        yield from items
        return
    from tqdm.auto import tqdm

    yield from tqdm(items, total=total, desc="Making questions", unit="chunk")
