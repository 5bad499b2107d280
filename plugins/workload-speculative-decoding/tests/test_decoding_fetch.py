"""What decoding fetches before devices are locked: built-in models and those of the hub, never the others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness_speculative_decoding import harness_workloads
from harness_speculative_decoding.options import BestOfNOptions, SpeculationOptions, VanillaOptions
from harness_speculative_decoding.training import builder
from harness_speculative_decoding.training.builder import unbuilt
from harness_speculative_decoding.training.recipes import GUEST_SFT, GUESTS, TINY_ALIGNED
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import UsageError
from harness.workload import FetchContext


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global BestOfN, Speculation, Vanilla, decoding, loading
    from harness_speculative_decoding import loading
    from harness_speculative_decoding.workloads import decoding
    from harness_speculative_decoding.workloads.cooperation import BestOfN, Speculation
    from harness_speculative_decoding.workloads.decoding import Vanilla


def silent(_text: str, _done: float | None) -> None:
    """Progress that nobody watches."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Models that were built or downloaded."""
    found: list[str] = []
    monkeypatch.setattr(loading, "build", lambda recipe, _cache, _progress: found.append(f"builtin:{recipe.name}"))
    monkeypatch.setattr(loading, "list_repo_files", lambda _name: ["model.safetensors", "pytorch_model.bin"])
    monkeypatch.setattr(loading, "snapshot_download", lambda name, **_: found.append(name))
    monkeypatch.setattr(decoding.corpus, "load", lambda _cache: found.append("prose"))
    return found


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda: Vanilla(VanillaOptions(target="a/b")), ["a/b", "prose"]),
        (
            lambda: Speculation(SpeculationOptions(target="a/b")),
            ["a/b", "builtin:tiny-aligned", "builtin:tiny-sft", "prose"],
        ),
        (lambda: BestOfN(BestOfNOptions(reward="c/d")), ["builtin:small", "c/d", "prose"]),
        (lambda: BestOfN(BestOfNOptions(reward="prose")), ["builtin:small", "prose"]),
    ],
)
def test_every_model_that_the_options_name_is_fetched(
    made: Any, expected: list[str], asked: list[str], tmp_path: Path
) -> None:
    made().fetch(FetchContext(cache=tmp_path, progress=silent, log=print))
    assert asked == expected


def test_files_of_other_formats_are_not_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ignored: list[list[str]] = []
    monkeypatch.setattr(loading, "snapshot_download", lambda _name, ignore_patterns: ignored.append(ignore_patterns))
    for files in (["model.safetensors", "pytorch_model.bin"], ["pytorch_model.bin"]):
        monkeypatch.setattr(loading, "list_repo_files", lambda _name, files=files: files)
        loading.fetch_causal_lm("a/b", tmp_path, silent)
    assert ["*.bin" in patterns for patterns in ignored] == [True, False]


def test_a_hub_that_does_not_answer_and_a_wrong_name_are_left_to_loading(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(_name: str) -> list[str]:
        raise OSError("offline")

    monkeypatch.setattr(loading, "list_repo_files", offline)
    loading.fetch_causal_lm("a/b", tmp_path, silent)
    loading.fetch_causal_lm("./no such folder", tmp_path, silent)
    loading.fetch_causal_lm(str(tmp_path), tmp_path, silent)
    with pytest.raises(UsageError, match="no built-in model"):
        loading.fetch_causal_lm("builtin:nothing", tmp_path, silent)


def test_the_options_that_decide_it_are_options_and_others_do_not() -> None:
    for spec in harness_workloads():
        own = set(spec.fetched_by) & set(spec.options.model_fields)
        assert own
        assert "temperature" not in own
        assert "draft_tokens" not in own


def test_what_has_yet_to_be_trained_is_known_without_training(tmp_path: Path) -> None:
    spec = next(each for each in harness_workloads() if each.name == "sss")
    assert spec.to_fetch is not None

    def wanted(target: str) -> list[str]:
        given = {"target": target, "draft_sft": "builtin:guest-sft", "draft_aligned": "builtin:guest-aligned-2"}
        assert spec.to_fetch is not None
        return [each.what for each in spec.to_fetch(spec.options.model_validate(given), tmp_path)]

    trained = ["builtin:town is trained", "builtin:guest-sft is trained", "builtin:guest-aligned-2 is trained"]
    assert list(dict.fromkeys(wanted("builtin:town"))) == trained
    assert "builtin:small is trained" not in wanted("builtin:small"), "it comes with the package"
    assert "a/b" not in "".join(wanted("a/b")), "what a hub has to give is not known here"

    short = replace(GUEST_SFT, lessons=(replace(GUEST_SFT.lessons[0], times=1, epochs=0.5),))
    after = replace(GUESTS[0], base=short)
    assert [each.name for each in unbuilt(after, tmp_path)] == ["guest-sft", "guest-aligned-1"]
    builder.build(short, tmp_path, silent)
    assert [each.name for each in unbuilt(after, tmp_path)] == ["guest-aligned-1"]
    assert list(unbuilt(short, tmp_path)) == []
    assert [each.name for each in unbuilt(TINY_ALIGNED, tmp_path)] == ["tiny-sft", "tiny-aligned"]


def test_how_long_the_drafts_of_smollm2_take_to_train_is_told(tmp_path: Path) -> None:
    spec = next(each for each in harness_workloads() if each.name == "sss")
    drafts = {"draft_sft": "builtin:smollm2-draft", "draft_aligned": "builtin:smollm2-courteous"}
    given = spec.options.model_validate({"target": "builtin:smollm2", **drafts})
    assert spec.to_fetch is not None
    seconds = {each.what: each.seconds for each in spec.to_fetch(given, tmp_path)}
    assert set(seconds) == {f"{name} is trained" for name in drafts.values()}
    assert all(each is not None and each > 30 for each in seconds.values())


def test_the_plan_of_the_demonstration_says_what_is_trained_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    suite = str(Path(__file__).parents[3] / "suites" / "sss.yaml")
    told = CliRunner().invoke(app, ["plan", suite], catch_exceptions=False, env={"COLUMNS": "200"}).output
    (first,) = [line for line in told.splitlines() if line.startswith("first, and not measured: ")]
    assert first.count("builtin:town is trained (") == 1, "however many points need it"
    assert first.endswith(" min on an idle machine")
    wanted = json.loads(CliRunner().invoke(app, ["plan", suite, "--json"], catch_exceptions=False).stdout)["to_fetch"]
    assert [each["what"].split()[0] for each in wanted if each["seconds"] > 60] == ["builtin:town"]
