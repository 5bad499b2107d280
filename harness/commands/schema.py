"""`harness schema`: what is heavy is imported when it is called."""

from __future__ import annotations

import json

from harness.commands.console import echo, loaded_registry


def schema() -> None:
    """Prints the JSON Schema of suites, the installed plugins' options included."""
    from harness.planning.json_schema import json_schema

    echo(json.dumps(json_schema(loaded_registry()), indent=1))
