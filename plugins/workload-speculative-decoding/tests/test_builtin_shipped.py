"""The models that come with the package: whole, checked when they are loaded, and what the recipe gives."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from harness_speculative_decoding.training import builder, shipped
from harness_speculative_decoding.training.recipes import RECIPES, TINY_SFT, versions

from harness.errors import MeasurementError

NAMES = ("small", "tiny")


def silent(_text: str, _done: float | None) -> None:
    """Progress that nobody watches."""


def recorded(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((shipped.FOLDER / name / shipped.FACTS).read_text(encoding="utf-8"))
    return found


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(shipped.FOLDER, tmp_path / "models")
    return tmp_path / "models"


def test_they_are_small_and_say_under_which_terms() -> None:
    files = [path for path in shipped.FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5_000_000
    assert {path.parent.name for path in files if path.name == "model.safetensors"} == set(NAMES)
    assert "Python Software Foundation License" in (shipped.FOLDER / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_recipe_seed_and_versions_are_recorded(name: str) -> None:
    facts = recorded(name)
    assert facts["recipe"] == asdict(RECIPES[name])
    assert facts["recipe"]["seed"] == 1
    assert facts["versions"].keys() == versions().keys()
    assert facts["steps"] == facts["recipe"]["steps"]
    assert not facts["time_cap_struck"]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= facts[shipped.FILES].keys()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_trained_or_read_for_them(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder.prose, "load", lambda _cache: pytest.fail("the corpus was read"))
    assert builder.build(RECIPES[name], tmp_path, silent) == shipped.FOLDER / name
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_shipped_is_trained() -> None:
    assert shipped.shipped("medium") is None


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_damaged_file_is_refused(copy: Path, file: str) -> None:
    damaged = copy / "tiny" / file
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(MeasurementError, match=r"builtin:tiny that comes with the package is damaged: sha256") as said:
        shipped.shipped("tiny", copy)
    assert str(damaged) in str(said.value)
    assert "install joule-harness-workload-speculative-decoding again" in str(said.value)
    assert shipped.shipped("small", copy) == copy / "small"


@pytest.mark.parametrize("file", ["model.safetensors", "recipe.json"])
def test_a_missing_file_is_refused(copy: Path, file: str) -> None:
    (copy / "tiny" / file).unlink()
    with pytest.raises(MeasurementError, match="is damaged"):
        shipped.shipped("tiny", copy)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files_sha256": 3}'])
def test_a_record_that_says_nothing_is_refused(copy: Path, text: str) -> None:
    (copy / "tiny" / shipped.FACTS).write_text(text, encoding="utf-8")
    with pytest.raises(MeasurementError, match="is damaged"):
        shipped.shipped("tiny", copy)


def test_a_model_that_is_built_on_a_shipped_one_is_named_after_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    with_it = builder._key(TINY_SFT, "corpus")
    monkeypatch.setattr(builder, "shipped", lambda _name: None)
    assert builder._key(TINY_SFT, "corpus") == TINY_SFT.key("corpus") != with_it


def test_it_loads_and_writes_words() -> None:
    import torch
    from harness_speculative_decoding.loading import load_causal_lm

    loaded = load_causal_lm("builtin:tiny", torch.device("cpu"), "float32", Path("/nowhere"), silent)
    assert loaded.facts["shipped"] is True
    ids = torch.tensor([loaded.tokenizer("The function returns")["input_ids"]])
    written = loaded.model.generate(ids, max_new_tokens=16, do_sample=False)
    text = loaded.tokenizer.decode(written[0], skip_special_tokens=True)
    assert text.startswith("The function returns")
    assert len(text.split()) > 5


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_gives_it_again(name: str, tmp_path: Path) -> None:
    """The same weights where all that decides them is the same; elsewhere a model that is as good."""
    facts = recorded(name)
    folder = builder.build(RECIPES[name], tmp_path, silent, anew=True)
    again = json.loads((folder / shipped.FACTS).read_text(encoding="utf-8"))
    assert again["steps"] == facts["steps"]
    assert again["perplexity"] == pytest.approx(facts["perplexity"], rel=0.1)
    decides = ("recipe", "versions", "processor", "threads")
    same = all(again[key] == facts[key] for key in decides) and again["corpus"]["sha256"] == facts["corpus"]["sha256"]
    if same:
        assert again[shipped.FILES] == facts[shipped.FILES]
