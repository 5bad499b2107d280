"""The reference under `docs/` is what the code says, and suites keep to the schema that they name."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from harness.options import sentence
from harness.planning.json_schema import DRAFT, IDENTITY
from harness.planning.located_yaml import parse

ROOT = Path(__file__).parents[2]
SUITES = sorted(ROOT.glob("suites/*.yaml"))


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = spec_from_file_location("docs_build", ROOT / "docs/build.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(build: ModuleType) -> dict[str, str]:
    made: dict[str, str] = build.pages()
    return made


def test_no_page_is_stale(pages: dict[str, str]) -> None:
    stale = [name for name, text in pages.items() if (ROOT / "docs" / name).read_text(encoding="utf-8") != text]
    assert stale == [], "`make docs` writes them anew"


def test_the_tree_in_contributing_is_that_of_the_code(build: ModuleType) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert build.contributing() == text, "`make docs` writes it anew"
    children = {path.name for path in (ROOT / "harness").iterdir() if (path / "__init__.py").exists()}
    assert {f"{name}/" for name in children} <= set(re.findall(r"^\| `(\w+/)` \|", build.tree(), re.MULTILINE))


def test_every_generated_page_is_made(build: ModuleType, pages: dict[str, str]) -> None:
    """A page whose subject is gone does not stay behind."""
    marked = [
        path.name for path in (ROOT / "docs").glob("*.md") if path.read_text(encoding="utf-8").startswith(build.NOTE)
    ]
    assert set(marked) == {name for name in pages if name.endswith(".md")}


def test_a_stale_page_fails_the_check(tmp_path: Path, build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    monkeypatch.setattr(build, "pages", lambda: {"a.md": "new\n", "b.md": "b\n"})
    (tmp_path / "a.md").write_text("old\n", encoding="utf-8")
    (tmp_path / "b.md").write_text("b\n", encoding="utf-8")
    assert build.stale() == ["a.md"]


def test_pages_hold_no_machine(pages: dict[str, str]) -> None:
    for name, text in pages.items():
        for sign in (" at 0x", str(ROOT), "/tmp/", "/home/"):
            assert sign not in text, f"{name} holds {sign!r}"


def test_pages_name_every_offer(build: ModuleType, pages: dict[str, str]) -> None:
    registry = build.own_plugins()
    for page, kinds in {
        "workloads.md": ("workload", "scorer"),
        "meters.md": ("meter",),
        "backends.md": ("backend", "executor"),
        "commands.md": ("command",),
    }.items():
        for kind in kinds:
            for name, offer in registry.offers(kind).items():
                assert name in pages[page]
                assert sentence(offer.spec.summary) in pages[page]


def test_the_index_links_every_page(pages: dict[str, str]) -> None:
    docs = ROOT / "docs"
    written = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")} | pages.keys()
    linked = set(re.findall(r"\]\(([^)]+)\)", pages["README.md"]))
    assert linked == written - {"README.md", "index.md"}


def test_commands_are_shown_with_sub_commands_and_defaults(pages: dict[str, str]) -> None:
    assert "## `harness baseline save`" in pages["commands.md"]
    assert "| `--store` | `reports` |" in pages["commands.md"]
    assert "--install-completion" not in pages["commands.md"]


def test_a_family_of_workloads_has_one_table_of_columns(pages: dict[str, str]) -> None:
    assert pages["workloads.md"].count("| `log_z_mean` |") == 1


@pytest.fixture(scope="module")
def schema(pages: dict[str, str]) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(pages["suite.schema.json"])
    return made


@pytest.fixture(scope="module")
def checker(schema: dict[str, Any]) -> Any:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_schema_states_draft_and_identity_and_stays_small(pages: dict[str, str], schema: dict[str, Any]) -> None:
    assert (schema["$schema"], schema["$id"]) == (DRAFT, IDENTITY)
    assert len(pages["suite.schema.json"].encode()) < 230_000  # of which a workload is 4 to 8 kB


def test_suites_keep_to_the_schema_that_they_name(checker: Any) -> None:
    for suite in SUITES:
        text = suite.read_text(encoding="utf-8")
        assert text.startswith("# yaml-language-server: $schema=../docs/suite.schema.json\n"), suite.name
        faults = [fault.message for fault in checker.iter_errors(parse(text, suite.name, {}).data)]
        assert faults == [], suite.name


def test_the_schema_refuses_an_unknown_key(checker: Any) -> None:
    good = {"suite": "a", "backend": "host", "cases": [{"workload": "spin", "options": {"iterations": 5}}]}
    assert checker.is_valid(good)
    assert checker.is_valid({**good, "backend": {"name": "host", "threads": 2}})
    assert not checker.is_valid({**good, "trails": 3})
    assert not checker.is_valid({**good, "backend": {"name": "host", "thread": 2}})
    assert not checker.is_valid({**good, "cases": [{"workload": "spin", "options": {"iteration": 5}}]})
    assert not checker.is_valid({**good, "cases": [{"workload": "spin", "matrix": {"iterations": [0]}}]})


def test_the_script_checks_from_anywhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs/build.py"), "--check"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
