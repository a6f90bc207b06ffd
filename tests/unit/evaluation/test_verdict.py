import pytest

from dcae15.evaluation.verdict import evaluation_warnings, headline_scalars


def curve(psnr: float, distance: float) -> list[dict[str, float]]:
    full = {"prefix": 32, "psnr": psnr, "frechet_distance": distance}
    return [full, {"prefix": 4, "psnr": psnr - 9, "frechet_distance": distance + 9}]


def warnings(ours: tuple[float, float], baseline: tuple[float, float], gap_db: float = 1.5) -> list[str]:
    arms = {"structured": curve(*ours), "baseline": curve(*baseline)}
    return evaluation_warnings(arms, {}, full_channel_gap_db=gap_db)


@pytest.mark.parametrize(
    ("ours", "baseline", "count"),
    [
        ((25.6, 1.0), (27.0, 1.0), 0),
        ((25.4, 1.0), (27.0, 1.0), 1),
        ((27.0, 2.1), (27.0, 1.0), 1),
        ((27.0, 1.9), (27.0, 1.0), 0),
        ((25.0, 3.0), (27.0, 1.0), 2),
        ((29.0, 0.1), (27.0, 1.0), 0),
        ((27.0, 0.03), (27.0, 0.01), 0),  # thrice nothing is nothing
    ],
)
def test_structure_that_costs_too_much_with_all_channels_is_named(ours, baseline, count):
    found = warnings(ours, baseline)
    assert len(found) == count
    assert all(warning.startswith("structure costs too much: with all channels") for warning in found)


def test_the_threshold_is_the_configured_one_and_both_numbers_are_told():
    assert warnings((26.0, 1.0), (27.0, 1.0)) == []
    (text,) = warnings((26.0, 1.0), (27.0, 1.0), gap_db=0.5)
    assert "1.00 dB" in text and "26.00 against 27.00 dB" in text and "evaluation.full_channel_gap_db 0.5" in text


def test_without_both_arms_there_is_nothing_to_compare():
    for arms in ({}, {"structured": curve(10, 99)}, {"theirs": curve(10, 99), "baseline": curve(30, 1)}):
        assert evaluation_warnings(arms, {}, full_channel_gap_db=1.5) == []


def test_dead_channels_are_named_by_arm_and_number():
    alive, dead = {"mean": 0.0, "std": 1.0}, {"mean": 0.0, "std": 1e-4}
    rows = [{"channel": float(i), **(alive if i < 20 else dead)} for i in range(36)]
    (text,) = evaluation_warnings({}, {"random": rows, "baseline": rows[:20]}, full_channel_gap_db=1.5)
    assert text.startswith("dead channels: 16 of 36 latent channels of the random autoencoder")
    assert "(21, 22, 23," in text and "32, ...)" in text


def test_headline_scalars_say_measure_arm_and_channels():
    rows = [{"prefix": c, "psnr": 20.0 + c} for c in (4, 8, 12, 16, 32)]
    structure = {"structured": [{"prefix": 32, "effective_rank": 9.5}]}
    scalars = headline_scalars(
        {"structured": rows, "their arm!": rows[:1]},
        structure,
        {"structured": {"object_sparsity": 0.5}},
        {"recall": 0.3},
    )
    assert scalars == {
        "evaluation/psnr.structured.c4": 24.0,
        "evaluation/psnr.structured.c8": 28.0,
        "evaluation/psnr.structured.c32": 52.0,
        "evaluation/psnr.their_arm_.c4": 24.0,
        "evaluation/effective_rank.structured.c32": 9.5,
        "evaluation/object_sparsity.structured": 0.5,
        "evaluation/recall.generated": 0.3,
    }
