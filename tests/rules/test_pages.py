"""What pages under `docs/` and READMEs show can be typed: commands parse, suites plan, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from harness.cli import app
from harness.discovery.registry import load_plugins
from harness.planning.planner import expand
from harness.planning.suite import loads

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("plugins/*/README.md")]
}
SHELL = re.compile(r"^```(?:sh|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
YAML = re.compile(r"^```ya?ml[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def typed(text: str) -> list[list[str]]:
    """The words after `harness` of every line of a page that calls it."""
    lines = [line for block in SHELL.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in lines if "$(" not in line and "$INDEX" not in line]
    return [each[1:] for each in words if each and each[0].rpartition("/")[2] == "harness"]


def parse(words: list[str], command: Any) -> None:
    """Has the command line's own parser read the words, and calls nothing; typer brings its own copy of click."""
    context = command.make_context(command.name or "harness", list(words))
    if hasattr(command, "resolve_command"):
        name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None, name
        parse(rest, found)


def refusal(words: list[str]) -> str:
    """What the parser says against the words; empty where it takes them."""
    try:
        parse(words, typer.main.get_command(app))
    except typer.Exit:  # of --help and --version
        return ""
    except Exception as error:
        said = getattr(error, "format_message", None)
        if said is None:
            raise
        return str(said())
    return ""


def test_the_parser_refuses_what_is_misspelt() -> None:
    assert refusal(["store", "push", "--store", "reports"]) == ""
    assert "--stroe" in refusal(["store", "push", "--stroe", "reports"])
    assert "psuh" in refusal(["store", "psuh"])
    assert "measre" in refusal(["measre", "--", "sort"])


@pytest.mark.parametrize("page", sorted(name for name, text in PAGES.items() if typed(text)))
def test_every_command_on_a_page_parses(page: str) -> None:
    wrong = [f"harness {' '.join(words)}: {said}" for words in typed(PAGES[page]) if (said := refusal(words))]
    assert wrong == []


def test_every_suite_on_a_page_plans() -> None:
    """Each is read, and its options are what the plugins take; no machine is asked."""
    registry = load_plugins()
    suites = [(name, text) for name, page in PAGES.items() for text in YAML.findall(page) if text.startswith("suite:")]
    assert len(suites) > 15
    suites = [(name, text.replace(" lamp]", " example_lamp]")) for name, text in suites]  # of the first plugin
    assert [name for name, text in suites if not expand([loads(text, name)], registry).points] == []


def test_every_link_of_a_page_leads_somewhere() -> None:
    broken = [
        f"{name}: {link}"
        for name, text in PAGES.items()
        for link in LINK.findall(text)
        if not link.startswith(("http://", "https://", "mailto:")) and not (ROOT / name).parent.joinpath(link).exists()
    ]
    assert broken == []


def test_the_site_has_every_page() -> None:
    """A page that stands in no menu is found by nobody."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r": ([\w/-]+\.md)$", text, re.MULTILINE))
    assert named == {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} - {"README.md"}
    assert yaml.safe_load(text)["strict"] is True
