import dataclasses

from dcae15.report.data import ReportData
from dcae15.report.headline import compare, headline
from dcae15.report.measures import MEASURES, duration, number

NAN = float("nan")


def with_psnr(data: ReportData, structured: list[float], baseline: list[float] | None) -> ReportData:
    arms = {"structured": structured} | ({"baseline": baseline} if baseline else {})
    prefixes = (4, 16, 32)
    made = {
        arm: [{"prefix": float(c), "psnr": value} for c, value in zip(prefixes, values, strict=True)]
        for arm, values in arms.items()
    }
    return dataclasses.replace(data, reconstruction=made, generation={})


def test_it_says_where_structured_is_better_and_where_worse(data: ReportData):
    result = headline(with_psnr(data, [20.7, 24, 26.4], [15.7, 23, 27.0]))
    assert "From the first 4 of 32 channels" in result.sentences[0]
    assert "5.00\N{NO-BREAK SPACE}dB better than the baseline" in result.sentences[0]
    assert "0.60\N{NO-BREAK SPACE}dB worse than the baseline" in result.sentences[1]
    assert [tile.tone for tile in result.tiles] == ["better", "worse"]


def test_a_structured_arm_that_loses_everywhere_is_called_worse(data: ReportData):
    result = headline(with_psnr(data, [14.0, 20, 22], [15.7, 23, 27.0]))
    assert [tile.tone for tile in result.tiles] == ["worse", "worse"]
    assert not any("better" in sentence for sentence in result.sentences)


def test_differences_within_the_noise_are_called_equal(data: ReportData):
    result = headline(with_psnr(data, [15.71, 23, 27.03], [15.70, 23, 27.0]))
    assert [tile.tone for tile in result.tiles] == ["", ""]
    assert all("about equally well" in sentence for sentence in result.sentences[:2])


def test_lower_is_better_for_the_distance():
    assert compare(MEASURES["frechet_distance"], 7.8, 74.0) == ("66.20 better", "better")
    assert compare(MEASURES["frechet_distance"], 74.0, 7.8) == ("66.20 worse", "worse")


def test_what_one_arm_lacks_is_left_out(data: ReportData):
    accuracy = {"structured": 0.91, "baseline": 0.17}
    rows = {arm: [{"prefix": 4.0, "class_accuracy": a}, {"prefix": 32.0}] for arm, a in accuracy.items()}
    tiles = headline(dataclasses.replace(data, reconstruction=rows)).tiles
    assert [(tile.value, tile.tone) for tile in tiles if "first 4" in tile.label] == [("0.910", "better")]


def test_without_a_baseline_it_claims_nothing(data: ReportData):
    result = headline(with_psnr(data, [20.7, 24, 26.4], None))
    assert "No baseline" in result.sentences[-1]
    assert not any(tile.tone for tile in result.tiles)
    assert not any("better" in sentence or "worse" in sentence for sentence in result.sentences)


def test_what_was_not_measured_makes_no_headline(data: ReportData):
    result = headline(with_psnr(data, [NAN, NAN, NAN], [NAN, NAN, NAN]))
    assert result.tiles == []
    assert not any("nan" in sentence for sentence in result.sentences)


def test_generated_images_stand_beside_their_reference(data: ReportData):
    tile = next(tile for tile in headline(data).tiles if tile.label == "Fréchet distance of generated images")
    assert (tile.value, tile.comparison) == ("17.10", "training images: 1.21")


def test_numbers_and_durations():
    assert number(NAN) == number(None) == number(float("inf")) == "not measured"
    assert number(1.005, 1, "dB") == "1.0\N{NO-BREAK SPACE}dB"
    written = [duration(s).replace("\N{NO-BREAK SPACE}", " ") for s in (0.42, 9.96, 59.6, 185, 7620)]
    assert written == ["0.4 s", "10 s", "1 min 00 s", "3 min 05 s", "2 h 07 min"]
