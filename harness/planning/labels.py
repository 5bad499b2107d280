"""Labels that tell the points of a suite apart: two cases of one workload differ in what their options say."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.planning.point import Point, canonical


def shown(value: object) -> str:
    """A value in a label."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def told_apart(points: Sequence[Point]) -> list[Point]:
    """The points, those of one suite with one label followed by the options that differ, or else by their case."""
    alike: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for point in points:
        alike[point.suite, point.label].append(point)
    labels = {
        point.id: label
        for group in alike.values()
        if len(group) > 1
        for point, label in zip(group, _apart(group), strict=True)
    }
    return [replace(point, label=labels.get(point.id, point.label)) for point in points]


def _apart(group: Sequence[Point]) -> list[str]:
    keys = [key for key in dict.fromkeys(key for point in group for key in point.options) if _differ(group, key)]
    labels = [f"{point.label} · {_options(point.options, keys)}" if keys else point.label for point in group]
    seen = Counter(labels)
    return [
        f"{label} · case {point.case + 1}" if seen[label] > 1 else label
        for point, label in zip(group, labels, strict=True)
    ]


def _differ(group: Sequence[Point], key: str) -> bool:
    return len({canonical(point.options.get(key)) for point in group}) > 1


def _options(options: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(f"{key}={shown(options[key])}" for key in keys if options.get(key) is not None)
