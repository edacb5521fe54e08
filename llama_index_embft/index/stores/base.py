"""What every store has to offer: ids, vectors, texts and the stamp of one index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from inspect import isgeneratorfunction
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, cast

import numpy as np

from llama_index_embft._core.checks import first_line
from llama_index_embft.errors import ConfigError, EmbftError, MissingExtraError
from llama_index_embft.index.stamp import StoreError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode
    from numpy.typing import NDArray

    from llama_index_embft.index.stamp import Stamp


Method = TypeVar("Method", bound=Callable[..., Any])
_PACKAGE: Final = "llama_index_embft."
# What damaged JSON or a damaged row can hold where an object of another kind should be.
_PLAIN: Final = (str, bytes, int, float, list, tuple, dict, set)


def guarded(method: Method) -> Method:
    """The boundary of a store: whatever reading or writing raises becomes one sentence that names the index.

    For the methods of a `VectorTable` that touch stored data, which may be damaged, or ask a server, which may be gone.

    A defect of this package is none of the store's: an exception raised by a line of its own that can only be a
    mistake there (an unknown name, a wrong attribute or call) goes through as it is.

    Raises:
        StoreError: For any other exception that is not one of this package's own.
    """

    @contextmanager
    def boundary(table: VectorTable) -> Iterator[None]:
        try:
            yield
        except EmbftError:
            raise
        except Exception as err:
            if _is_defect(err):
                raise
            reason = first_line(err)
            raise StoreError(
                f"{capital(table.label)} cannot be read or written ({reason}); if its files are damaged "
                "restore them or build the index again, and if it is on a server check that."
            ) from err

    @wraps(method)
    def call(self: VectorTable, *args: Any, **kwargs: Any) -> Any:
        with boundary(self):
            return method(self, *args, **kwargs)

    @wraps(method)
    def batches(self: VectorTable, *args: Any, **kwargs: Any) -> Iterator[Any]:
        found = method(self, *args, **kwargs)
        while True:
            with boundary(self):
                batch = next(found, None)
            if batch is None:
                return
            yield batch

    return cast("Method", batches if isgeneratorfunction(method) else call)


def _is_defect(err: Exception) -> bool:
    """Whether a line of this package is a mistake: no damaged data and no server brings such an exception about."""
    frames = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(err.__traceback__)]
    if not frames or not frames[-1].startswith(_PACKAGE):
        return False
    if isinstance(err, AttributeError):
        return err.obj is not None and not isinstance(err.obj, _PLAIN)
    if isinstance(err, TypeError):
        return "keyword argument" in str(err) or "positional argument" in str(err)
    return isinstance(err, NameError | NotImplementedError | AssertionError)


class VectorTable(ABC):
    """The vectors of one index by node id, whatever store holds them.

    Subclass it for a store that is not known here; every function of this package that takes an index takes one.

    Attributes:
        label: The index in words, for messages, and to know a journal's index again.
        volatile: Whether writes reach the disk only in `flush`: true for the stores that live in memory.
    """

    volatile: ClassVar[bool] = False
    label: str

    @classmethod
    def is_at(cls, where: str) -> bool:  # noqa: ARG003
        """Whether an address or a folder looks like one of this store; False where it has none."""
        return False

    @classmethod
    def open_at(cls, where: str, table: str | None, embed_model: BaseEmbedding) -> VectorStoreIndex:
        """Open the index at an address or in a folder for which `is_at` holds.

        Args:
            where: The address or folder.
            table: Which of several tables or collections; None where there is one.
            embed_model: For the index's own retrievers.

        Raises:
            ConfigError: There is no index, or several and ``table`` does not choose.
            StoreError: The store cannot be opened or does not answer.
            MissingExtraError: LlamaIndex's integration for the store is not installed.
        """
        raise NotImplementedError

    @abstractmethod
    def id_batches(self, size: int) -> Iterator[list[str]]:
        """All node ids, ``size`` at a time."""

    @abstractmethod
    def fetch(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Node id to vector of shape ``(dim,)``, for those ids that the store holds."""

    @abstractmethod
    def nodes(self, ids: Sequence[str]) -> dict[str, BaseNode]:
        """Node id to node, for those ids whose text is kept."""

    @abstractmethod
    def write(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Replace vectors, shape ``(len(ids), dim)``; text and metadata stay as they are."""

    @abstractmethod
    def read_stamp(self) -> Stamp | None:
        """The stamp; None where there is none."""

    @abstractmethod
    def write_stamp(self, stamp: Stamp) -> None:
        """Put the stamp where it survives a restart."""

    def version(self) -> Hashable:
        """A value that changes when nodes are added or deleted, as far as a glance can tell; at least their number."""
        return hash(frozenset(node_id for batch in self.id_batches(10_000) for node_id in batch))

    def flush(self) -> None:  # noqa: B027  # most stores have nothing to do
        """Bring what was written to the disk; nothing to do for a database."""

    def create(self, dim: int) -> None:  # noqa: B027  # most have a place for the stamp at any time
        """Make a place for the stamp before the first vector, where there is none; ``dim`` is that of the vectors."""

    def save_nodes(self) -> None:  # noqa: B027  # a database keeps them beside the vectors
        """Bring the texts of added and deleted nodes to the disk; `write_stamp` and `flush` bring the rest there."""

    @guarded
    def delete(self, index: VectorStoreIndex, ids: Sequence[str]) -> None:
        """Take nodes out of the store, by its index.

        Raises:
            StoreError: It cannot give nodes up.
        """
        try:
            index.delete_nodes(list(ids))
        except NotImplementedError as err:
            raise StoreError(
                f"{capital(self.label)} cannot delete the {len(ids)} nodes that have left the old index or changed "
                f"there (first: {ids[0]}), and a search would still find them; fill an empty index of another kind."
            ) from err

    def check_writable(self) -> None:  # noqa: B027  # most stores can
        """Make sure that vectors can be replaced.

        Raises:
            StoreError: They cannot; the message says what to do.
        """

    def prepare(self) -> None:  # noqa: B027  # most stores find an id at once
        """Get ready for an update, which looks up every id."""

    def as_stored(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors of shape ``(n, dim)`` as the store will give them back: scaled or rounded, where it does so."""
        return vectors

    def dim(self) -> int:
        """Dimension of the stored vectors.

        Raises:
            StoreError: The store is empty.
        """
        for batch in self.id_batches(1):
            found = self.fetch(batch)
            return len(found[batch[0]])
        raise StoreError(f"{capital(self.label)} is empty; add nodes to it first.")


def check_unique(ids: Sequence[str], label: str) -> None:
    """Make sure that an id stands for one row.

    Raises:
        StoreError: It stands for several.
    """
    if len(set(ids)) != len(ids):
        twice = next(i for i, count in Counter(ids).items() if count > 1)
        raise StoreError(f"{capital(label)} holds several rows with the id {twice!r}; delete the spare ones.")


def matrix(found: dict[str, NDArray[np.float32]], ids: Sequence[str]) -> NDArray[np.float32]:
    """Vectors in the order of ``ids``; shape ``(len(ids), dim)``.

    Raises:
        StoreError: They have different dimensions.
    """
    if len({found[i].shape for i in ids}) > 1:
        sizes = sorted({found[i].size for i in ids})
        raise StoreError(
            f"The index holds vectors of {sizes[0]} and of {sizes[-1]} dimensions; its files are damaged, or two "
            "models embedded it: build it again."
        )
    return np.stack([found[i] for i in ids]).astype(np.float32, copy=False)


def capital(text: str) -> str:
    """A label at the start of a sentence."""
    return text[:1].upper() + text[1:]


def only_name(names: list[str], table: str | None, place: str, what: str) -> str:
    """The table that is meant: the one that is named, or the only one.

    Args:
        names: Those that exist.
        table: The name that was given.
        place: The store in words, for messages.
        what: ``"table"`` or ``"collection"``.

    Raises:
        ConfigError: There is no such table, or several and none is named.
    """
    if table is not None:
        if table not in names:
            raise ConfigError(f"{place} has no {what} {table!r}; it has: {', '.join(names) or 'none'}.")
        return table
    if len(names) != 1:
        raise ConfigError(f"{place} has {len(names)} {what}s ({', '.join(names) or 'none'}); say which one: table=...")
    return names[0]


def integration(name: str, feature: str) -> Any:
    """LlamaIndex's package for a store.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return import_module(f"llama_index.vector_stores.{name}")
    except ModuleNotFoundError as err:
        package = f"llama-index-vector-stores-{name}"
        raise MissingExtraError(
            f"{feature} needs the package `{package}`; install it with: pip install {package}"
        ) from err
