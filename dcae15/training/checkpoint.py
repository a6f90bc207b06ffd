"""Checkpoints in storage: written whole, checked when read, the newest good one wins.

They are the same for every launcher, so a run started on a laptop continues on a cluster. A checkpoint is a file
``<images seen>.pt`` and a side file with its checksum, written after it.
"""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import torch

from dcae15 import storage

log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one training run."""

    def __init__(self, uri: str, keep: int = 2) -> None:
        self.uri = uri
        self.keep = keep

    def save(self, images_seen: int, state: dict[str, Any]) -> None:
        """Write a checkpoint, then delete the oldest beyond ``keep``. Only one process of a run may call this.

        Checkpoints of more images are damaged ones that the run went back behind; they are deleted first.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        data = buffer.getvalue()
        name = f"{images_seen:012d}.pt"
        for abandoned in (other for other in self._complete() if other > name):
            self._remove(abandoned)
        storage.write_bytes(storage.join(self.uri, name), data)
        storage.write_json(storage.join(self.uri, name + ".json"), {"bytes": len(data), "sha256": storage.sha256(data)})
        for old in self._complete()[: -self.keep]:
            self._remove(old)

    def latest(self) -> dict[str, Any] | None:
        """Return the state of the newest undamaged checkpoint, on the CPU; None when there is none.

        Raises:
            StorageError: a checkpoint cannot be read now, which does not mean that it is damaged.
        """
        for name in reversed(self._complete()):
            state = self._read(name)
            if state is not None:
                return state
            log.warning("checkpoint %s is damaged; going back to the one before", storage.join(self.uri, name))
        return None

    def _read(self, name: str) -> dict[str, Any] | None:
        """Return the state of a checkpoint, or None when its bytes are not those that were written."""
        uri = storage.join(self.uri, name)
        data = storage.read_bytes(uri)
        try:
            expected = json.loads(storage.read_bytes(uri + ".json"))["sha256"]
        except (KeyError, TypeError, ValueError):
            return None
        if storage.sha256(data) != expected:
            return None
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)

    def _remove(self, name: str) -> None:
        storage.remove(storage.join(self.uri, name + ".json"))
        storage.remove(storage.join(self.uri, name))

    def clear(self) -> None:
        """Delete all checkpoints."""
        storage.remove(self.uri)

    def _complete(self) -> list[str]:
        present = {info.path for info in storage.list_files(self.uri)}
        return sorted(path for path in present if path.endswith(".pt") and path + ".json" in present)
