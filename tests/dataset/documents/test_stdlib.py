"""The standard-library data set: what becomes a pair, and that it is the same each time."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from llama_index_embft.dataset import build_stdlib_dataset, general_guard, split_dataset
from llama_index_embft.errors import ConfigError, DatasetError


def library(root: Path, **modules: str) -> Path:
    for name, source in modules.items():
        path = root.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
    return root


SAMPLE = '''
    """Module docstring is not a function."""

    import os

    def plain(path, mode):
        """Open the file at the given path.  And then some.

        More about it.
        """
        # keep this comment
        return os.open(path, mode)

    class Queue:
        """Class docstring."""

        @property
        def size(self):
            """Return the number of waiting items"""
            return self._n

        async def put(self, item):
            """Put an item at the end of the queue, e.g. a job."""
            def inner():
                """Inner functions belong to their parents."""
                return item
            await self._put(inner)

        class Full:
            def why(self):
                """Explain why the queue is full."""
                return "full"

    if os.name == "nt":
        def fsync(fd):
            """Flush the file to the disk on Windows."""
            return fd
    else:
        def fsync(fd):
            """Flush the file to the disk elsewhere."""
            return -fd

    def abstract(self):
        """Do something that subclasses have to define."""

    def passed(self):
        """Do something that passes over it all."""
        pass

    def one(): """Say it all on one line only."""; return 1

    def short():
        """Close it."""
        return 0

    def doctest():
        """>>> some code and not a sentence at all"""
        return 0
'''


def test_what_becomes_a_pair(tmp_path: Path) -> None:
    dataset = build_stdlib_dataset(library(tmp_path, pkg__queue=SAMPLE))
    assert dataset.queries == {
        "pkg.queue:plain": "Open the file at the given path.",
        "pkg.queue:Queue.size": "Return the number of waiting items",
        "pkg.queue:Queue.put": "Put an item at the end of the queue, e.g. a job.",
        "pkg.queue:Queue.Full.why": "Explain why the queue is full.",
        "pkg.queue:fsync": "Flush the file to the disk on Windows.",
    }
    assert dataset.bare_text("pkg.queue:plain") == (
        "def plain(path, mode):\n    # keep this comment\n    return os.open(path, mode)"
    )
    assert dataset.corpus["pkg.queue:plain"] == f"module: pkg.queue\n\n{dataset.bare_text('pkg.queue:plain')}"
    assert dataset.bare_text("pkg.queue:Queue.size") == "@property\ndef size(self):\n    return self._n"
    assert dataset.document_of("pkg.queue:Queue.put") == "pkg.queue"
    assert all(docs == [query_id] for query_id, docs in dataset.relevant_docs.items())


def test_no_document_gives_its_query_away(tmp_path: Path) -> None:
    dataset = build_stdlib_dataset(library(tmp_path, pkg__queue=SAMPLE))
    assert not any(dataset.queries[id_] in dataset.corpus[id_] for id_ in dataset.queries)


def test_a_sentence_that_describes_two_functions_is_left_out(tmp_path: Path) -> None:
    function = 'def {}():\n    """{}"""\n    return {}\n'
    library(
        tmp_path,
        a=function.format("f", "Return the same old thing again.", 1) + function.format("g", "Count all the sheep.", 2),
        b=function.format("h", "Return the same old thing again", 3),
    )
    assert list(build_stdlib_dataset(tmp_path).queries) == ["a:g"]


def test_tests_and_broken_files_are_skipped(tmp_path: Path) -> None:
    good = 'def f():\n    """Return the answer to everything."""\n    return 42\n'
    library(tmp_path, test__support=good.replace("f()", "g()"), broken="def (:", lib2to3__x=good)
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text(good)
    (tmp_path / "latin.py").write_bytes(b"# \xe9\n" + good.encode())
    assert list(build_stdlib_dataset(tmp_path).queries) == ["pkg:f"]


def test_long_sources_are_cut(tmp_path: Path) -> None:
    body = "\n".join(f"    x{n} = {n}" for n in range(999))
    library(tmp_path, m=f'def f():\n    """Assign very many local variables."""\n{body}\n')
    assert len(build_stdlib_dataset(tmp_path, max_chars=200).bare_text("m:f")) <= 200


def test_a_folder_without_sources_is_explained(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"No documented Python functions under .*; this interpreter may come without"
    ):
        build_stdlib_dataset(tmp_path)


@pytest.mark.e2e  # reads the whole library, for ten seconds
def test_the_running_interpreter_has_thousands_and_nothing_is_imported() -> None:
    before = set(sys.modules)
    dataset = build_stdlib_dataset()
    assert not [
        name for name in set(sys.modules) - before if name.partition(".")[0] in ("tkinter", "turtle", "antigravity")
    ]
    stats = dataset.stats()
    assert 3000 < stats.queries < 7000
    assert stats.documents > 150
    again = build_stdlib_dataset(show_progress=False)
    assert dataset == again
    assert list(dataset.queries) == list(again.queries)
    split = split_dataset(dataset, seed=0)
    assert [round(len(part.queries) / stats.queries, 2) for part in split] == pytest.approx([0.8, 0.1, 0.1], abs=0.02)
    modules = [{part.document_of(id_) for id_ in part.queries} for part in split]
    assert sum(map(len, modules)) == len(set().union(*modules))


@pytest.mark.e2e  # reads the whole library, for ten seconds
def test_the_general_guard_is_small_prose_of_many_modules_and_each_time_the_same() -> None:
    guard = general_guard()
    assert (len(guard.queries), len(guard.corpus)) == (300, 600)
    assert guard == general_guard()
    assert len(set(guard.source_documents.values())) > 100
    assert max(map(len, guard.corpus.values())) <= 600
    # A passage that holds its question asks for nothing but a copy.
    assert not [q for q, text in guard.queries.items() if text in guard.corpus[q]]
    assert len(set(guard.queries.values())) == 300
    assert len(set(guard.corpus.values())) == 600
    assert list(general_guard(20).queries.items()) == list(guard.queries.items())[:20]
    with pytest.raises(ConfigError, match="`n_questions` is 0; it must be at least 1"):
        general_guard(0)
