"""What pages under `docs/` and READMEs show can be typed: commands parse, suites plan, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
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


def parse(words: list[str], command: click.Command) -> None:
    """Has click read the words as the command line would, and calls nothing."""
    context = command.make_context(command.name or "harness", list(words), resilient_parsing=False)
    if isinstance(command, click.Group):
        rest = [*context.protected_args, *context.args]
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None, name
        parse(rest, found)


@pytest.mark.parametrize("page", sorted(name for name, text in PAGES.items() if typed(text)))
def test_every_command_on_a_page_parses(page: str) -> None:
    command = typer.main.get_command(app)
    wrong = []
    for words in typed(PAGES[page]):
        try:
            parse(words, command)
        except click.exceptions.Exit:
            pass  # --help and --version
        except click.ClickException as error:
            wrong.append(f"harness {' '.join(words)}: {error.format_message()}")
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
