"""prepare_images --validate-only: look at every image on the cluster, write nothing."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter

import numpy as np
import pyarrow as pa

from dcae15.cluster import Cluster
from dcae15.config import Config
from dcae15.data import images, inspection, sources
from dcae15.errors import DataError
from dcae15.stages.source_opening import by_file, open_source

IMAGES_PER_TASK = 256


def check_images(config: Config, cluster: Cluster) -> str:
    """Look at every image that prepare_images would take, with the same code; print a report, return the verdict.

    Raises:
        ConfigError: it is not clear what the source is.
        DataError: prepare_images would fail; the report has been printed.
    """
    source = open_source(config, cluster, config.data.source, config.data.kind, keep=False)
    everything = pa.concat_tables([source.train, source.val]).unify_dictionaries().combine_chunks()
    places = _chunks(everything, source.kind)
    chunks = [sources.take(everything, rows) for rows in places]
    found, digests = inspection.SourceFindings(), np.zeros((source.count, 16), np.uint8)
    work = functools.partial(inspection.inspect, kind=source.kind, data=config.data)
    parts: dict[int, inspection.SourceFindings] = {}
    pool = cluster.resources.readers()
    for place, part in cluster.map("validate", lambda: work, chunks, pool, size=len, describe=_between):
        digests[places[place]] = np.frombuffer(part.digests, np.uint8).reshape(-1, 16)
        parts[place] = dataclasses.replace(part, digests=b"")
    for place in sorted(parts):  # the same examples however fast each part was
        found.add(parts[place])
    print(inspection.report(source, found, digests), flush=True)
    reasons = Counter(source.lost) + found.bad + Counter({images.LEFT_OUT: found.left_out})
    if message := inspection.refusal(source, reasons, config.data.max_bad_fraction):
        raise DataError(f"prepare_images would fail: {message}")
    return "prepare_images would succeed"


def _between(chunk: pa.Table) -> str:
    first, last = (chunk.column("id")[row].as_py() for row in (0, -1))
    return f"the images from '{first}' to '{last}'"


def _chunks(everything: pa.Table, kind: str) -> list[np.ndarray]:
    """Return the rows of each task: a Parquet file, whose rows cannot be read alone, or some images."""
    if kind == "parquet":
        return [rows for _, rows in by_file(everything)]
    count = everything.num_rows
    return [np.arange(start, min(start + IMAGES_PER_TASK, count)) for start in range(0, count, IMAGES_PER_TASK)]
