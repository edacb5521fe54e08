"""Mutation tests: change one operator or constant of the code at a time, and see whether a fast test notices.

`mutmut` (its settings stand in pyproject.toml) changes what decides figures: metrics, statistics, the split, the choice
of negatives, identities. What no test notices is either noticed after the next test that is written, or listed with the
reason why nothing can notice it in `benchmarks/mutants.toml`. Decorated functions (properties) are not changed: mutmut
leaves them out.

    make mutants                                # all; two hours on one core, and only what changed the next time
    python benchmarks/mutants.py --report       # from the results that are there
    python benchmarks/mutants.py --only 'llama_index_embft.evaluation.metrics*'
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from _common import parser, print_table, write_results

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_suffix(".toml")
STATES = ("killed", "survived", "timeout", "no tests")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--only", nargs="*", default=[], help="names of mutants, with wildcards")
    options.add_argument("--report", action="store_true", help="run nothing")
    options.add_argument("--processes", type=int, default=1)
    asked = options.parse_args()
    os.chdir(ROOT)
    if not asked.report:
        # Entry points of pytest's plugins are looked up for each mutant: without them it takes half the time.
        settings = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1"}
        settings.pop("PYTHONPATH", None)  # the copy in mutants/ is what must be imported
        tool = Path(sys.executable).with_name("mutmut")
        command = [str(tool), "run", "--max-children", str(asked.processes), *asked.only]
        subprocess.run(command, check=True, env=settings)
    listed = tomllib.loads(LIST.read_text(encoding="utf-8"))["equivalent"]
    rows, unexplained, stale = report(listed)
    print_table(rows)
    for where, old, new in unexplained:
        print(f"\nNoticed by no test: {where}\n  - {old}\n  + {new}")
    for entry in stale:
        print(f"\nListed and not there: {entry['where']}: {entry['old']}")
    whole = not any(row["not checked"] for row in rows)
    if whole:
        write_results("mutants", rows)
    sys.exit(bool(unexplained or (whole and stale)))


def report(listed: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[tuple[str, str, str]], list[Any]]:
    """A row a module, the changes that no test notices and nothing explains, and entries that explain nothing."""
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.mutation.diff_apply import get_diff_for_mutant
    from mutmut.stats import status_by_exit_code
    from mutmut.utils.file_utils import walk_mutatable_files

    reasons = {(entry["where"], entry["old"], new): entry for entry in listed for new in entry["new"]}
    used: set[int] = set()
    rows, unexplained = [], []
    for path in sorted(walk_mutatable_files()):
        data = SourceFileMutationData(path=path)
        data.load()
        module = str(path.with_suffix("").relative_to("llama_index_embft"))
        states = Counter(status_by_exit_code[code] for code in data.exit_code_by_key.values())
        explained = 0
        for name, code in data.exit_code_by_key.items():
            if status_by_exit_code[code] in ("killed", "timeout", "not checked"):
                continue
            diff = get_diff_for_mutant(name, path=path).splitlines()[2:]
            old, new = (" ".join(line[1:].strip() for line in diff if line[0] == sign) for sign in "-+")
            found = (f"{module}:{_function(name)}", old, new)
            if found in reasons:
                explained += 1
                used.add(id(reasons[found]))
            else:
                unexplained.append(found)
        rows.append(
            {
                "module": module,
                "mutants": sum(states.values()),
                **{state: states[state] for state in STATES},
                "equivalent": explained,
                "not checked": states["not checked"],
            }
        )
    return rows, unexplained, [entry for entry in listed if id(entry) not in used]


def _function(name: str) -> str:
    """``Class.method`` or ``function`` of a mutant's name."""
    mangled = name.rpartition(".")[2].partition("__mutmut_")[0]
    return mangled.removeprefix("xǁ").replace("ǁ", ".") if mangled.startswith("xǁ") else mangled.removeprefix("x_")


if __name__ == "__main__":
    main()
