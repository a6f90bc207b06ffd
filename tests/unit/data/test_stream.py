"""Images for measurements: the same batches whatever the shards, without holding them."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from dcae15.data.stream import ImageStream, load_images
from tests.unit.data.sets import SIDE, image_set


@pytest.mark.parametrize("encoding", ["raw", "png"])
@pytest.mark.parametrize(("limit", "count"), [(0, 44), (25, 25), (99, 44), (10, 10), (11, 11)])
def test_batches_do_not_depend_on_the_shards(tmp_path, encoding, limit, count):
    stream = ImageStream(image_set(str(tmp_path), [10, 1, 30, 3], encoding, "val"), "val", limit)
    assert len(stream) == count
    for _ in range(2):  # as often as asked for
        batches = list(stream.batches(7))
        assert [len(labels) for _, labels in batches] == [7] * (count // 7) + [count % 7] * (count % 7 > 0)
        assert np.concatenate([labels for _, labels in batches]).tolist() == list(range(count))
        for images, labels in batches:
            assert images.shape == (len(labels), SIDE, SIDE, 3) and images.dtype == np.uint8
            assert (images == labels[:, None, None, None]).all()


def test_by_shard_and_at_once(tmp_path):
    images = image_set(str(tmp_path), [10, 1, 30])
    assert [len(labels) for _, labels in ImageStream(images, "train", 15).by_shard()] == [10, 1, 4]
    held, labels = load_images(images, 12)
    assert labels.tolist() == list(range(12)) and (held == labels[:, None, None, None]).all()
    assert len(load_images(images)[1]) == 41


def test_memory_is_that_of_a_few_shards(tmp_path):
    images = image_set(str(tmp_path), [200] * 12)  # 38 kB each

    def peak(limit: int) -> int:
        tracemalloc.start()
        assert sum(len(labels) for _, labels in ImageStream(images, "train", limit).batches(16)) == limit
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(400)
    assert peak(2_400) < peak(400) + 2 * 200 * SIDE**2 * 3
