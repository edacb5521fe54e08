"""Ways to damage a file: bytes, JSON values, SQLite cells."""

from __future__ import annotations

import gzip
import json
import random
import sqlite3
from pathlib import Path
from typing import Any

VALUES: list[Any] = [
    None, True, False, 0, -1, 2**31, 2**64, -(2**63), 10**40, 0.5, 1e308, float("nan"), float("inf"),
    "", " ", "\n", "\x00", "a\x00b", "\ud800", "\u202eabc", "e\u0301", "../../etc/passwd", "a/b", "NaN", "1e999",
    "<script>alert(1)</script>", "{{7*7}}", "=cmd|' /C calc'!A0", "\x1b]52;c;aGk=\x07", "x" * 100_000, "?" * 20_000,
    [], {}, [[]], [{}], {"": ""}, [None], ["d0", "d0"], {"d0": "1"}, {"d0": {"d0": 1}}, [0] * 1000,
]  # fmt: skip
PIECES = [
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n", b"\xe2\x80\xa8", b'"', b",", b"\t", b"{", b"}", b"[", b"]",
    b":", b"\\ud800", b"\\", b"null", b"NaN", b"1e999", b"-1", b"9" * 5000, b"[" * 3000, b'{"a":' * 3000, b"PK\x03\x04",
    b"\x1f\x8b", b"PAR1", b"\xed\xa0\x80", b"\xc0\x80", b"&a [*a]", b"!!int abc", b"2026-11-31", b"<![foo[ x ]]>",
    b"<p>" * 3000, b"?" * 3000, b". " * 3000,
]  # fmt: skip


def damage_bytes(data: bytes, rnd: random.Random) -> bytes:
    """Flip, drop, cut, repeat or insert; one to four times."""
    out = bytearray(data or b" ")
    for _ in range(rnd.choice([1, 1, 2, 4])):
        at = rnd.randrange(len(out))
        way = rnd.randrange(6)
        if way == 0:
            out[at] ^= 1 << rnd.randrange(8)
        elif way == 1:
            del out[at : at + rnd.choice([1, 2, 10, 100])]
        elif way == 2:
            out[at:at] = rnd.choice(PIECES)
        elif way == 3:
            del out[at:]
        elif way == 4:
            out[at:at] = out[at : at + rnd.choice([1, 20, 200])]
        else:
            out[at : at + 4] = rnd.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF]).to_bytes(4, "little")
        out = out or bytearray(b" ")
    return bytes(out)


def damage_json(value: Any, rnd: random.Random) -> Any:
    """Put a strange value in the place of any value, or drop, rename or repeat it."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            walk(node[key])

    walk(value)
    if not places or rnd.random() < 0.03:
        return rnd.choice(VALUES)
    parent, key = rnd.choice(places)
    way = rnd.random()
    if way < 0.7:
        parent[key] = rnd.choice(VALUES)
    elif way < 0.8:
        del parent[key]
    elif isinstance(parent, dict):
        parent[str(rnd.choice(VALUES))[:300]] = parent.pop(key)
    else:
        parent.insert(rnd.randrange(len(parent) + 1), rnd.choice(VALUES))
    return value


def damage_file(path: Path, rnd: random.Random) -> None:
    """Damage a file as its ending invites: JSON by value, SQLite by cell, all else by bytes."""
    data = path.read_bytes()
    if data[:15] == b"SQLite format 3" and rnd.random() < 0.6 and damage_sqlite(path, rnd):
        return
    if path.suffix in (".json", ".jsonl") and rnd.random() < 0.65:
        lines = [data] if path.suffix == ".json" else data.splitlines()
        number = rnd.randrange(len(lines)) if lines else 0
        try:
            lines[number] = json.dumps(damage_json(json.loads(lines[number]), rnd)).encode("utf-8", "surrogatepass")
            path.write_bytes(b"\n".join(lines))
            return
        except (ValueError, IndexError):
            pass  # an empty file or a line that is no JSON: it is damaged by bytes below
    way = rnd.random()
    if way < 0.05:
        path.write_bytes(damage_bytes(gzip.compress(data), rnd))
    elif way < 0.1:
        path.write_bytes(
            data.decode("utf-8", "replace").encode(rnd.choice(["utf-16", "latin-1", "utf-8-sig"]), "replace")
        )
    else:
        path.write_bytes(damage_bytes(data, rnd))


def damage_sqlite(path: Path, rnd: random.Random) -> bool:
    """Put a strange value into a column of a table, or drop the table; False where there is none."""
    cells = [v for v in VALUES if isinstance(v, (str, float, type(None)))] + [b"", b"\x00" * 7, b"\xff\xfe", 2**62, -1]
    connection = sqlite3.connect(path)
    tables = [row[0] for row in connection.execute("select name from sqlite_master where type='table'")]
    if not tables:
        connection.close()
        return False
    table = rnd.choice(tables)
    column = rnd.choice([row[1] for row in connection.execute(f'pragma table_info("{table}")')])
    try:
        connection.execute(f'update or replace "{table}" set "{column}" = ?', (rnd.choice(cells),))
        connection.commit()
    except (sqlite3.Error, UnicodeError, OverflowError):
        connection.rollback()
        connection.execute(f'drop table "{table}"')
        connection.commit()
    connection.close()
    return True


def damage_folder(folder: Path, rnd: random.Random, *, leave: frozenset[str] = frozenset()) -> None:
    """Damage one file of a folder, or take it away, or put a folder in its place."""
    path = rnd.choice([p for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in leave])
    way = rnd.random()
    if way < 0.08:
        path.unlink()
    elif way < 0.1:
        path.unlink()
        path.mkdir()
    else:
        damage_file(path, rnd)
