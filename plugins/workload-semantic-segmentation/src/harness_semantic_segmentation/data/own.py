"""Data sets of a user's own: images found by a pattern, each with the label map that a template names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from harness.errors import UsageError
from harness_semantic_segmentation.data.dataset import Bytes
from harness_semantic_segmentation.data.image_files import ImageFiles, Pair, existing, listed
from harness_semantic_segmentation.data.image_io import SUFFIXES

HELD_OUT: Final = 5
"""Without images of its own for validation, every fifth image is held out for it, and never trained on."""
LEAST: Final = 2


def matching(base: Path, pattern: str) -> list[Path]:
    """Images below a folder that match a pattern with `*` and `**`, in order; the case of a suffix does not matter.

    Raises:
        UsageError: none does, or the pattern leaves the folder.
    """
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise UsageError(f"the pattern {pattern!r} leaves the folder", where=str(base), accepted="a pattern below it")
    stem, dot, suffix = pattern.rpartition(".")
    loose = "".join(f"[{each.lower()}{each.upper()}]" if each.isalpha() else each for each in suffix)
    asked = stem + dot + loose if dot and "/" not in suffix and "]" not in suffix else pattern
    found = sorted(file for file in base.glob(asked) if file.is_file() and file.suffix.lower() in SUFFIXES)
    if not found:
        inside = listed(sorted(child.name for child in base.iterdir())) or "nothing"
        raise UsageError(f"no image matches {pattern!r}; the folder holds {inside}", where=str(base))
    return found


def partners(base: Path, images: Sequence[Path], template: str) -> list[Pair]:
    """Each image with its label map.

    Args:
        base: folder that the template is relative to.
        images: files below it.
        template: with `{stem}` (name without suffix), and `{parent}` (folders between `base` and the image) if wanted.

    Raises:
        UsageError: another placeholder, or images without a label map: how many, and the first ones.
    """
    pairs, alone = [], []
    for image in images:
        inside = image.relative_to(base)
        try:
            named = template.format(stem=image.stem, parent=inside.parent.as_posix(), name=image.name)
        except (KeyError, IndexError, ValueError, AttributeError):
            raise UsageError(
                f"the template {template!r} of label maps", accepted="{stem}, {parent} and {name} as placeholders"
            ) from None
        file = _either_case(base / named)
        if file is None:
            alone.append(f"{image} (no {named})")
        else:
            pairs.append(Pair(inside.with_suffix("").as_posix(), image, file))
    if alone:
        raise UsageError(
            f"{len(alone)} of {len(images)} images lack their label map: {listed(alone)}",
            where=str(base),
            accepted="every image with its label map",
        )
    return pairs


def _either_case(file: Path) -> Path | None:
    """The file, also where its suffix is written in another case."""
    spellings = (file, file.with_suffix(file.suffix.lower()), file.with_suffix(file.suffix.upper()))
    return next((each for each in spellings if each.is_file()), None)


def named_files(
    root: str | Path, split: str, *, images: str, masks: str, validation: str
) -> tuple[Path, list[Pair], list[Pair]]:
    """The folder, and the files of a split and of the other one; arguments and errors are those of `own_files`."""
    base = existing(Path(root).expanduser(), "the folder that `images` and `masks` are relative to")
    learned = matching(base, images)
    if validation:
        judged = matching(base, validation)
        both = sorted(set(learned) & set(judged))
        if both:
            raise UsageError(
                f"{len(both)} images are both trained on and judged: {listed([str(each) for each in both])}",
                where=str(base),
                accepted="patterns that share no image",
            )
    else:
        if len(learned) < LEAST:
            raise UsageError(f"{len(learned)} image", where=str(base), accepted=f"at least {LEAST}, one to be judged")
        judged = learned[:: min(HELD_OUT, len(learned))]
        held_out = set(judged)
        learned = [each for each in learned if each not in held_out]
    pairs = partners(base, learned if split == "train" else judged, masks)
    other = partners(base, judged if split == "train" else learned, masks)
    return base, pairs, other


def own_files(
    root: str | Path,
    split: str,
    *,
    images: str,
    masks: str,
    validation: str,
    classes: Sequence[str],
    read: Callable[[Path], Bytes],
    colours: Sequence[tuple[int, int, int]] = (),
) -> ImageFiles:
    """One split, `train` or `val`, of a data set of the user's own.

    Args:
        root: its folder.
        split: which one.
        images: pattern of the images that are trained on, such as `train/*.jpg`.
        masks: template of their label maps, such as `masks/{stem}.png`.
        validation: pattern of those that are judged; empty holds every fifth image out.
        classes: names.
        read: reads a label map.
        colours: of the classes.

    Raises:
        UsageError: too few images, an image in both splits, one without its label map, maps that no image names.
    """
    base, pairs, other = named_files(root, split, images=images, masks=masks, validation=validation)
    notes = _alone({pair.labels for pair in (*pairs, *other)}, split)
    return ImageFiles(f"own: {base.name}", split, classes, pairs, read, colours=colours, notes=notes)


def _alone(named: set[Path | None], split: str) -> list[str]:
    """Label maps beside those that are named, which belong to no image of either split."""
    folders = {each.parent for each in named if each is not None}
    alone = [
        str(file)
        for folder in sorted(folders)
        for file in sorted(folder.iterdir())
        if file not in named and file.suffix.lower() in {each.suffix.lower() for each in named if each is not None}
    ]
    return [f"{split}: {len(alone)} label maps belong to no image: {listed(alone)}"] if alone else []
