"""What a workload finds wrong with its own options while planning, and where their paths lead."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import PluginError
from harness.suite_paths import SUITE_FOLDER, OptionFault
from harness.workload import WorkloadSpec


def checked(
    spec: WorkloadSpec, plugin: str, raw: Mapping[str, Any], suite_file: str, *, here: bool
) -> tuple[dict[str, Any], list[OptionFault]]:
    """Valid options with the paths in them made absolute, and what the workload's `check` finds wrong.

    Args:
        spec: of the workload; one with a `check`.
        plugin: that offers it.
        raw: the options as the suite writes them; their model takes them.
        suite_file: whose folder relative paths start from.
        here: whether the work is done on this machine: the files of others cannot be looked for.

    Raises:
        PluginError: the check itself failed.
    """
    assert spec.check is not None
    try:
        folder = Path(suite_file).absolute().parent
        options = spec.options.model_validate(dict(raw), context={SUITE_FOLDER: folder})
        said = list(spec.check(options, folder)) if here else []
        found = [OptionFault("", each) if isinstance(each, str) else each for each in said]
        return dict(options.model_dump(mode="json", by_alias=True)), found
    except Exception as error:
        message = f"the check of workload {spec.name!r} failed: {type(error).__name__}: {error}"
        raise PluginError(message, where=plugin) from error
