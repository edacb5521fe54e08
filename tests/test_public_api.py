"""A public name, a signature or a default changes only on purpose."""

from __future__ import annotations

import difflib

import public_api


def test_the_public_interface_is_the_written_one():
    written = public_api.SNAPSHOT.read_text(encoding="utf-8").splitlines()
    found = public_api.public_api().splitlines()
    changed = "\n".join(difflib.unified_diff(written, found, "tests/public_api.txt", "the code", lineterm="", n=2))
    assert changed == "", f"If this is meant, run `make api`, and name it in CHANGELOG.md:\n{changed}"


def test_a_long_signature_has_a_line_for_each_parameter():
    names = [f"a_rather_long_name_{n}" for n in range(4)]
    text = f"def pack({names[0]}, /, {names[1]}: int, *rest, {names[2]}: int = 2, {names[3]}, **more) -> None: ..."
    (function,) = public_api.ast.parse(text).body
    lines = [line.strip() for line in public_api.signature(function)]
    assert lines == [
        "def pack(",
        names[0],
        "/",
        f"{names[1]}: int",
        "*rest",
        f"{names[2]}: int = 2",
        names[3],
        "**more",
        ") -> None",
    ]


def test_a_changed_default_and_a_lost_name_are_seen(tmp_path, monkeypatch):
    package = tmp_path / "llama_index_embft"
    package.mkdir()
    (package / "__init__.pyi").write_text("from .parts import Box as Box, pack as pack\n")
    code = (
        "class Box:\n    side: int = 1\n    _inner: int = 0\n    def weigh(self, *, exact: bool = True) -> float: ...\n"
    )
    (package / "parts.py").write_text(code + "async def pack(box: 'Box', k: int = 3) -> None: ...\n")
    monkeypatch.setattr(public_api, "ROOT", tmp_path)
    monkeypatch.setattr(public_api, "PACKAGE", package)
    assert public_api.public_api().splitlines() == [
        "# llama_index_embft",
        "class Box",
        "    side: int = 1",
        "    def weigh(self, *, exact: bool=True) -> float",
        "async def pack(box: 'Box', k: int=3) -> None",
    ]
