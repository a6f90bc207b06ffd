"""prepare_images --validate-only: look at every image on the cluster, write nothing."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter

import numpy as np
import pyarrow as pa

from dcae15.config import Config, DataConfig
from dcae15.data import images, inspection, sources
from dcae15.errors import ConfigError, DataError
from dcae15.orchestration.cluster import Cluster, connect
from dcae15.orchestration.fanout import fan_out
from dcae15.orchestration.sources import by_file, open_source

IMAGES_PER_TASK = 256


def validate_source(config: Config) -> str:
    """Look at every image that prepare_images would take, with the same code; print a report.

    Raises:
        ConfigError: the source is the embedded images, or it is not clear what it is.
        DataError: prepare_images would fail; the report has been printed.
    """
    if config.data.source == "shapes":
        raise ConfigError("the embedded images need no validation; give data.source=... with images of your own")
    with connect(config) as cluster:
        return validate(config, cluster)


def validate(config: Config, cluster: Cluster) -> str:
    """Do the same on a cluster that is connected; return the verdict."""
    source = open_source(config, cluster, config.data.source, config.data.kind, keep=False)
    everything = pa.concat_tables([source.train, source.val]).unify_dictionaries().combine_chunks()
    places = _chunks(everything, source.kind)
    chunks = [sources.take(everything, rows) for rows in places]
    found, digests = inspection.SourceFindings(), np.zeros((source.count, 16), np.uint8)
    work = functools.partial(_inspect, source.kind, config.data)
    parts: dict[int, inspection.SourceFindings] = {}
    for place, part in fan_out("validate", work, chunks, cluster.cpus, "parts", _between):
        digests[places[place]] = np.frombuffer(part.digests, np.uint8).reshape(-1, 16)
        parts[place] = dataclasses.replace(part, digests=b"")
    for place in sorted(parts):  # the same examples however fast each part was
        found.add(parts[place])
    print(inspection.report(source, found, digests), flush=True)
    reasons = found.bad + Counter({images.LEFT_OUT: found.left_out})
    if message := inspection.refusal(source, reasons, config.data.max_bad_fraction):
        raise DataError(f"prepare_images would fail: {message}")
    return "prepare_images would succeed"


def _inspect(kind: str, data: DataConfig, chunk: pa.Table) -> inspection.SourceFindings:
    return inspection.inspect(chunk, kind, data)


def _between(chunk: pa.Table) -> str:
    first, last = (chunk.column("id")[row].as_py() for row in (0, -1))
    return f"the images from '{first}' to '{last}'"


def _chunks(everything: pa.Table, kind: str) -> list[np.ndarray]:
    """Return the rows of each task: a Parquet file, whose rows cannot be read alone, or some images."""
    if kind == "parquet":
        return [rows for _, rows in by_file(everything)]
    count = everything.num_rows
    return [np.arange(start, min(start + IMAGES_PER_TASK, count)) for start in range(0, count, IMAGES_PER_TASK)]
