"""Asks a server which version of which engine it is, as the engines answer it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from harness_disaggregated_serving.endpoint.client import whole_body

ASKED: Final = (
    ("/version", "version", "vLLM"),
    ("/get_server_info", "version", "SGLang"),
    ("/server_info", "version", "SGLang"),
    ("/props", "build_info", "llama.cpp"),
)
"""Path, key of the answer, and whose they are; TensorRT-LLM answers as vLLM does."""
TIMEOUT_S: Final = 5.0
LARGEST_BYTES: Final = 4 << 20


async def version_of(session: aiohttp.ClientSession, url: str) -> str:
    """What the server calls its version; empty where it does not say it."""
    parts = urlsplit(url)
    for path, key, _ in ASKED:
        found = await _json(session, f"{parts.scheme}://{parts.netloc}{path}")
        value = found.get(key)
        if isinstance(value, str) and value:
            return value[:200]
    return ""


async def _json(session: aiohttp.ClientSession, address: str) -> Mapping[str, Any]:
    try:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with session.get(address, timeout=timeout, allow_redirects=False) as response:
            if response.status != 200:
                return {}
            found = json.loads(await whole_body(response, LARGEST_BYTES) or b"")
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
