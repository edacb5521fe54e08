"""Documents to chunks as the rerankers of llama-index-finetuning cut them: by tokens, without overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index_embft._core.checks import check_number, first_line
from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.llms import LLM
    from llama_index.core.schema import BaseNode, Document


def cut_documents(documents: Sequence[Document], max_chunk_length: int) -> list[BaseNode]:
    """Cut documents into nodes of at most so many tokens of LlamaIndex's tokenizer, metadata included.

    Returns:
        The nodes with text, in the order of the documents; empty where no document has any.

    Raises:
        ConfigError: The length is below 1, or a document's metadata alone is longer.
    """
    from llama_index.core import get_tokenizer
    from llama_index.core.node_parser import TokenTextSplitter

    check_number("max_chunk_length", max_chunk_length, at_least=1)
    splitter = TokenTextSplitter(
        separator=" ",
        chunk_size=max_chunk_length,
        chunk_overlap=0,
        backup_separators=["\n"],
        tokenizer=get_tokenizer(),
    )
    try:
        nodes = splitter.get_nodes_from_documents(list(documents))
    except ValueError as err:  # about metadata that leaves no room for text
        raise ConfigError(f"`max_chunk_length` is {max_chunk_length}, and cutting failed: {first_line(err)}.") from err
    return [node for node in nodes if _text_of(node).strip()]


def given_llm(llm: LLM | None) -> LLM:
    """The LLM, or that of `llama_index.core.Settings`, if one was set there.

    Raises:
        ConfigError: There is none.
    """
    if llm is not None:
        return llm
    from llama_index.core import Settings

    # The property would make a client of OpenAI, whose calls cost money, where nobody asked for one.
    chosen: LLM | None = Settings._llm
    if chosen is None:
        raise ConfigError(
            "`llm` is None, and `Settings.llm` is not set; pass `llm=`, any LlamaIndex LLM, for example "
            'llm=OpenAI(model="gpt-4o-mini") of llama-index-llms-openai.'
        )
    return chosen


def given_embed_model(embed_model: Any) -> Any:
    """The embedding model, or that of `llama_index.core.Settings`, whose default is OpenAI's.

    Raises:
        ConfigError: There is none, and LlamaIndex's default cannot be had.
    """
    if embed_model is not None:
        return embed_model
    from llama_index.core import Settings

    try:
        return Settings.embed_model
    except (ImportError, ValueError) as err:  # no package of OpenAI's, no key
        raise ConfigError(
            f"`embed_model` is None, and LlamaIndex's own default cannot be had ({first_line(err)}); pass "
            "`embed_model=`, any LlamaIndex embedding, or set `Settings.embed_model`."
        ) from err


def _text_of(node: BaseNode) -> str:
    from llama_index.core.schema import MetadataMode

    return node.get_content(metadata_mode=MetadataMode.NONE)
