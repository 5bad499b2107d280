"""Carbon-aware disaggregated serving, after the published abstracts of GreenLLM with our own carbon model.

Importing this module imports neither torch nor numpy.
"""

from __future__ import annotations
