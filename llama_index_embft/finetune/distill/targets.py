"""The texts of a distillation, and the teacher's vectors of them: what there is to learn."""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft.embeddings.encoding.encoder import as_encoder
from llama_index_embft.embeddings.fingerprint import hash_parts
from llama_index_embft.errors import ConfigError, DatasetError
from llama_index_embft.finetune.vectors import usable_vectors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Literal

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

    from llama_index_embft.embeddings.encoding.cache import EmbeddingCache
    from llama_index_embft.embeddings.identity import ModelIdentity
    from llama_index_embft.embeddings.sentence_transformer import TextKind
    from llama_index_embft.finetune.distill.settings import DistillationSettings

logger = logging.getLogger(__name__)

_SURROGATE: Final = re.compile("[\ud800-\udfff]")  # a half of a pair: no tokenizer takes it
_FEWEST: Final = 10  # below it there is nothing to hold out


@dataclass(frozen=True)
class DistillationTexts:
    """Distinct texts that are not empty, and the vectors given for them.

    Attributes:
        texts: ``document`` and, where there are any, ``query`` -> texts.
        given: The same -> the teacher's vectors, shape ``(n, dim)``, where they came with the texts.
        dropped: Empty texts that were left out.
    """

    texts: dict[TextKind, list[str]]
    given: dict[TextKind, NDArray[np.float32]]
    dropped: int

    @classmethod
    def of(cls, texts: Mapping[TextKind, Sequence[str]], given: Mapping[TextKind, Any]) -> DistillationTexts:
        """Take the texts in, each once.

        Args:
            texts: By their kind; an empty list of queries is none.
            given: By the same kinds: vectors that are there already, a row a text, repeats and empty texts included.

        Raises:
            DatasetError: There are fewer than 10 documents, or queries; or a text is no valid Unicode.
            ConfigError: Vectors are not as many as the texts, or of several dimensions.
            ModelError: A vector is zero, or holds NaN or infinity.
        """
        kept: dict[TextKind, list[str]] = {}
        vectors: dict[TextKind, NDArray[np.float32]] = {}
        dropped = 0
        for kind, some in texts.items():
            first: dict[str, int] = {}
            for row, text in enumerate(some):
                if _SURROGATE.search(text):
                    name = "texts" if kind == "document" else "queries"
                    raise DatasetError(
                        f"`{name}`[{row}] contains an unpaired surrogate, which is not valid Unicode; correct it."
                    )
                first.setdefault(text, row)
            order = [row for text, row in first.items() if text.strip()]
            dropped += sum(not text.strip() for text in some)
            if kind == "document" or some:
                _check_enough(kind, len(order))
                kept[kind] = [some[row] for row in order]
            if kind in given:
                vectors[kind] = usable_vectors(_as_matrix(given[kind], kind, len(some))[order], "teacher")
        dims = sorted({vector.shape[1] for vector in vectors.values()})
        if len(dims) > 1:
            raise ConfigError(
                f"The documents' vectors and the queries' have {dims[0]} and {dims[1]} dimensions; give those of one "
                "teacher."
            )
        if dropped:
            logger.warning("%d empty texts are left out.", dropped)
        return cls(kept, vectors, dropped)

    @property
    def asked(self) -> TextKind:
        """The kind of text that is held out: queries, or documents where there are none."""
        return "query" if "query" in self.texts else "document"


@dataclass(frozen=True)
class Targets:
    """What there is to learn.

    Attributes:
        texts: Kind -> texts.
        vectors: Kind -> the teacher's vectors of length 1, shape ``(n, dim)``.
        asked: The kind that is held out.
        held_out: Rows of it, ascending.
        teacher_texts: Texts that the teacher was asked for just now.
    """

    texts: dict[TextKind, list[str]]
    vectors: dict[TextKind, NDArray[np.float32]]
    asked: TextKind
    held_out: NDArray[np.int64]
    teacher_texts: int

    @property
    def dim(self) -> int:
        """Dimension of the teacher's vectors."""
        return int(self.vectors["document"].shape[1])

    def training(self) -> Iterator[tuple[TextKind, NDArray[np.int64]]]:
        """The rows of each kind that are learned from."""
        for kind, some in self.texts.items():
            rows = np.arange(len(some))
            yield kind, np.setdiff1d(rows, self.held_out) if kind == self.asked else rows

    def digest(self, *, with_vectors: bool) -> str:
        """Hash of the texts in their order; of the vectors too where nothing else says whose they are."""
        parts = [text for kind in sorted(self.texts) for text in (kind, *self.texts[kind])]
        if with_vectors:
            parts += [hashlib.blake2b(self.vectors[kind].tobytes()).hexdigest() for kind in sorted(self.vectors)]
        return hash_parts(*parts)


def ask_teacher(
    teacher: BaseEmbedding | None,
    data: DistillationTexts,
    settings: DistillationSettings,
    *,
    cache: EmbeddingCache | Literal["default"] | None,
    show_progress: bool,
) -> Targets:
    """Vectors of all texts: those that were given, else the teacher's, each text once and from the cache where known.

    Args:
        teacher: The model; None: all vectors were given.
        data: The texts.
        settings: Share and number of what is held out.
        cache: Where vectors are kept: a run that broke off goes on where it was.
        show_progress: Show a bar.

    Raises:
        ModelError: The teacher failed for good, or gave vectors of no use.
    """
    vectors, new = dict(data.given), 0
    if teacher is not None:
        encoder = as_encoder(teacher, cache=cache, show_progress=show_progress)
        for kind, texts in data.texts.items():
            found = encoder.encode_queries(texts) if kind == "query" else encoder.encode_documents(texts)
            vectors[kind] = usable_vectors(found, f"teacher {encoder.name}")
        new = encoder.embedded_texts
    n = len(data.texts[data.asked])
    count = min(max(1, round(settings.val_share * n)), settings.max_val_texts, n - 1)
    held_out = np.sort(np.random.default_rng(settings.seed).permutation(n)[:count])
    return Targets(data.texts, vectors, data.asked, held_out, new)


def check_sides(data: DistillationTexts, document: ModelIdentity | None, query: ModelIdentity | None) -> None:
    """Refuse documents alone where the teacher embeds queries in another way: nothing would teach how.

    Args:
        data: The texts.
        document: Who makes the teacher's document vectors; None where nothing tells.
        query: Likewise for queries.

    Raises:
        ConfigError: It does, and there are no queries.
    """
    if "query" not in data.texts and query is not None and document is not None and query != document:
        raise ConfigError(
            f"`queries` is empty, and {document.name} embeds queries in another way than documents, so the "
            "student would never see how; give queries, or a data set that has some."
        )


def _check_enough(kind: TextKind, n: int) -> None:
    if n < _FEWEST:
        what, more = ("documents", "") if kind == "document" else ("queries", ", or none at all")
        raise DatasetError(
            f"There are {n} distinct {what} with any text; it must be at least {_FEWEST}, of which some are held out: "
            f"give more{more}."
        )


def _as_matrix(vectors: Any, kind: TextKind, n: int) -> NDArray[np.float32]:
    name = "teacher" if kind == "document" else "query_vectors"
    try:
        found = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as err:
        raise ConfigError(f"`{name}` holds something else than numbers; give an array of shape (n, dim).") from err
    if found.ndim != 2 or len(found) != n or not found.shape[1]:
        raise ConfigError(f"`{name}` has shape {found.shape} for {n} texts; give a vector for each, in their order.")
    return found
