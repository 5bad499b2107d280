"""The harness and its plugins in one archive, for nodes that have other versions or none."""

from __future__ import annotations

import hashlib
import io
import zipfile
from typing import Final

from harness_executor_ray import manifest

_METADATA: Final = ("METADATA", "entry_points.txt")
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a ZIP archive knows: equal contents make equal archives."""


def pack() -> tuple[str, bytes]:
    """Digest and bytes of a ZIP archive of every distribution that offers plugins, to be unpacked into a PYTHONPATH.

    What was installed for editing is packed from where it lies. Third-party requirements are not packed.
    """
    files: dict[str, bytes] = {}
    for name, each in manifest.offering().items():
        for module in manifest.modules(each):
            files.update({inside: path.read_bytes() for inside, path in manifest.sources(module)})
        folder = f"{name.replace('-', '_')}-{each.version}.dist-info"
        texts = {file: each.read_text(file) for file in _METADATA}
        files.update({f"{folder}/{file}": text.encode() for file, text in texts.items() if text})
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for inside, content in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(inside, _EPOCH), content, zipfile.ZIP_DEFLATED)
    packed = stream.getvalue()
    return hashlib.sha256(packed).hexdigest()[:16], packed
