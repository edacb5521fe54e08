"""``embft migrate``: old imports become ours, and every other byte stays."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
from pathlib import Path

import nbformat
import pytest
from sentence_transformers import CrossEncoder
from typer.testing import CliRunner

import llama_index_embft
from llama_index_embft import (
    CrossEncoderFinetuneEngine,
    EmbeddingAdapterFinetuneEngine,
    SentenceTransformersFinetuneEngine,
)
from llama_index_embft.cli.app import app
from llama_index_embft.errors import DocumentError, OutputError
from llama_index_embft.finetune import RerankerSettings
from llama_index_embft.migration import migrate_file
from llama_index_embft.migration.code import notes_on, rewrite

SEEDS = Path(os.environ.get("EMBFT_SEEDS", Path(__file__).resolve().parents[3] / "shared" / "seeds"))


def migrated(code: str, *, cell: bool = False) -> str:
    return rewrite(code, cell=cell).code


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # the tutorial of 2024
        (
            "from llama_index.finetuning import generate_qa_embedding_pairs\n"
            "from llama_index.core.evaluation import EmbeddingQAFinetuneDataset\n",
            "from llama_index_embft import generate_qa_embedding_pairs\n"
            "from llama_index_embft import EmbeddingQAFinetuneDataset\n",
        ),
        # parentheses, comments and a trailing comma stay
        (
            "from llama_index.finetuning import (  # noqa\n    generate_qa_embedding_pairs,\n"
            "    EmbeddingQAFinetuneDataset,\n)\n",
            "from llama_index_embft import (  # noqa\n    generate_qa_embedding_pairs,\n"
            "    EmbeddingQAFinetuneDataset,\n)\n",
        ),
        # one import, two homes
        (
            "if x:\n    from llama_index.core.evaluation import EmbeddingQAFinetuneDataset as D, RetrieverEvaluator\n",
            "if x:\n    from llama_index_embft import EmbeddingQAFinetuneDataset as D\n"
            "    from llama_index.core.evaluation import RetrieverEvaluator\n",
        ),
        # the release of one package
        (
            "from llama_index import ServiceContext, VectorStoreIndex; x = 1\n"
            "from llama_index.schema import TextNode\n",
            "from llama_index.core import ServiceContext, VectorStoreIndex; x = 1\n"
            "from llama_index.core.schema import TextNode\n",
        ),
        (
            "from llama_index.llms import OpenAI, MockLLM\n",
            "from llama_index.llms.openai import OpenAI\nfrom llama_index.core.llms import MockLLM\n",
        ),
        (
            "from llama_index.embeddings import OpenAIEmbedding",
            "from llama_index.embeddings.openai import OpenAIEmbedding",
        ),
        (
            "from llama_index.legacy.node_parser import SentenceSplitter\n",
            "from llama_index.core.node_parser import SentenceSplitter\n",
        ),
        (
            "from llama_index.evaluation import generate_question_context_pairs\n",
            "from llama_index_embft import generate_qa_embedding_pairs as generate_question_context_pairs\n",
        ),
        # the rerankers
        (
            "from llama_index.finetuning.cross_encoders.dataset_gen import (\n    generate_ce_fine_tuning_dataset,\n"
            "    generate_synthetic_queries_over_documents,\n)\n"
            "from llama_index.finetuning.cross_encoders import CrossEncoderFinetuneEngine\n",
            "from llama_index_embft import (\n    generate_ce_fine_tuning_dataset,\n"
            "    generate_synthetic_queries_over_documents,\n)\n"
            "from llama_index_embft import CrossEncoderFinetuneEngine\n",
        ),
        (
            "from llama_index.finetuning.cross_encoders.dataset_gen import generate_ce_fine_tuning_dataset, \\\n"
            "    CrossEncoderFinetuningDatasetSample as Sample, DEFAULT_QUERY_DOC_RELEVANCE_PROMPT\n",
            "from llama_index_embft import generate_ce_fine_tuning_dataset, "
            "CrossEncoderFinetuningDatasetSample as Sample\n"
            "from llama_index_embft.generation import DEFAULT_QUERY_DOC_RELEVANCE_PROMPT\n",
        ),
        (
            "from llama_index.finetuning import generate_cohere_reranker_finetuning_dataset, "
            "CohereRerankerFinetuneEngine",
            "from llama_index_embft import generate_cohere_reranker_finetuning_dataset\n"
            "from llama_index.finetuning import CohereRerankerFinetuneEngine",
        ),
        (
            "from llama_index.finetuning.rerankers.dataset_gen import CohereRerankerFinetuneDataset",
            "from llama_index_embft import CohereRerankerFinetuneDataset",
        ),
        ("import llama_index.finetuning.cross_encoders as ce\n", "import llama_index_embft as ce\n"),
        ("from llama_index.finetuning.cross_encoders.cross_encoder import CrossEncoderFinetuneEngine", None),
        ("from llama_index.finetuning.rerankers import CohereRerankerFinetuneDataset", None),
        ("from llama_index.legacy.finetuning.cross_encoders import CrossEncoderFinetuneEngine", None),
        ("import llama_index.finetuning as ft\r\nx = 1\r\n", "import llama_index_embft as ft\r\nx = 1\r\n"),
        ("from llama_index.finetuning.embeddings.common import EmbeddingQAFinetuneDataset", None),
        ("é = 1; from llama_index.finetuning import SentenceTransformersFinetuneEngine", None),
    ],
)
def test_imports(old: str, new: str | None) -> None:
    got = migrated(old)
    if new is None:
        assert "from llama_index_embft import" in got
        assert "llama_index." not in got
        assert got.startswith(old[: old.index("from")])
    else:
        assert got == new
    ast.parse(got)
    assert migrated(got) == got  # nothing is left to do


@pytest.mark.parametrize(
    "code",
    [
        's = """\nfrom llama_index.finetuning import EmbeddingQAFinetuneDataset\n"""\n',
        "# from llama_index.finetuning import EmbeddingQAFinetuneDataset\n",
        "from llama_index.core import VectorStoreIndex\nfrom llama_index.embeddings.openai import OpenAIEmbedding\n",
        "from llama_index.finetuning import OpenAIFinetuneEngine\n",
        "from .llama_index.finetuning import EmbeddingQAFinetuneDataset\n",
        "from llama_index_other.finetuning import EmbeddingQAFinetuneDataset\n",
        "\x0c\n",
        "",
    ],
)
def test_what_stays(code: str) -> None:
    assert migrated(code) == code


def test_magics_survive() -> None:
    cell = (
        "%pip install -q llama-index-finetuning==0.4.2 llama-index-llms-openai\n"
        "%pip install llama-index-finetuning-cross-encoders\n"
        "!wget 'https://x.y/z.pdf' \\\n    -O 'data/z.pdf'\n"
        "files = !ls\n"
        "from llama_index.finetuning import generate_qa_embedding_pairs\n"
        "generate_qa_embedding_pairs?\n"
        "await x\n"
    )
    got = migrated(cell, cell=True)
    assert got == cell.replace("llama-index-finetuning==0.4.2", "llama-index-embft").replace(
        "llama_index.finetuning", "llama_index_embft"
    ).replace("llama-index-finetuning-cross-encoders", "llama-index-embft")
    bash = "%%bash\nfrom llama_index.finetuning import generate_qa_embedding_pairs\n"
    assert migrated(bash, cell=True) == bash
    timed = "%%time\nfrom llama_index.finetuning import generate_qa_embedding_pairs\n"
    assert "llama_index_embft" in migrated(timed, cell=True)


def test_code_that_does_not_parse_is_changed_line_by_line() -> None:
    code = "def f(:\n  from llama_index.finetuning import (\n  EmbeddingQAFinetuneDataset)\nreturn (\n"
    result = rewrite(code)
    assert result.code == code.replace("llama_index.finetuning", "llama_index_embft")
    assert "does not parse" in str(result.notes[0])


@pytest.mark.parametrize(
    ("module", "name", "says"),
    [
        ("", "CohereRerankerFinetuneEngine", "Cohere deprecated fine-tuning on 15 September 2025; train a reranker"),
        (
            ".rerankers.cohere_reranker",
            "CohereRerankerFinetuneEngine",
            "CrossEncoderFinetuneEngine of llama_index_embft",
        ),
        ("", "OpenAIFinetuneEngine", "as the openai package does itself"),
        (".azure_openai", "AzureOpenAIFinetuneEngine", "LLMs on Azure"),
        (".mistralai", "MistralAIFinetuneEngine", "an API that Mistral has deprecated"),
        (".gradient.base", "GradientFinetuneEngine", "Gradient closed its service in 2024"),
        (".gradient", "GradientAIFinetuneEngine", "Gradient closed its service in 2024"),
        (".rerankers.dataset_gen", "generate_hard_negatives", "mine_hard_negatives of llama_index_embft"),
        (".callbacks", "OpenAIFineTuningHandler", "has no counterpart here; its import was left"),
    ],
)
def test_what_cannot_be_had_here_is_left_and_said(module: str, name: str, says: str) -> None:
    code = f"from llama_index.finetuning{module} import {name}\n"
    result = rewrite(code)
    assert result.code == code
    (note,) = result.notes
    assert note.text.startswith(f"llama_index.finetuning{module}.{name} has no counterpart here")
    assert says in note.text
    assert note.text.endswith("; its import was left as it is.")


def test_what_is_different_about_the_rerankers_data_is_said() -> None:
    code = "a = generate_ce_fine_tuning_dataset(d, q)\ngenerate_cohere_reranker_finetuning_dataset(x)\n"
    first, second = notes_on(code, "", set())
    assert "llm=None is Settings.llm" in str(first)
    assert "seed=0" in str(second)
    parameters = inspect.signature(llama_index_embft.generate_cohere_reranker_finetuning_dataset).parameters
    assert parameters["seed"].default == 0


# --- notebooks ----------------------------------------------------------------------------------------------------

CELLS = [
    "%pip install llama-index-finetuning\n",
    "from llama_index.finetuning import SentenceTransformersFinetuneEngine\n"
    "from llama_index import Document, ServiceContext\n"
    "from llama_index.llms import OpenAI, ChatMessage  # 中文\nengine = SentenceTransformersFinetuneEngine(train)",
    "results = await evaluator.aevaluate_dataset(dataset)",
]


def notebook(**options) -> str:
    cells = [nbformat.v4.new_markdown_cell("from llama_index.finetuning import x")]
    cells += [nbformat.v4.new_code_cell(code) for code in CELLS]
    cells[1].outputs = [nbformat.v4.new_output("stream", text="from llama_index.finetuning import X\n")]
    content = json.loads(nbformat.writes(nbformat.v4.new_notebook(cells=cells)))
    return json.dumps(content, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"indent": 1, "ensure_ascii": False},
        {"indent": 4},
        {"separators": (",", ":")},
        {"indent": "\t", "sort_keys": True},
    ],
)
@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_a_notebook_changes_in_its_code_alone(tmp_path, options: dict, single: bool, start: str) -> None:
    content = json.loads(notebook())
    if single:
        for cell in content["cells"]:
            cell["source"] = "".join(cell["source"])
    text = start + json.dumps(content, **options) + "\n\n"
    file = tmp_path / "old.ipynb"
    file.write_bytes(text.replace("\n", "\r\n").encode())
    result = migrate_file(file)
    result.write()
    got = file.read_bytes().decode().replace("\r\n", "\n")
    after = json.loads(got.lstrip("\ufeff"))
    expected = json.loads(json.dumps(content))
    new = [
        "%pip install llama-index-embft\n",
        "from llama_index_embft import SentenceTransformersFinetuneEngine\n"
        "from llama_index.core import Document, ServiceContext\n"
        "from llama_index.llms.openai import OpenAI\nfrom llama_index.core.llms import ChatMessage  # 中文\n"
        "engine = SentenceTransformersFinetuneEngine(train)",
        CELLS[2],
    ]
    for cell, code in zip(expected["cells"][1:], new, strict=True):
        cell["source"] = code if single else code.splitlines(keepends=True)
    assert after == expected
    assert got == start + json.dumps(expected, **options) + "\n\n"  # in the file's own style, to the byte
    assert migrate_file(file).changed is False
    said = " | ".join(map(str, result.notes))
    for word in (
        "cell 3, line 4: Other defaults",
        "cell 4, line 1: aevaluate_dataset is gone",
        "ServiceContext is gone",
    ):
        assert word in said
    assert result.packages == ("llama-index-embft", "llama-index-llms-openai")
    assert "+from llama_index_embft import SentenceTransformersFinetuneEngine\n" in result.diff()
    assert "old.ipynb, cell 3" in result.diff()


def test_the_figures_in_the_notes_are_true() -> None:
    from llama_index_embft.migration import code

    for engine in (SentenceTransformersFinetuneEngine, EmbeddingAdapterFinetuneEngine):
        text = next(text for pattern, text in code._LINES.items() if engine.__name__ in pattern)
        parameters = inspect.signature(engine).parameters
        for name, value in re.findall(r"(\w+)=(\w+)", text):
            assert str(parameters[name].default) == value


def test_what_is_said_of_the_cross_encoder_engine_is_true() -> None:
    (note,) = notes_on("engine = CrossEncoderFinetuneEngine(samples)", "", set())
    (rate,) = re.findall(r"learning rate of (\S+)", note.text)
    assert RerankerSettings().peak_rate == float(rate)
    assert inspect.signature(CrossEncoderFinetuneEngine.push_to_hub).parameters["private"].default is True
    stock = pytest.importorskip("llama_index.finetuning.cross_encoders").CrossEncoderFinetuneEngine
    ours = inspect.signature(CrossEncoderFinetuneEngine).parameters
    assert {name: p.default for name, p in inspect.signature(stock).parameters.items()} == {
        name: ours[name].default for name in inspect.signature(stock).parameters
    }
    fit = inspect.signature(CrossEncoder.fit).parameters
    assert fit["optimizer_params"].default == {"lr": 2e-5}


# --- the five write-ups ----------------------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.parametrize("seed", ["001", "000", "003"])
def test_the_write_ups(seed: str) -> None:
    if not SEEDS.is_dir():
        pytest.skip(f"the write-ups are not at {SEEDS}")
    text = next(SEEDS.glob(f"{seed}_*.txt")).read_text(encoding="utf-8")
    # They lie there as plain text without indentation, so the imports are found one by one.
    code = migrated(text, cell=True)
    lines = [line for line in code.splitlines() if re.match(r"\s*(from|import) llama_index", line)]
    assert "from llama_index_embft import SentenceTransformersFinetuneEngine" in lines
    assert not [line for line in lines if "finetuning" in line or line.startswith("from llama_index import")]
    assert not [line for line in lines if re.match(r"from llama_index\.(schema|llms|embeddings|node_parser) ", line)]
    changed = sum(a != b for a, b in zip(text.splitlines(), code.splitlines(), strict=True))
    assert changed <= 14
    for line in lines:  # what is imported is really there
        if "(" not in line and "pairs, Emb" not in line and "openai" not in line:
            exec(line, {})


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["migrate", *arguments])


def test_the_command_shows_and_writes_only_when_told(run, tmp_path) -> None:
    Path("a.ipynb").write_text(notebook(indent=1), encoding="utf-8")
    Path("b.py").write_text("#!/usr/bin/env python\nfrom llama_index.finetuning import OpenAIFinetuneEngine\n")
    before = Path("a.ipynb").read_bytes()
    result = run("a.ipynb", "b.py")
    assert result.exit_code == 0, result.output
    assert "+from llama_index_embft import SentenceTransformersFinetuneEngine" in result.output
    assert "b.py: no import to change." in result.output
    assert "OpenAIFinetuneEngine has no counterpart here" in result.output
    assert "1 of 2 would change; add --write" in result.output
    assert Path("a.ipynb").read_bytes() == before
    assert run("a.ipynb", "--check").exit_code == 1
    Path("a.ipynb").chmod(0o640)
    assert run("a.ipynb", "./a.ipynb", "--write").exit_code == 0  # given twice, written once
    assert Path("a.ipynb").stat().st_mode & 0o777 == 0o640
    nbformat.validate(nbformat.read("a.ipynb", as_version=4))
    assert run("a.ipynb", "--check").exit_code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.ipynb", "b.py"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.ipynb", None, "No such file"),
        ("cut.ipynb", b'{"cells": [{"cell_type": "code", "source": ["x', "is not JSON"),
        ("list.ipynb", b"[]", "no `cells`"),
        ("deep.ipynb", b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        ("deep2.ipynb", b'{"cells": [], "x": ' + b"[" * 800 + b"]" * 800 + b"}", None),
        ("cells.ipynb", b'{"cells": [3]}', "no `cells`"),
        ("old.ipynb", b'{"worksheets": [], "nbformat": 3}', "nbconvert"),
        ("source.ipynb", b'{"cells": [{"cell_type": "code", "source": [3]}]}', "source of cell 1 is not text"),
        ("source2.ipynb", b'{"cells": [{"cell_type": "code", "source": ["a", 3]}]}', "source of cell 1 is not text"),
        ("latin.ipynb", '{"cells": "ü"}'.encode("latin-1"), "save it as UTF-8"),
        ("latin.py", "x = 'ü'".encode("latin-1"), "save it as UTF-8"),
        ("cookie.py", b"# -*- coding: nonsense -*-\n", "save it as UTF-8"),
        ("zero.py", b"x = 1\0", "zero bytes"),
        ("text.txt", b"x", "neither a script"),
    ],
)
def test_bad_files_are_one_sentence(tmp_path, name: str, content: bytes | None, message: str | None) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    if message is None:
        assert not migrate_file(file).changed
        return
    with pytest.raises(DocumentError, match=message) as caught:
        migrate_file(file)
    assert "\n" not in str(caught.value)


def test_nothing_is_half_written(tmp_path, monkeypatch) -> None:
    file = tmp_path / "a.ipynb"
    file.write_text(notebook(), encoding="utf-8")
    before = file.read_bytes()
    migration = migrate_file(file)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OutputError, match="No space left"):
        migration.write()
    assert file.read_bytes() == before
    monkeypatch.undo()
    file.write_text("{}")
    with pytest.raises(DocumentError, match="has changed since it was read"):
        migration.write()
    assert file.read_text() == "{}"


def test_other_encodings_come_back_as_they_were(tmp_path) -> None:
    file = tmp_path / "a.py"
    code = "# -*- coding: latin-1 -*-\r\nfrom llama_index.finetuning import EmbeddingQAFinetuneDataset  # ü\r\n"
    file.write_bytes(code.encode("latin-1"))
    migrate_file(file).write()
    assert file.read_bytes() == code.replace("llama_index.finetuning", "llama_index_embft").encode("latin-1")
