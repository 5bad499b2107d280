"""Builds the built-in models once: `python -m harness_speculative_decoding.training.builder small tiny`."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from harness.errors import HarnessError, UsageError, did_you_mean
from harness_speculative_decoding.data import corpus as prose
from harness_speculative_decoding.data import instructions, town
from harness_speculative_decoding.formats.gguf_folder import SMOLLM2_SHA256, smollm2
from harness_speculative_decoding.training.instruct_recipes import (
    BUILD,
    ConvertedRecipe,
    CourteousRecipe,
    DistilledRecipe,
)
from harness_speculative_decoding.training.recipes import (
    PREFIX,
    RECIPES,
    Aligned,
    AlignmentRecipe,
    AnyRecipe,
    MannersRecipe,
    Pretrained,
    Recipe,
    TownRecipe,
    versions,
)
from harness_speculative_decoding.training.shipped import FACTS, FILES, FOLDER, digests, facts_of, shipped

WAIT_S = 5.0
"""How often a process that waits for another one's build says so."""

Progress = Callable[[str, float | None], None]


def recipe_named(name: str) -> AnyRecipe:
    """The recipe of `builtin:NAME`; raises UsageError."""
    short = name.removeprefix(PREFIX)
    if short not in RECIPES:
        raise UsageError(
            f"there is no built-in model {PREFIX}{short}",
            accepted=", ".join(f"{PREFIX}{known}" for known in RECIPES),
            hint=did_you_mean(short, RECIPES),
        )
    return RECIPES[short]


def build(recipe: AnyRecipe, cache: Path, progress: Progress, *, anew: bool = False) -> Path:
    """The folder of a built-in model: the one that comes with the package, else trained once into the cache.

    The folder is what `save_pretrained` writes, and `recipe.json`: recipe, corpus, versions, held-out perplexity and
    the files' digests. It appears whole or not at all, and one process builds at a time. A training that was killed
    goes on from its last checkpoint, and ends with the weights that it would have had.

    Args:
        recipe: what to build.
        cache: folder shared between runs.
        progress: receives text and the share that is done.
        anew: train it even where it comes with the package; what it is built on may still come with it.

    Raises:
        MeasurementError: the model that comes with the package is damaged.
    """
    if isinstance(recipe, ConvertedRecipe):
        return smollm2(cache, progress)
    if not anew and (ready := shipped(recipe.name)) is not None:
        return ready
    models = cache / "models"
    models.mkdir(parents=True, exist_ok=True)
    corpus = _learnt_from(recipe, models)
    folder = models / f"{recipe.name}-{_key(recipe, corpus.digest)}"
    if facts_of(folder) is not None:
        return folder
    lock = FileLock(f"{folder}.lock")
    while True:
        try:
            with lock.acquire(timeout=WAIT_S):
                if facts_of(folder) is None:
                    _build_into(folder, recipe, corpus, progress)
                return folder
        except Timeout:
            progress(f"waiting for another process that builds {PREFIX}{recipe.name}", None)


def unbuilt(recipe: AnyRecipe, cache: Path) -> Iterator[AnyRecipe]:
    """What `build` would train now, in its order: the model and those it is built on, less what there is.

    Args:
        recipe: of the model.
        cache: folder shared between runs.
    """
    if isinstance(recipe, ConvertedRecipe) or (FOLDER / recipe.name).is_dir():
        return
    models = cache / "models"
    if isinstance(recipe, DistilledRecipe | CourteousRecipe):
        corpus: prose.Corpus | None = _instructions()
    else:
        corpus = _town() if isinstance(recipe, TownRecipe | MannersRecipe) else prose.kept(models)
    if corpus is None or not (models / f"{recipe.name}-{_key(recipe, corpus.digest)}" / FACTS).is_file():
        if isinstance(recipe, AlignmentRecipe | MannersRecipe | DistilledRecipe | CourteousRecipe):
            yield from unbuilt(recipe.base, cache)
        yield recipe


def _learnt_from(recipe: AnyRecipe, models: Path) -> prose.Corpus:
    """The text that a recipe's models learn from: the town's, or the prose that is kept in the folder of models."""
    if isinstance(recipe, DistilledRecipe | CourteousRecipe):
        return _instructions()
    return _town() if isinstance(recipe, TownRecipe | MannersRecipe) else prose.load(models)


def _instructions() -> prose.Corpus:
    asked = tuple(turns[-1]["content"] for turns in instructions.conversations(instructions.LEARNT))
    return prose.Corpus(asked, (), instructions.digest())


def _town() -> prose.Corpus:
    return prose.Corpus(tuple(asked + said for asked, said, _ in town.preferences(1)), (), town.digest())


def _key(recipe: AnyRecipe, corpus_digest: str) -> str:
    """What names the finished model: its recipe's key, and the digests of what it is built on where that is shipped."""
    if isinstance(recipe, ConvertedRecipe | DistilledRecipe | CourteousRecipe):
        content = [BUILD, asdict(recipe), corpus_digest, SMOLLM2_SHA256, versions()]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    own = recipe.key(corpus_digest)
    first: Pretrained | Aligned = recipe
    while isinstance(first, Aligned):
        first = first.base
    base = shipped(first.name) if first is not recipe else None
    return own if base is None else hashlib.sha256(json.dumps([own, digests(base)]).encode()).hexdigest()[:16]


def timed(progress: Progress) -> Progress:
    """Adds how long the rest takes, by what was done since the first share was told."""
    begun: list[tuple[float, float]] = []

    def tell(text: str, done: float | None) -> None:
        if done is not None:
            now = time.monotonic()
            if not begun or done < begun[-1][1]:
                begun[:] = [(now, done)]
            since, from_share = begun[0]
            begun[1:] = [(now, done)]
            if from_share < done < 1.0:
                text += f", about {_left((now - since) / (done - from_share) * (1.0 - done))} left"
        progress(text, done)

    return tell


def _left(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _build_into(folder: Path, recipe: AnyRecipe, corpus: prose.Corpus, progress: Progress) -> None:
    from harness_speculative_decoding.training.aligned import align
    from harness_speculative_decoding.training.pretraining import processor, train
    from harness_speculative_decoding.training.townsfolk import align_manners, learn

    kept = folder.with_name(f"{folder.name}-training")
    if isinstance(recipe, AlignmentRecipe):
        base = build(recipe.base, folder.parent.parent, progress)
        capped = bool((facts_of(base) or {}).get("time_cap_struck"))
        trained = align(recipe, base, corpus, timed(progress), base_capped=capped, checkpoints=kept)
    elif isinstance(recipe, MannersRecipe):
        base = build(recipe.base, folder.parent.parent, progress)
        trained = align_manners(recipe, base, timed(progress), checkpoints=kept)
    elif isinstance(recipe, DistilledRecipe | CourteousRecipe):
        from harness_speculative_decoding.training.instructed import make

        base = build(recipe.base, folder.parent.parent, progress)
        trained = make(recipe, base, timed(progress), checkpoints=kept)
    elif isinstance(recipe, TownRecipe):
        trained = learn(recipe, timed(progress), checkpoints=kept)
    elif isinstance(recipe, Recipe):
        trained = train(recipe, corpus, timed(progress), checkpoints=kept)
    else:
        raise TypeError(f"{recipe.name} is not trained")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        target = Path(temporary, "model")
        trained.model.save_pretrained(target)
        trained.tokenizer.save_pretrained(target)
        facts: Mapping[str, object] = {
            "recipe": asdict(recipe),
            "corpus": {
                "sha256": corpus.digest,
                "characters": corpus.characters,
                "python": sys.version.split()[0],
                "train_tokens": trained.train_tokens,
                "held_out_tokens": trained.held_out_tokens,
            },
            "versions": versions(),
            "processor": processor(),
            "parameters": trained.parameters,
            "perplexity": trained.perplexity,
            "steps": trained.steps,
            "time_cap_struck": trained.time_cap_struck,
            "threads": trained.threads,
            "duration_s": trained.duration_s,
            **trained.extra,
            FILES: digests(target),
        }
        (target / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one
        target.rename(folder)
    shutil.rmtree(kept, ignore_errors=True)


def _said_of_distilling(facts: Mapping[str, Any]) -> str:
    """A line on a distilled draft's acceptance and on what it took; empty for another model."""
    found = facts.get("distillation")
    if not found:
        return ""
    share = found["acceptance"]
    return (
        f"  acceptance {share['mean']:.2f} ± {share['standard_error']:.2f} at temperature {found['temperature']}, from "
        f"{found['answers']} answers of {found['answer_tokens']:,} tokens, in {found['cpu_s']:.0f} s of processor "
        "time\n"
    )


def _told(text: str, done: float | None) -> None:
    """On standard error, as a line that the next one overwrites on a terminal."""
    alone = sys.stderr.isatty() and done is not None and done < 1.0
    sys.stderr.write(f"\r\x1b[K{text}" if alone else f"{text}\n")
    sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds the named models and prints their perplexities; returns the exit code."""
    parser = argparse.ArgumentParser(prog="harness_speculative_decoding.training.builder", description=main.__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help=", ".join(RECIPES))
    parser.add_argument("--cache", type=Path, default=user_cache_path("joule-harness"), help="default: %(default)s")
    parser.add_argument("--anew", action="store_true", help="train also what comes with the package")
    asked = parser.parse_args(arguments)
    try:
        for recipe in [recipe_named(name) for name in asked.names]:
            folder = build(recipe, asked.cache, _told, anew=asked.anew)
            facts = facts_of(folder)
            if facts is None:  # a folder that was made of another format, and nothing was trained
                sys.stdout.write(f"{PREFIX}{recipe.name}\n  {folder}\n")
                continue
            capped = ", ended by the cap on processor time" if facts["time_cap_struck"] else ""
            sys.stdout.write(
                f"{PREFIX}{recipe.name}: {facts['parameters']:,} parameters, held-out perplexity "
                f"{facts['perplexity']:.1f} per token, {facts['steps']} steps in {facts['duration_s']:.0f} s{capped}\n"
                f"  {folder}\n{_said_of_distilling(facts)}"
            )
    except HarnessError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
