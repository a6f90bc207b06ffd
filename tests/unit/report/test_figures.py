import dataclasses
import io

import numpy as np
from PIL import Image

from dcae15.report.data import ReportData
from dcae15.report.figures import channel_curves, curves, pictures, reconstruction_curves
from dcae15.report.plots import styles

LOOKS = styles(["structured", "baseline", "random", "diffusion"])


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def count(png: bytes, name: str) -> int:
    """Count the pixels in the colour of an arm."""
    wanted = [int(LOOKS[name].colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((pixels(png) == wanted).all(axis=-1).sum())


def test_every_picture_is_a_png_under_its_name(data: ReportData):
    drawn = pictures(data)
    assert set(drawn) == {
        "partial_channels_structured",
        "partial_channels_baseline",
        "reconstruction",
        "structure",
        "channel_means_structured",
        "channel_means_baseline",
        "channels",
        "samples",
        "training_autoencoder",
        "training_diffusion",
    }
    assert all(png.startswith(b"\x89PNG") and pixels(png).std() > 5 for png in drawn.values())


def test_pictures_are_reproducible(data: ReportData):
    assert pictures(data) == pictures(data)


def test_an_arm_has_its_colour_in_every_figure_and_only_where_it_is(data: ReportData):
    alone = {"structured": data.reconstruction["structured"]}
    assert count(reconstruction_curves(data.reconstruction, LOOKS), "baseline") > 500
    assert count(reconstruction_curves(alone, LOOKS), "structured") > 500
    assert count(reconstruction_curves(alone, LOOKS), "baseline") == 0
    assert count(channel_curves(data.channels, LOOKS), "structured") > 200
    assert count(curves(data.histories["training_autoencoder"]), "structured") > 200


def test_what_milestones_measured_is_drawn_over_the_images_seen(data: ReportData):
    milestones = [{"images": 1e3 * i, "frechet_distance": 9.0 / i, "recall": 0.1 * i} for i in (1, 2, 4)]
    drawn = pictures(dataclasses.replace(data, milestones=milestones))
    assert set(drawn) - set(pictures(data)) == {"milestones"}
    assert count(drawn["milestones"], "diffusion") > 500


def test_measures_that_nobody_has_take_no_room(data: ReportData):
    nothing = {"class_accuracy": float("nan"), "frechet_distance": float("nan")}
    rows = [{**row, **nothing} for row in data.reconstruction["structured"]]
    full = pixels(reconstruction_curves(data.reconstruction, LOOKS))
    assert pixels(reconstruction_curves({"structured": rows}, LOOKS)).shape[0] == full.shape[0] // 2


def test_a_figure_without_any_number_says_so():
    nothing = [{"prefix": 4.0, "psnr": float("nan")}]
    assert pixels(reconstruction_curves({"structured": nothing}, LOOKS)).min() < 150


def test_many_prefixes_are_thinned_to_eight_columns_with_the_ends(data: ReportData):
    inputs = np.full((1, 32, 32, 3), 7, dtype=np.uint8)
    prefixes = list(range(4, 129, 4))
    reconstructions = np.stack([np.full_like(inputs, 100 + k) for k in range(len(prefixes))])
    many = dataclasses.replace(
        data, grids={"structured": (inputs, reconstructions)}, channel_means={}, prefixes={"structured": prefixes}
    )
    row = pixels(pictures(many)["partial_channels_structured"])[-60]
    shown = [value for value in range(100, 132) if ((row == value).all(axis=-1)).sum() >= 96]
    assert len(shown) == 8
    assert shown[0] == 100
    assert shown[-1] == 131


def test_hostile_names_are_drawn_as_they_are():
    rows = [{"images": 0.0, "$x^{": 1.0}, {"images": 64.0, "$x^{": 2.0}]
    assert pixels(curves({"_$\\frac": rows})).std() > 5


def test_scalars_that_are_logged_rarely_are_connected_and_single_rows_are_seen():
    often = [{"images": float(i), "loss": 1.0} for i in range(100)]
    rarely = [{**row, "psnr": 20.0} if i % 25 == 0 else row for i, row in enumerate(often)]
    assert count(curves({"diffusion": rarely}), "diffusion") > 1.7 * count(curves({"diffusion": often}), "diffusion")
    assert count(curves({"diffusion": often[:1]}), "diffusion") > count(
        curves({"diffusion": [{"images": 0.0}]}), "diffusion"
    )
