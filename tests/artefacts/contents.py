"""What lies in the wheel and in the source distribution: ``python tests/artefacts/contents.py DIST``."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "llama_index_embft"


def package_files() -> set[str]:
    """Every file of the package in the checkout: code, faces, ``py.typed``, templates."""
    found = (path.relative_to(ROOT) for path in (ROOT / PACKAGE).rglob("*") if path.is_file())
    return {path.as_posix() for path in found if "__pycache__" not in path.parts and path.suffix != ".pyc"}


def only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        sys.exit(f"{folder} has {len(found)} files {pattern}; it must have one: run `make wheel`.")
    return found[0]


def problems(dist: Path) -> list[str]:
    """One line for each file that is missing or too many."""
    wanted = package_files()
    for must in ("py.typed", "__init__.pyi", "evaluation/pages/templates/comparison.html.j2"):
        assert f"{PACKAGE}/{must}" in wanted, must
    with zipfile.ZipFile(only(dist, "*.whl")) as wheel:
        inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    with tarfile.open(only(dist, "*.tar.gz")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    of_source = {name for name in names if name.startswith(f"{PACKAGE}/")}
    needed = {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "Makefile", "constraints.txt", "PKG-INFO"}
    lines = []
    for kind, missing, extra in (
        ("wheel", wanted - inside, inside - wanted),
        ("sdist", (wanted | needed) - names, of_source - wanted),
    ):
        lines += [f"{kind}: {name} is missing" for name in sorted(missing)]
        lines += [f"{kind}: {name} does not belong there" for name in sorted(extra)]
    return lines


if __name__ == "__main__":
    found = problems(Path(sys.argv[1]))
    if found:
        sys.exit("\n".join(found))
    print(f"{len(package_files())} files of the package are in the wheel and in the source distribution.")
