"""Mutation testing of the core: seeded faults in arithmetic, verdicts, planning and stores must fail a test.

Run as `python tests/mutations.py [--seed N] [--count N] [--jobs N] [--write FILE]`. Without a seed the mutations are
those of `tests/mutations.json`, which a seeded generator has chosen and of which every one must fail a test; those that
behave as the original does are not among them. With a seed, the generator takes other places from the syntax trees of
`MODULES`: a comparison, an arithmetic or Boolean operator, a condition, a number. Each is changed in a copy of the
repository, and the tests of that module's room run there until one fails. What no test fails on is a survivor, and the
exit code is 1. `tests/mutations.md` is the table of the last run without a seed.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
LIST: Final = ROOT / "tests/mutations.json"
"""File, line and mutated line of each mutation."""
LIMIT_S: Final = 600
"""A mutation whose tests take longer has made a loop that does not end: it is noticed."""

MODULES: Final = {
    "harness/quantity.py": ["tests/test_quantity.py"],
    "harness/counter.py": ["tests/test_counter.py"],
    "harness/functional_unit.py": ["tests/test_functional_unit.py"],
    "harness/measuring/edges.py": ["tests/measuring"],
    "harness/statistics/*.py": ["tests/statistics"],
    "harness/gating/verdict.py": ["tests/gating"],
    "harness/gating/cells.py": ["tests/gating"],
    "harness/gating/job_guards.py": ["tests/gating"],
    "harness/planning/*.py": ["tests/planning"],
    "harness/records/*.py": [
        "tests/records",
        "tests/comparing",
        "tests/reporting",
        "tests/faults/test_faults_power_loss.py",
    ],
    "harness/storing/*.py": ["tests/storing"],
    "harness/storing/remote/*.py": ["tests/storing"],
}
"""Files -> the tests that mirror them. Every row gets about the same share of the mutations."""

_COMPARED: Final[dict[type[ast.cmpop], tuple[str, str]]] = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"),
    ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"),
}  # fmt: skip
_COMPUTED: Final[dict[type[ast.operator], tuple[str, str]]] = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"),
}  # fmt: skip
_JOINED: Final[dict[type[ast.boolop], tuple[str, str]]] = {ast.And: ("and", "or"), ast.Or: ("or", "and")}


@dataclass(frozen=True, slots=True)
class Mutation:
    """One change of one file.

    Attributes:
        file: relative to the repository.
        start: offset of what is replaced, in bytes.
        end: behind it.
        text: what stands there instead.
        line: number of the line.
        before: that line, as it is.
        after: that line, as it becomes.
    """

    file: str
    start: int
    end: int
    text: str
    line: int
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Result:
    """What the tests said about a mutation.

    Attributes:
        mutation: the change.
        killed_by: the first test that failed; empty if all passed.
    """

    mutation: Mutation
    killed_by: str


class _Places(ast.NodeVisitor):
    """Every place of a file that can be mutated. Annotations and texts are no behaviour and are left out."""

    def __init__(self, file: str, source: bytes) -> None:
        self.file = file
        self.source = source
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.found: list[Mutation] = []

    def _at(self, line: int, column: int) -> int:
        return self.starts[line - 1] + column

    def _begin(self, node: ast.expr) -> int:
        return self._at(node.lineno, node.col_offset)

    def _end(self, node: ast.expr) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._at(node.end_lineno, node.end_col_offset)

    def _replace(self, start: int, end: int, text: str) -> None:
        line = self.source.count(b"\n", 0, start) + 1
        begin, stop = self.starts[line - 1], self.starts[line] - 1
        before = self.source[begin:stop].decode()
        after = (self.source[begin:start] + text.encode() + self.source[end : max(stop, end)]).decode()
        self.found.append(Mutation(self.file, start, end, text, line, before.strip(), after.strip()))

    def _operator(self, left: ast.expr, right: ast.expr, change: tuple[str, str] | None) -> None:
        if change is None:
            return
        start, end = self._end(left), self._begin(right)
        at = self.source[start:end].find(change[0].encode())
        if at >= 0:
            self._replace(start + at, start + at + len(change[0]), change[1])

    def visit_Compare(self, node: ast.Compare) -> None:
        """Moves or turns each comparison."""
        for left, operator, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
            self._operator(left, right, _COMPARED.get(type(operator)))
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """Turns sums and products round; texts and paths are not computed with."""
        if not any(map(_is_text, ast.walk(node))):
            self._operator(node.left, node.right, _COMPUTED.get(type(node.op)))
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """Exchanges `and` and `or`."""
        if len(node.values) == 2:
            self._operator(node.values[0], node.values[1], _JOINED[type(node.op)])
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        """Negates a condition."""
        self._replace(self._begin(node.test), self._begin(node.test), "not (")
        last = self.found.pop()
        end = self._end(node.test)
        text = f"not ({self.source[last.start : end].decode()})"
        self._replace(last.start, end, text)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Adds 1 to a number."""
        if isinstance(node.value, int | float) and not isinstance(node.value, bool):
            self._replace(self._begin(node), self._end(node), repr(node.value + 1))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Leaves the annotation alone."""
        if node.value is not None:
            self.visit(node.value)

    def visit_arguments(self, node: ast.arguments) -> None:
        """Visits defaults alone."""
        for default in (*node.defaults, *node.kw_defaults):
            if default is not None:
                self.visit(default)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Leaves the decorators and the returned type alone."""
        self.visit_arguments(node.args)
        for statement in node.body:
            self.visit(statement)


def _is_text(part: ast.AST) -> bool:
    """Whether it is a text, or a folder or file by its name."""
    if isinstance(part, ast.Name | ast.Attribute):
        name = part.id if isinstance(part, ast.Name) else part.attr
        return name.endswith(("folder", "path", "parent"))
    return isinstance(part, ast.JoinedStr) or (isinstance(part, ast.Constant) and isinstance(part.value, str | bytes))


def places(file: Path) -> list[Mutation]:
    """Every mutation of a file that still compiles."""
    source = file.read_bytes()
    visitor = _Places(str(file.relative_to(ROOT)), source)
    visitor.visit(ast.parse(source))
    return [each for each in visitor.found if _compiles(mutated(source, each))]


def mutated(source: bytes, mutation: Mutation) -> bytes:
    """The file with the change in it."""
    return source[: mutation.start] + mutation.text.encode() + source[mutation.end :]


def _compiles(source: bytes) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def chosen(seed: int, count: int) -> list[tuple[Mutation, list[str]]]:
    """So many mutations, the rows of `MODULES` in turn; the same for the same code and seed."""
    generator = random.Random(seed)
    rows: list[Iterator[tuple[Mutation, list[str]]]] = []
    for pattern, tests in MODULES.items():
        found = [each for file in sorted(ROOT.glob(pattern)) for each in places(file)]
        generator.shuffle(found)
        rows.append(iter([(each, tests) for each in found]))
    taken: list[tuple[Mutation, list[str]]] = []
    while rows and len(taken) < count:
        for row in list(rows):
            following = next(row, None)
            if following is None:
                rows.remove(row)
            elif len(taken) < count:
                taken.append(following)
    return taken


def fixed() -> list[tuple[Mutation, list[str]]]:
    """The mutations of `tests/mutations.json`; exits where the code has moved on from one of them."""
    listed: list[tuple[Mutation, list[str]]] = []
    for file, before, after in json.loads(LIST.read_text(encoding="utf-8")):
        lines = (ROOT / file).read_bytes().splitlines(keepends=True)
        found = [number for number, line in enumerate(lines) if line.decode().strip() == before]
        if len(found) != 1:
            sys.exit(f"{file} has {len(found)} lines {before!r}: replace that mutation in {LIST.name}")
        start = sum(map(len, lines[: found[0]])) + lines[found[0]].index(before.encode())
        tests = next(tests for pattern, tests in MODULES.items() if ROOT / file in ROOT.glob(pattern))
        mutation = Mutation(file, start, start + len(before.encode()), after, found[0] + 1, before, after)
        listed.append((mutation, tests))
    return listed


def copy_of_the_repository(folder: Path) -> Path:
    """What the tests need, where it may be changed."""
    place = folder / "repository"
    ignored = shutil.ignore_patterns(".git", ".venv", "reports", "__pycache__", ".hypothesis", ".*_cache")
    shutil.copytree(ROOT, place, ignore=ignored)
    return place


def first_failure(place: Path, tests: list[str]) -> str:
    """The first test that fails in a copy of the repository; empty if all pass."""
    path = os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(place.parent)}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:randomly", "-rfE", *tests]
    try:
        done = subprocess.run(
            command, cwd=place, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no end after {LIMIT_S} s"
    if done.returncode == 0:
        return ""
    for line in done.stdout.splitlines():
        if line.startswith(("FAILED ", "ERROR ")):
            return line.split(" ", 1)[1].split(" - ")[0]
    return f"pytest ended with {done.returncode}"


def tried(place: Path, mutation: Mutation, tests: list[str]) -> Result:
    """Changes the file, runs the tests, and puts the file back."""
    file = place / mutation.file
    source = (ROOT / mutation.file).read_bytes()
    file.write_bytes(mutated(source, mutation))
    try:
        return Result(mutation, first_failure(place, tests))
    finally:
        file.write_bytes(source)


def run(mutations: list[tuple[Mutation, list[str]]], jobs: int, tell: Callable[[Result], None]) -> list[Result]:
    """Tries every mutation, in so many copies side by side."""
    with tempfile.TemporaryDirectory(prefix="mut-") as made, ThreadPoolExecutor(jobs) as pool:
        free = [copy_of_the_repository(Path(made) / f"{number}") for number in range(jobs)]
        for tests in {tuple(tests) for _, tests in mutations}:
            if failure := first_failure(free[0], list(tests)):
                sys.exit(f"{failure} fails without any mutation")

        def one(each: tuple[Mutation, list[str]]) -> Result:
            place = free.pop()
            try:
                result = tried(place, *each)
            finally:
                free.append(place)
            tell(result)
            return result

        return list(pool.map(one, mutations))


def table(results: list[Result]) -> str:
    """The results as Markdown."""

    def code(text: str) -> str:
        return f"`{' '.join(text.split())[:110]}`".replace("|", "\\|")

    killed = sum(1 for result in results if result.killed_by)
    rows = [
        f"| {number} | {result.mutation.file}:{result.mutation.line} | {code(result.mutation.before)} |"
        f" {code(result.mutation.after)} | {result.killed_by.replace('|', '-') or '**survived**'} |"
        for number, result in enumerate(results, 1)
    ]
    return "\n".join(
        [
            "# Mutations of the core",
            "",
            "Written by `python tests/mutations.py --write tests/mutations.md`.",
            f"Of {len(results)} mutations, {killed} fail a test of their room.",
            "",
            "| | place | line | mutated | killed by |",
            "|---:|---|---|---|---|",
            *rows,
            "",
        ]
    )


def main() -> int:
    """Says what survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="draws other mutations than those of the list")
    parser.add_argument("--count", type=int, default=40, help="how many are drawn")
    parser.add_argument("--jobs", type=int, default=1, help="copies of the repository side by side")
    parser.add_argument("--write", type=Path, help="file of the table")
    arguments = parser.parse_args()

    def tell(result: Result) -> None:
        place = f"{result.mutation.file}:{result.mutation.line}"
        print(f"{place}  {result.mutation.after}\n    {result.killed_by or 'SURVIVED'}", flush=True)  # noqa: T201

    mutations = fixed() if arguments.seed is None else chosen(arguments.seed, arguments.count)
    results = run(mutations, arguments.jobs, tell)
    if arguments.write:
        arguments.write.write_text(table(results), encoding="utf-8")
    return int(any(not result.killed_by for result in results))


if __name__ == "__main__":
    sys.exit(main())
