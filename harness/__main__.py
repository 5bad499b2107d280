"""`python -m harness` is the `harness` command."""

from __future__ import annotations

import sys
import traceback
from typing import Final

_INTERNAL: Final = 70
"""`ExitCode.INTERNAL`, where `harness.errors` itself may not import."""
_USAGE: Final = 2
"""`ExitCode.USAGE`, likewise."""
_WINDOWS: Final = (
    "The harness runs on Linux and macOS; on Windows use it within WSL, the Windows Subsystem for Linux: wsl --install"
)


def main() -> None:
    """The console script; an installation that does not import ends with 70, where Python would say 1: regressed."""
    if sys.platform == "win32":
        sys.stderr.write(f"{_WINDOWS}\n")
        sys.exit(_USAGE)
    try:
        from harness.cli import main as command
    except Exception:  # noqa: BLE001 - whatever is missing or broken
        traceback.print_exc()
        sys.exit(_INTERNAL)
    command()


if __name__ == "__main__":
    main()
