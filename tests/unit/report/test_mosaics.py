import numpy as np

from dcae15.report.mosaics import CELL_MAX, channel_mean_grid, partial_channel_grid, sample_grid


def box(picture: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Return (top, bottom, left, right) of the pixels of one colour, which must fill their box."""
    y, x = np.nonzero((picture == colour).all(axis=-1))
    top, bottom, left, right = y.min(), y.max() + 1, x.min(), x.max() + 1
    assert len(y) == (bottom - top) * (right - left)
    return int(top), int(bottom), int(left), int(right)


def flat(*colours: tuple[int, int, int], side: int = 16) -> np.ndarray:
    return np.stack([np.full((side, side, 3), colour, dtype=np.uint8) for colour in colours])


def test_row_i_column_k_is_image_i_from_prefix_k_and_the_input_comes_last():
    def colour(i: int, k: int) -> tuple[int, int, int]:
        return 50 + 40 * i, 60 + 30 * k, 200

    inputs = flat(colour(0, 3), colour(1, 3))
    reconstructions = np.stack([flat(colour(0, k), colour(1, k)) for k in range(3)])
    picture = partial_channel_grid(inputs, reconstructions, [4, 8, 32])

    boxes = {(i, k): box(picture, colour(i, k)) for i in range(2) for k in range(4)}
    assert picture.dtype == np.uint8
    for k in range(4):
        assert boxes[0, k][2:] == boxes[1, k][2:], "a column is aligned"
        assert boxes[0, k][1] < boxes[1, k][0], "row 1 is below row 0"
    for i in range(2):
        assert all(boxes[i, k][3] < boxes[i, k + 1][2] for k in range(3)), "columns run from left to right"
    gaps = [boxes[0, k + 1][2] - boxes[0, k][3] for k in range(3)]
    assert gaps[0] == gaps[1] < gaps[2], "the input stands apart"


def test_small_images_are_enlarged_without_smoothing():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 250, (1, 32, 32, 3), dtype=np.uint8)
    image[:, 0] = image[:, -1] = image[:, :, 0] = image[:, :, -1] = (1, 2, 3)  # a frame that is found again
    picture = sample_grid({"": image})
    y, x = np.nonzero((picture == (1, 2, 3)).all(axis=-1))
    cell = picture[y.min() : y.max() + 1, x.min() : x.max() + 1]
    assert cell.shape == (96, 96, 3)
    for dy in range(3):
        for dx in range(3):
            np.testing.assert_array_equal(cell[dy::3, dx::3], image[0])


def test_large_images_are_reduced():
    picture = sample_grid({"": flat((10, 200, 30), side=512)})
    top, bottom, left, right = box(picture, (10, 200, 30))
    assert (bottom - top, right - left) == (CELL_MAX, CELL_MAX)


def test_images_that_are_not_square_keep_their_ratio():
    picture = sample_grid({"": np.full((1, 48, 96, 3), (9, 99, 199), dtype=np.uint8)})
    top, bottom, left, right = box(picture, (9, 99, 199))
    assert (bottom - top) * 2 == right - left


def test_headers_are_drawn_above_the_columns():
    grey = np.full((2, 1, 16, 16, 3), 128, dtype=np.uint8)
    one = partial_channel_grid(grey[0], grey, [4, 8])
    other = partial_channel_grid(grey[0], grey, [5, 8])
    top = int(np.nonzero((one == 128).all(axis=-1).sum(axis=1) > 100)[0].min())
    assert (one[:top] != other[:top]).any(), "the header names the prefix"
    np.testing.assert_array_equal(one[top:], other[top:])


def test_classes_make_rows_and_many_samples_are_wrapped():
    reds = flat(*[(200, i, 0) for i in range(13)])
    blues = flat((0, 0, 200))
    picture = sample_grid({"red": reds, "a very long class name, with\na line break": blues})
    first, tenth, eleventh, blue = (box(picture, c) for c in [(200, 0, 0), (200, 9, 0), (200, 10, 0), (0, 0, 200)])
    assert first[0] == tenth[0] < eleventh[0] < blue[0]
    assert first[2] == eleventh[2] == blue[2] > 100, "labels stand at the left"


def test_channel_means_are_drawn_as_blocks_beside_the_image():
    inputs = flat((250, 0, 0), side=16)
    maps = np.array([[[[0, 255], [0, 0]]], [[[255, 255], [255, 255]]]], dtype=np.uint8)
    picture = channel_mean_grid(inputs, maps, [4, 8])
    dark, bright = (68, 1, 84), (253, 231, 36)
    top, bottom, left, right = box(picture[:, :100], bright)
    assert (bottom - top, right - left) == (48, 48), "a quarter of the first cell"
    assert (picture[top:bottom, left - 40] == dark).all()
    assert box(picture, (250, 0, 0))[2] > right
