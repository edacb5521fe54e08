"""What kind of queries an LLM writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from llama_index_embft._core.checks import check_choice, check_number
from llama_index_embft.errors import ConfigError
from llama_index_embft.generation.languages import LANGUAGES

if TYPE_CHECKING:
    from llama_index.core.schema import MetadataMode

QueryKind: TypeAlias = Literal[
    "question", "keyword", "title", "paraphrase", "similar_question", "claim", "layperson", "comparison"
]
"""``question``, ``keyword``, ``title``, ``claim`` (a statement that somebody wants to check) and ``layperson`` (a
question without the terms of the field) search for the passage (asymmetric); ``comparison`` searches for two passages
of one document; ``paraphrase`` and ``similar_question`` say the same as the passage in other words (symmetric, for
short passages such as FAQ entries)."""

PromptLanguage: TypeAlias = Literal["auto", "en", "zh"]

QUERY_KINDS: Final[tuple[QueryKind, ...]] = get_args(QueryKind)
QUESTIONS_ONLY: Final[Mapping[QueryKind, float]] = {"question": 1.0}


@dataclass(frozen=True)
class QuestionSettings:
    """What the LLM writes.

    Attributes:
        kinds: Kind of query -> share, such as ``{"question": 0.6, "keyword": 0.3, "title": 0.1}``; over many passages
            the kinds come out in these proportions. None for questions only. For symmetric tasks: ``"paraphrase"`` and
            ``"similar_question"``.
        personas: Who asks, such as ``["a first-year analyst", "a driver"]``; one is drawn for each chunk. Empty for
            nobody.
        example_queries: Real queries of your users, whose style and length the LLM should match; 6 are drawn for each
            chunk.
        with_answers: Ask for answers too; they become ``reference_answers``.
        language: Language of the prompt. ``"auto"`` takes the Chinese one for Chinese chunks, else the English one,
            which asks for queries in the chunk's language.
        query_language: Code of the language that users ask in, such as ``"de"``, where it is not that of the chunks.
            None asks in the language of each chunk.
        few_shot: The prompt is a text with solved examples that a base model continues, instead of a request; for LLMs
            without chat, such as ``OpenAILike(is_chat_model=False, max_tokens=256)``. ``example_queries`` are shown.
        metadata_mode: Text of the corpus; the default is ``MetadataMode.EMBED``, which is what an index embeds. The LLM
            reads the text without metadata.

    Raises:
        ConfigError: A value is not allowed.
    """

    kinds: Mapping[QueryKind, float] | None = None
    personas: Sequence[str] = ()
    example_queries: Sequence[str] = ()
    with_answers: bool = False
    language: PromptLanguage = "auto"
    query_language: str | None = None
    few_shot: bool = False
    metadata_mode: MetadataMode | str = "embed"

    def __post_init__(self) -> None:
        check_choice("language", self.language, get_args(PromptLanguage))
        for name in ("personas", "example_queries"):
            texts = getattr(self, name)
            if isinstance(texts, (str, type(None))) or any(
                not isinstance(text, str) or not text.strip() for text in texts
            ):
                raise ConfigError(f"`{name}` is {texts!r}; it must be a list of texts that are not empty.")
        if not isinstance(self.shares, Mapping):
            raise ConfigError(f"`kinds` is {self.kinds!r}; give each kind its share, such as {{'keyword': 0.5}}.")
        for kind, share in self.shares.items():
            check_choice("kinds", kind, QUERY_KINDS)
            check_number(f"kinds[{kind!r}]", share, above=0, below=float("inf"))
        if not self.shares:
            raise ConfigError("`kinds` is {}; it must give at least one kind a share above 0.")
        if self.query_language is not None:
            check_choice("query_language", self.query_language, tuple(LANGUAGES))
        if self.few_shot and (self.personas or self.query_language or "comparison" in self.shares):
            raise ConfigError(
                "`few_shot` is True, and a model that only continues text takes no `personas`, no `query_language` and "
                "no comparisons; leave them out."
            )

    @property
    def shares(self) -> Mapping[QueryKind, float]:
        """Kind -> share, the default filled in."""
        return QUESTIONS_ONLY if self.kinds is None else self.kinds
