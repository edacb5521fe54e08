"""Which files of a folder are read, and which are not, and why."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.files import files_of
from llama_index_embft.dataset.documents.base import ReadingSettings, ending_of, printable_name, unread_kind
from llama_index_embft.dataset.documents.readers import READERS
from llama_index_embft.dataset.sources import clipped
from llama_index_embft.errors import DocumentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_SHOWN: Final = 3
_KINDS: Final = (
    ".pdf, .html, .docx, .xlsx, .pptx, .csv, .json, .jsonl, .md, .txt, .epub, .rtf, .eml, .ipynb, source code, .zip "
    "and .tar, and more (docs/how-to/documents.md)"
)


@dataclass(frozen=True)
class SkippedFile:
    """A file that was not read, or not wholly.

    Attributes:
        name: Its name below the folder that was given; within an archive, behind that of the archive.
        reason: Why, as the end of a sentence that begins with the name.
        cause: The same in a word or two, to count by.
        partly: Some of it was read.
    """

    name: str
    reason: str
    cause: str
    partly: bool = False


class FoundFiles(NamedTuple):
    """What folders hold.

    Attributes:
        root: The folder that the names begin in.
        files: Path -> name below the root, of what can be read, in a fixed order.
        skipped: The rest; hidden files are not among them.
    """

    root: Path
    files: dict[Path, str]
    skipped: list[SkippedFile]


def find_files(given: Sequence[Path], settings: ReadingSettings) -> FoundFiles:
    """List files, and those below folders. A file that is given by name is read whatever its ending.

    Raises:
        DocumentError: A path does not exist, or a folder holds nothing readable or more files than are allowed.
    """
    if not given:
        raise DocumentError("No documents: give at least one file or folder.")
    for path in given:
        try:
            there = path.exists()
        except (OSError, ValueError) as err:  # a name that is too long, or holds a zero byte
            raise DocumentError(f"Cannot read {clipped(str(path))}: {first_line(err)}; check the path.") from err
        if not there:
            raise DocumentError(f"There is no file or folder {path}; check the path.")
        if not path.is_dir() and not path.is_file():
            raise DocumentError(f"{path} is neither a file nor a folder; give the path of a document.")
    real = [Path(os.path.realpath(path)) for path in given]
    root = Path(os.path.commonpath([path if path.is_dir() else path.parent for path in real]))
    found = FoundFiles(root, {}, [])
    for path, shown in zip(real, given, strict=True):
        if not path.is_dir():
            found.files[path] = _name(path, root)
            continue
        visible = _visible(path, shown, settings)
        if not visible:
            raise DocumentError(f"The folder {shown} holds no files; put your documents there or give another folder.")
        problems = {file: _why_not(file, path) for file in visible}
        readable = [file for file in visible if problems[file] is None]
        if not readable:
            raise DocumentError(
                f"The folder {shown} holds no file of a kind that can be read, only "
                f"{_endings(problems) or 'links that are not followed'}; supported are {_KINDS}."
            )
        found.files.update((file, _name(file, root)) for file in readable)
        found.skipped.extend(SkippedFile(_name(file, root), *problem) for file, problem in problems.items() if problem)
    _drop_second_names(found)
    return found


def is_among(place: Path, given: Sequence[Path], settings: ReadingSettings) -> bool:
    """Whether a file, or something in a folder, would be read as a document.

    Raises:
        DocumentError: See `find_files`.
    """
    place = Path(os.path.realpath(place))
    real = [Path(os.path.realpath(path)) for path in given]
    if not any(place == path or path in place.parents or place in path.parents for path in real):
        return False
    return any(place == file or place in file.parents for file in find_files(given, settings).files)


def _name(file: Path, root: Path) -> str:
    return printable_name(file.relative_to(root).as_posix())


def _drop_second_names(found: FoundFiles) -> None:
    """Leave out links to files that are read under another name: found twice, one of the two counts as wrong."""
    links = [file for file in found.files if file.is_symlink()]
    read = {file: found.files[file] for file in found.files.keys() - set(links)}
    for link in links:
        target = Path(os.path.realpath(link))
        if target in read:
            reason = f"is a link to {clipped(read[target])}, which is read under that name"
            found.skipped.append(SkippedFile(found.files.pop(link), reason, "a link"))
        else:
            read[target] = found.files[link]


def _visible(folder: Path, shown: Path, settings: ReadingSettings) -> list[Path]:
    """Files, links, and folders that are not opened, sorted; counted while they are listed."""
    files: list[Path] = []
    closed: list[Path] = []

    def note(err: OSError) -> None:
        if err.filename and Path(err.filename) != folder:
            closed.append(Path(err.filename))

    for place, folders, names in os.walk(folder, onerror=note):
        folders[:] = [name for name in folders if not name.startswith(".")]
        # Reports and questions of an earlier run are no documents.
        results = [name for name in folders if files_of(Path(place, name)) is not None]
        closed.extend(Path(place, name) for name in results)
        folders[:] = [name for name in folders if name not in results]
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]  # noqa: PTH114, PTH118 - many
        files.extend(Path(place, name) for name in [*names, *links] if not name.startswith("."))
        if len(files) > settings.max_files:
            raise DocumentError(
                f"The folder {shown} holds more than {settings.max_files:,} files; give the folders that matter, or "
                "raise `max_files`."
            )
    return sorted(files + closed)


def _why_not(file: Path, folder: Path) -> tuple[str, str] | None:
    if file.is_symlink():
        target = Path(os.path.realpath(file))
        if not target.is_relative_to(folder):
            return "is a link that leads out of the folder, which is not followed", "a link"
        if not target.is_file():
            return "is a link to a folder, to itself or to nothing, which is not followed", "a link"
    elif file.is_dir() and files_of(file) is not None:
        return "is a result of llama-index-embft and no document; give it by name to read it", "a result"
    elif file.is_dir():
        return "is a folder that may not be opened; change its permissions", "unreadable"
    elif not file.is_file():
        return "is a device, socket or pipe and no file", "of a kind that is not read"
    return None if ending_of(file.name) in READERS else unread_kind(file.name)


def _endings(problems: Iterable[Path | str]) -> str:
    endings = Counter(ending_of(str(file)) or "no ending" for file in problems)
    most = sorted(endings.items(), key=lambda pair: (-pair[1], pair[0]))[:8]
    return ", ".join(f"{ending} ({count})" for ending, count in most)


def skipped_in_words(skipped: Sequence[SkippedFile]) -> Iterator[str]:
    """A sentence for each reason, with how many files it holds for and the first of them."""
    groups: dict[tuple[bool, str], list[SkippedFile]] = defaultdict(list)
    for one in skipped:
        groups[one.partly, one.cause].append(one)
    for (partly, cause), files in sorted(groups.items()):
        count = f"{len(files):,} file{'s' if len(files) > 1 else ''}"
        first = {one.reason: one for one in reversed(files)}  # one example of each
        examples = some([f"{clipped(one.name)} {one.reason}" for one in reversed(first.values())], len(files))
        if not partly and cause == unread_kind("")[1]:
            examples = _endings(one.name for one in files)
        yield (
            f"Read {count} with a reservation ({cause}): {examples}."
            if partly
            else f"Skipped {count} ({cause}): {examples}."
        )


def some(problems: Sequence[str], total: int) -> str:
    """The first few, and how many there are beyond them."""
    shown = problems[:_SHOWN]
    more = f"; and {total - len(shown):,} more" if total > len(shown) else ""
    return "; ".join(shown) + more
