"""What runs measured, for people and for other tools, from their records alone."""

from __future__ import annotations

from harness.records.summary import RunReport, load
from harness.reporting.markdown import markdown
from harness.reporting.terminal import render_terminal

__all__ = ["RunReport", "load", "markdown", "render_terminal"]
