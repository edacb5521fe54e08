"""What a search for the best retriever may be told beyond the usual."""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003  # the annotations are read
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_index_embft._core.checks import check_number

if TYPE_CHECKING:
    from llama_index_embft.calls import CallSettings
    from llama_index_embft.dataset.documents import ReadingSettings
    from llama_index_embft.generation import GenerationEstimate


@dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """Settings of `tune` that most leave alone.

    Attributes:
        chunk_size: Tokens of a chunk, metadata included, where documents are cut here; counted by the model's own
            tokenizer, and no more than the model reads.
        chunk_overlap: Tokens that neighbouring chunks share.
        reading: How files are read, and where reading stops; None: `ReadingSettings()`.
        questions_per_chunk: Questions made from each chunk, at most, by the LLM or from the text.
        calls: How the LLM is called; None: answers are kept in the cache folder, so that none is paid twice.
        confirm: Called with what the LLM's questions are estimated to cost before the first is asked; it stops the
            search by raising. None: nobody is asked.
        trust_remote_code: Run code that comes with the model. Only for models you have read.
        identity: For an embedding model of a class that is not known, so that its result can be saved: a name that you
            give the model and change whenever its vectors change, see `identify`.

    Raises:
        ConfigError: A value is out of range.
    """

    chunk_size: int = 256
    chunk_overlap: int = 32
    reading: ReadingSettings | None = None
    questions_per_chunk: int = 1
    calls: CallSettings | None = None
    confirm: Callable[[GenerationEstimate], None] | None = None
    trust_remote_code: bool = False
    identity: str | None = None

    def __post_init__(self) -> None:
        check_number("chunk_size", self.chunk_size, at_least=1, whole=True)
        check_number("chunk_overlap", self.chunk_overlap, at_least=0, below=self.chunk_size, whole=True)
        check_number("questions_per_chunk", self.questions_per_chunk, at_least=1, whole=True)

    def calls_or_default(self) -> CallSettings:
        """How the LLM is called."""
        from llama_index_embft._core.environment import default_cache_dir
        from llama_index_embft.calls import CallSettings

        # An answer belongs to the passage, the prompt and the model, not to the folder of a run: another folder, or a
        # run after one that failed, pays only for what is new.
        return self.calls or CallSettings(journal_path=default_cache_dir() / "questions.journal.sqlite")
