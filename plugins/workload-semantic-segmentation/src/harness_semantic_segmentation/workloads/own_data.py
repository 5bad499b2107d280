"""The option `data` where it describes a data set of the user's own; no framework is imported here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from harness.options import Options, Share

Channel = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Channel, Channel, Channel]
LEAST_CLASSES, MOST_CLASSES = 2, 255


class OwnData(Options):
    """A data set of the user's own: images by a pattern, label maps by a template, and what a map's pixels mean.

    Attributes:
        images: pattern of the images that are trained on, relative to `root`: `train/*.jpg`; `**` stands for folders.
        masks: template of an image's label map, relative to `root`: `masks/{stem}.png`, where `{stem}` is the image's
            name without suffix, `{name}` with it, and `{parent}` the folders between `root` and the image.
        validation: pattern of the images that are judged; empty holds every fifth image out, which is then never
            trained on.
        classes: names of the classes; their order gives the class numbers, from 0.
        palette: colour of each class, red, green and blue from 0 to 255, for maps that hold colours; without it maps
            hold numbers.
        void_colours: colours that are ignored, beside those of `palette`.
        values: name of a class -> its number in a map, or numbers, where that is not the class number:
            `{ground: 0, crack: 255}`.
        ignore: numbers in a map that are ignored; one that `values` names is not.
        reduce_zero_label: 0 in a map is ignored, and the first class is 1.
        unknown_at_most: share of a map's pixels, from 0 to 1, that may have a colour or number of no class; they are
            ignored. With more of them the map is refused.
    """

    images: str
    masks: str
    validation: str = ""
    classes: Annotated[tuple[str, ...], Field(min_length=LEAST_CLASSES, max_length=MOST_CLASSES)]
    palette: tuple[Colour, ...] = ()
    void_colours: tuple[Colour, ...] = ()
    values: dict[str, int | tuple[int, ...]] = Field(default_factory=dict)
    ignore: tuple[int, ...] | int = 255
    reduce_zero_label: bool = False
    unknown_at_most: Share = 0.0

    @model_validator(mode="after")
    def _agrees(self) -> OwnData:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("two classes have one name; accepted: each name once")
        if self.palette and len(self.palette) != len(self.classes):
            raise ValueError(f"{len(self.palette)} colours; accepted: one for each of {len(self.classes)} classes")
        if len({*self.palette, *self.void_colours}) < len(self.palette) + len(self.void_colours):
            raise ValueError("a colour stands twice in palette and void_colours; accepted: each colour once")
        unknown = [name for name in self.values if name not in self.classes]
        if unknown:
            raise ValueError(f"values name the class {unknown[0]!r}; accepted: {', '.join(self.classes)}")
        if len(self.stored) < sum(1 if isinstance(each, int) else len(each) for each in self.values.values()):
            raise ValueError("values name a number for two classes; accepted: each number once")
        if self.values and (self.palette or self.reduce_zero_label):
            raise ValueError("values beside palette or reduce_zero_label; accepted: one way to read a map")
        if "{stem}" not in self.masks and "{name}" not in self.masks:
            raise ValueError(
                f"masks {self.masks!r} names one file for all images; accepted: {{stem}} or {{name}} in it"
            )
        return self

    @property
    def ignored(self) -> tuple[int, ...]:
        """Numbers in a map that are ignored."""
        named = (self.ignore,) if isinstance(self.ignore, int) else self.ignore
        return tuple(number for number in named if number not in self.stored)

    @property
    def stored(self) -> dict[int, int]:
        """Number in a map -> class number, by `values`."""
        return {
            number: self.classes.index(name)
            for name, named in self.values.items()
            for number in ((named,) if isinstance(named, int) else named)
        }
