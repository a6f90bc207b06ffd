"""Checkpoints in storage: written whole, checked when read, the newest good one wins.

They are the same for every launcher, so a run started on a laptop continues on a cluster. A checkpoint is a file
``<images seen>.pt`` and a side file with its checksum, written after it.
"""

from __future__ import annotations

import io
import logging
from typing import Any

import torch

from dcae15 import storage
from dcae15.errors import StorageError

log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one training run.

    Args:
        uri: their folder.
        keep: how many to keep.
    """

    def __init__(self, uri: str, keep: int = 2) -> None:
        self.uri = uri
        self.keep = keep

    def save(self, images_seen: int, state: dict[str, Any]) -> None:
        """Write a checkpoint, then delete the oldest beyond ``keep``. Only one process of a run may call this."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        data = buffer.getvalue()
        name = f"{images_seen:012d}.pt"
        storage.write_bytes(storage.join(self.uri, name), data)
        storage.write_json(storage.join(self.uri, name + ".json"), {"bytes": len(data), "sha256": storage.sha256(data)})
        for old in self._complete()[: -self.keep]:
            storage.remove(storage.join(self.uri, old + ".json"))
            storage.remove(storage.join(self.uri, old))

    def latest(self) -> dict[str, Any] | None:
        """Return the state of the newest undamaged checkpoint, on the CPU; None when there is none."""
        for name in reversed(self._complete()):
            uri = storage.join(self.uri, name)
            try:
                data = storage.read_bytes(uri)
                if storage.sha256(data) == storage.read_json(uri + ".json")["sha256"]:
                    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            except (StorageError, KeyError, ValueError) as error:
                log.warning("checkpoint %s cannot be read: %s", uri, error)
            log.warning("checkpoint %s is damaged; going back to the one before", uri)
        return None

    def clear(self) -> None:
        """Delete all checkpoints."""
        storage.remove(self.uri)

    def _complete(self) -> list[str]:
        present = {info.path for info in storage.list_files(self.uri)}
        return sorted(path for path in present if path.endswith(".pt") and path + ".json" in present)
