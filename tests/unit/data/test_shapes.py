import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from dcae15 import storage
from dcae15.config import ShapesConfig
from dcae15.data import shapes

WAYS = {"split": "train", "seed": 0, "resolution": 32, "classes": 12}


def draw(index=0, **changes):
    return shapes.draw(index, **{**WAYS, **changes})[0]


@pytest.fixture
def written(monkeypatch):
    files = {}
    monkeypatch.setattr(storage, "join", lambda uri, *parts: "/".join((uri, *parts)))
    monkeypatch.setattr(storage, "write_bytes", files.__setitem__)
    return files


def test_an_image_is_a_pure_function_of_seed_split_and_index():
    np.testing.assert_array_equal(draw(5), draw(5))
    others = [draw(6), draw(5, seed=1), draw(5, split="val"), draw(17)]
    assert all(np.abs(draw(5).astype(int) - other).mean() > 5 for other in others)


def test_no_global_randomness_is_touched():
    state = np.random.get_state()[1].copy()
    draw(1)
    np.testing.assert_array_equal(state, np.random.get_state()[1])


# Mean colour and one block of pixels of a few images, so that a change of the drawing cannot go unnoticed.
GOLDEN = [
    (0, "train", [119.1, 81.7, 70.7], [110, 213, 101, 120, 235, 112, 92, 172, 79, 102, 195, 91]),
    (7, "train", [150.3, 93.7, 146.0], [93, 79, 51, 79, 73, 42, 124, 90, 70, 99, 81, 55]),
    (22, "val", [115.7, 82.6, 78.1], [148, 121, 149, 236, 124, 235, 75, 56, 10, 202, 65, 145]),
    (11999, "train", [115.7, 137.2, 173.7], [122, 148, 213, 103, 139, 198, 63, 127, 175, 79, 130, 183]),
]


@pytest.mark.parametrize(("index", "split", "mean", "patch"), GOLDEN)
def test_drawings_stay_the_same_between_releases_and_machines(index, split, mean, patch):
    image = draw(index, split=split)
    np.testing.assert_allclose(image.mean((0, 1)), mean, atol=0.5)
    np.testing.assert_allclose(image[15:17, 15:17].reshape(-1).astype(int), patch, atol=2)


@pytest.mark.parametrize("classes", [2, 10, 12])
def test_labels_are_balanced(classes):
    labels = Counter(shapes.draw(i, **{**WAYS, "resolution": 8, "classes": classes})[1] for i in range(5 * classes))
    assert labels == dict.fromkeys(range(classes), 5)


def test_label_order_is_the_sorted_order_of_the_folders_for_any_number_of_classes():
    assert len(shapes.CLASS_NAMES) == 12
    assert list(shapes.CLASS_NAMES) == sorted(set(shapes.CLASS_NAMES))


def test_classes_differ_by_outline_alone():
    x, y = shapes._grid(64)
    covers = [shapes._coverage(label, np.array([0.5, 0.5, 0.5, 0.5], np.float32), x, y) for label in range(12)]
    for label, cover in enumerate(covers):
        assert 0.05 < cover.mean() < 0.6, shapes.CLASS_NAMES[label]
        border = np.concatenate([cover[0], cover[-1], cover[:, 0], cover[:, -1]])
        assert border.max() == 0, shapes.CLASS_NAMES[label]
        for other in covers[:label]:
            overlap = np.minimum(cover, other).sum() / np.maximum(cover, other).sum()
            assert overlap < 0.85


@pytest.mark.parametrize("index", range(12))
def test_the_same_image_looks_alike_at_any_resolution(index):
    small, large = draw(index).astype(float), draw(index, resolution=256).astype(float)
    shrunk = large.reshape(32, 8, 32, 8, 3).mean((1, 3))
    assert np.corrcoef(small.ravel(), shrunk.ravel())[0, 1] > 0.95


def test_detail_carries_a_good_part_of_the_energy_and_structure_the_rest():
    images = np.stack([draw(i) for i in range(300)]) / 255.0
    blocks = images.reshape(-1, 8, 4, 8, 4, 3)
    detail = ((blocks - blocks.mean((2, 4), keepdims=True)) ** 2).mean() / images.var(0).mean()
    assert 0.2 < detail < 0.4


def test_written_files_lie_in_imagenets_layout_and_decode_to_the_drawing(written):
    config = ShapesConfig(classes=3, seed=4)
    shapes.write_range("root", "train", 2, 6, config)
    assert sorted(written) == [
        "root/train/arrow/arrow_00000003.JPEG",
        "root/train/bars/bars_00000004.JPEG",
        "root/train/crescent/crescent_00000002.JPEG",
        "root/train/crescent/crescent_00000005.JPEG",
    ]
    image = Image.open(io.BytesIO(written["root/train/bars/bars_00000004.JPEG"]))
    assert (image.format, image.mode) == ("JPEG", "RGB")
    assert all(component[1:3] == (1, 1) for component in image.layer), "chroma is subsampled"
    assert np.abs(np.asarray(image).astype(int) - draw(4, seed=4, classes=3)).mean() < 3


def test_rewriting_a_range_changes_nothing(written):
    config = ShapesConfig(images=8)
    shapes.write_range("root", "val", 0, 8, config)
    before = dict(written)
    shapes.write_range("root", "val", 3, 8, config)
    assert written == before
