"""Whatever is wrong with the user's input: one sentence, exit code 2, no traceback, nothing half-written."""

from __future__ import annotations

import sys

import pytest


def blank_pdf(path, password=None):
    from pypdf import PdfWriter

    writer = PdfWriter()
    writer.add_blank_page(width=200, height=200)
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    writer.write(path)


def write_note(folder, name="note.md", sentences=40):
    subjects = ["river", "engine", "garden", "library", "harbour", "kitchen", "mountain", "theatre"]
    lines = [
        f"The {subjects[n % 8]} number {n} is a {subjects[(n * 3) % 8]} that opened in {1900 + n}."
        for n in range(sentences)
    ]
    (folder / name).write_text(f"# {name}\n\n" + "\n\n".join(lines), encoding="utf-8")


def assert_refused(said, message, out):
    code, _, err = said
    assert code == 2, err
    lines = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, err
    assert message in lines[0]
    assert "Traceback" not in err
    assert [path.name for path in out.parent.iterdir() if out.name in path.name] == []


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


CASES = {
    "nothing there": (lambda d: None, ["missing"], "There is no file or folder missing; check the path"),
    "empty folder": (lambda d: (d / "docs").mkdir(), ["docs"], "holds no files"),
    "scan": (lambda d: blank_pdf(d / "scan.pdf"), ["scan.pdf"], "OCR"),
    "encrypted": (lambda d: blank_pdf(d / "secret.pdf", "x"), ["secret.pdf"], "password"),
    "no such model": (
        lambda d: write_note(d),
        ["note.md", "--embed-model", "./no-such-model"],
        "The model folder './no-such-model' does not exist",
    ),
    "llm without its name": (
        lambda d: write_note(d),
        ["note.md", "--llm", "openai"],
        "Give --llm and --llm-model together",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_run_refuses_in_one_sentence(embft, tmp_path, tiny_model_path, case):
    prepare, arguments, message = CASES[case]
    prepare(tmp_path)
    out = tmp_path / "runs-here"
    model = [] if "--embed-model" in arguments else ["--embed-model", tiny_model_path]
    assert_refused(embft("run", *arguments, *model, "--out", out), message, out)


def test_the_questions_do_not_lie_among_the_documents(embft, tmp_path):
    write_note(tmp_path)
    llm = ["--llm", "openai-like", "--llm-model", "m", "--api-base", "http://127.0.0.1:9/v1"]
    code, _, err = embft("generate", ".", "--out", "train.json", *llm)
    assert code == 2
    assert "train.json lies in ., and the next run would read it as a document; choose another --out." in err


def test_an_llm_is_not_paid_for_questions_about_one_document(embft, tmp_path, tiny_model_path, monkeypatch):
    from llama_index_embft.calls import trial

    write_note(tmp_path)
    monkeypatch.setattr(trial, "check_llm", lambda llm: None)
    llm = ["--llm", "openai-like", "--llm-model", "m", "--api-base", "http://127.0.0.1:9/v1"]
    said = embft("run", "note.md", "--embed-model", tiny_model_path, *llm, "--out", tmp_path / "runs-here")
    assert_refused(said, "about one document only", tmp_path / "runs-here")
    assert "like it would show a gain of 5 points" in said[2]


def test_an_output_folder_in_an_impossible_place(embft, tmp_path, tiny_model_path):
    write_note(tmp_path)
    (tmp_path / "file").write_text("in the way")
    code, _, err = embft("run", "note.md", "--embed-model", tiny_model_path, "--out", "file/below")
    assert code == 2
    assert err.count("Error: ") == 1
    assert "Traceback" not in err
    assert (tmp_path / "file").read_text() == "in the way"


def test_an_output_folder_with_somebody_elses_files_is_left_alone(embft, tmp_path, tiny_model_path):
    write_note(tmp_path)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("mine")
    code, _, err = embft("run", "note.md", "--embed-model", tiny_model_path, "--out", "thesis")
    assert code == 2
    assert "Traceback" not in err
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "mine"


def test_a_full_disk_ends_in_one_sentence_and_leaves_nothing(tmp_path, tiny_model_path, monkeypatch):
    """The disk fills up while the result folder is written."""
    import errno

    from llama_index_embft.cli import app
    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset

    for name in ("a.md", "b.md", "c.md"):
        write_note(tmp_path, name)

    def full(self, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(EmbeddingQAFinetuneDataset, "save_json", full)
    monkeypatch.setattr(
        sys, "argv", ["embft", "run", "a.md", "b.md", "c.md", "--embed-model", tiny_model_path, "--out", "o"]
    )
    with pytest.raises(SystemExit) as stopped:
        app.main()
    assert stopped.value.code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.md", "b.md", "c.md"]


def test_an_unknown_option_is_a_usage_error(embft):
    code, _, err = embft("run", "--no-such-option")
    assert code == 2
    assert "Traceback" not in err


def test_version(embft):
    assert embft("--version")[1].startswith("llama-index-embft 0.")
