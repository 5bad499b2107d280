"""The harness and its plugins in one parcel, for nodes that have other versions or none."""

from __future__ import annotations

import hashlib
import json
from typing import Final

from harness_executor_ray import manifest

_METADATA: Final = ("METADATA", "entry_points.txt")


def pack() -> tuple[str, bytes]:
    """Digest and bytes of every distribution that offers plugins, for `keeper.unpack` to make a PYTHONPATH of.

    One line of JSON with names and sizes, then the contents, one after another: equal sources make equal parcels.
    What was installed for editing is packed from where it lies. Third-party requirements are not packed.
    """
    files: dict[str, bytes] = {}
    for name, each in manifest.offering().items():
        for module in manifest.modules(each):
            files.update({inside: path.read_bytes() for inside, path in manifest.sources(module)})
        folder = f"{name.replace('-', '_')}-{each.version}.dist-info"
        texts = {file: each.read_text(file) for file in _METADATA}
        files.update({f"{folder}/{file}": text.encode() for file, text in texts.items() if text})
    listed = sorted(files.items())
    head = json.dumps([[inside, len(content)] for inside, content in listed]).encode()
    packed = b"\n".join([head, b"".join(content for _, content in listed)])
    return hashlib.sha256(packed).hexdigest()[:16], packed
