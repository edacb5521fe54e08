"""Mutation tests: change one operator or constant of the code at a time, and see whether a fast test notices.

`mutmut` (its settings stand in pyproject.toml) changes what decides figures: metrics, statistics, the split, the choice
of negatives, identities. What no test notices is either noticed after the next test that is written, or listed with the
reason why nothing can notice it in `benchmarks/mutants.toml`. Decorated functions (properties) are not changed: mutmut
leaves them out.

    python benchmarks/mutants.py            # all the first time, then those whose function changed; 45 minutes
    python benchmarks/mutants.py --only 'llama_index_embft.evaluation.metrics*' --tests tests/evaluation/test_metrics.py
    python benchmarks/mutants.py --report   # from the results that are there
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from _common import merged, parser, print_table, write_results

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_suffix(".toml")
STATES = ("killed", "survived", "timeout", "no tests")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--only", nargs="*", default=[], help="names of mutants, with wildcards")
    options.add_argument("--tests", nargs="*", help="test files to hold against them; else those of pyproject.toml")
    options.add_argument("--report", action="store_true", help="run nothing")
    asked = options.parse_args()
    os.chdir(ROOT)
    if not asked.report:
        generate()
        run(asked.only, asked.tests)
    listed = tomllib.loads(LIST.read_text(encoding="utf-8"))
    rows, unexplained, stale = report(listed)
    print_table(rows)
    for where, old, new in unexplained:
        print(f"\nNoticed by no test: {where}\n  - {old}\n  + {new}")
    for why in stale:
        print(f"\nA reason for nothing: {why}")
    done = [
        {key: value for key, value in row.items() if key != "not checked"} for row in rows if not row["not checked"]
    ]
    if done:
        write_results("mutants", merged("mutants", done, ["module"]), mutmut=metadata.version("mutmut"))
    sys.exit(bool(unexplained or (stale and len(done) == len(rows))))


def generate() -> None:
    """Write package, tests and all mutants to ``mutants/``; results of functions that did not change are kept."""
    from mutmut.__main__ import create_mutants
    from mutmut.mutation.trampoline import set_mutant_under_test
    from mutmut.utils.file_utils import copy_also_copy_files, copy_src_dir

    set_mutant_under_test("mutant_generation")
    Path("mutants").mkdir(exist_ok=True)
    with contextlib.redirect_stdout(io.StringIO()):
        copy_src_dir()
        copy_also_copy_files()
        create_mutants(1)


def run(only: list[str], tests: list[str] | None) -> None:
    """Hold the tests against the mutants, with the settings of pyproject.toml."""
    chosen = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["tool"]["mutmut"]
    selection = chosen["pytest_add_cli_args_test_selection"]
    if tests:
        selection = [*tests, *(option for option in selection if not option.startswith("tests/") or "::" in option)]
    arguments = [*selection, *chosen["pytest_add_cli_args"]]
    arguments += ["-p", "mutants_session", "-s", *(f"--only={name}" for name in only)]
    # The copy in mutants/ is what must be imported.
    settings = {**os.environ, "PYTHONPATH": f"{ROOT / 'mutants'}:{Path(__file__).parent}", "OMP_NUM_THREADS": "1"}
    settings |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "MUTANT_UNDER_TEST": ""}
    subprocess.run([sys.executable, "-m", "pytest", *arguments], check=True, env=settings, cwd="mutants")


def report(listed: dict[str, Any]) -> tuple[list[dict[str, Any]], list[tuple[str, str, str]], list[str]]:
    """A row a module, the changes that no test notices and nothing explains, and reasons that explain nothing."""
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.mutation.diff_apply import get_diff_for_mutant
    from mutmut.stats import status_by_exit_code
    from mutmut.utils.file_utils import walk_mutatable_files

    single = {
        (entry["where"], entry["old"], new): entry["why"] for entry in listed["equivalent"] for new in entry["new"]
    }
    used: set[str] = set()
    rows, unexplained = [], []
    for path in sorted(walk_mutatable_files()):
        data = SourceFileMutationData(path=path)
        data.load()
        module = path.with_suffix("").relative_to("llama_index_embft").as_posix()
        states = Counter(status_by_exit_code[code] for code in data.exit_code_by_key.values())
        explained = 0
        for name, code in data.exit_code_by_key.items():
            if status_by_exit_code[code] in ("killed", "timeout", "not checked"):
                continue
            diff = get_diff_for_mutant(name, path=path).splitlines()[2:]
            old, new = (" ".join(line[1:].strip() for line in diff if line[0] == sign) for sign in "-+")
            where = f"{module}:{_function(name)}"
            why = single.get((where, old, new)) or _everywhere(old, new, listed["everywhere"])
            if why:
                explained += 1
                used.add(why)
            else:
                unexplained.append((where, old, new))
        rows.append(
            {
                "module": module,
                "mutants": sum(states.values()),
                **{state: states[state] for state in STATES},
                "equivalent": explained,
                "not checked": states["not checked"],
            }
        )
    stale = [entry["why"] for kind in listed.values() for entry in kind if entry["why"] not in used]
    return rows, unexplained, stale


def _everywhere(old: str, new: str, rules: list[dict[str, Any]]) -> str | None:
    """The reason why a change of a kind is none, wherever it stands."""
    return next(
        (
            rule["why"]
            for rule in rules
            for to in rule["new"]
            if new in (old[: at.start()] + to + old[at.end() :] for at in re.finditer(re.escape(rule["old"]), old))
        ),
        None,
    )


def _function(name: str) -> str:
    """``Class.method`` or ``function`` of a mutant's name."""
    mangled = name.rpartition(".")[2].partition("__mutmut_")[0]
    return mangled.removeprefix("xǁ").replace("ǁ", ".") if mangled.startswith("xǁ") else mangled.removeprefix("x_")


if __name__ == "__main__":
    main()
