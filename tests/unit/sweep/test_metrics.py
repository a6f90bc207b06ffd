from dataclasses import replace

import pytest

from dcae15 import artifacts
from dcae15.config import build, from_overrides
from dcae15.errors import ConfigError
from dcae15.sweep.file import Figure, Sweep
from dcae15.sweep.metrics import check_metrics, metric_names, trial_metrics


def configured(*overrides):
    return build([from_overrides(overrides)])[0]


def evaluation(prefixes, **parts):
    rows = [{"prefix": float(c), "psnr": 20.0 + c, "frechet_distance": 9.0 / c} for c in prefixes]
    empty = {"structure": {}, "channels": {}, "summary": {}, "generation": {}, "protocol": {}, "prefixes": {}}
    return artifacts.Evaluation("uri", "print", **{"reconstruction": {"structured": rows}, **empty, **parts})


def test_curves_are_read_at_shares_of_the_channels_so_that_any_c_compares():
    for channels in (16, 64):
        metrics = trial_metrics(evaluation([channels // 8 * i for i in (1, 2, 4, 8)]))
        assert metrics["psnr.structured.eighth"] == 20 + channels / 8
        assert metrics["psnr.structured.quarter"] == 20 + channels / 4
        assert metrics["psnr.structured.half"] == 20 + channels / 2
        assert metrics["psnr.structured.all"] == 20 + channels
        assert metrics["frechet_distance.structured.all"] == 9 / channels
        assert len(metrics) == 8


def test_a_share_that_was_not_measured_is_that_of_the_prefix_next_to_it():
    metrics = trial_metrics(evaluation([8, 16]))
    assert metrics["psnr.structured.eighth"] == metrics["psnr.structured.quarter"] == 28


def test_summaries_and_generated_images_keep_their_names():
    parts = {
        "structure": {"their arm!": [{"prefix": 8.0, "effective_rank": 3.0}]},
        "summary": {"structured": {"object_sparsity": 0.5}},
        "generation": {"precision": 0.25},
    }
    metrics = trial_metrics(evaluation([8], **parts))
    assert metrics["effective_rank.their_arm_.all"] == 3
    assert metrics["object_sparsity.structured"] == 0.5 and metrics["precision.generated"] == 0.25


@pytest.mark.parametrize(
    ("overrides", "there", "absent"),
    [
        ((), "psnr.baseline.all", "psnr.random.all"),
        (("arms=[random]",), "object_share.random", "lpips.structured.all"),
        (("autoencoder.prefix.kind=none",), "psnr.structured.all", "psnr.baseline.all"),
        (("diffusion.enabled=false",), "ssim.structured.eighth", "frechet_distance.generated"),
        (("evaluation.probe_images=0",), "recall.generated", "probe_accuracy.structured.all"),
        (
            ("autoencoder.losses.perceptual.vgg=a", "autoencoder.losses.perceptual.heads=b"),
            "lpips.structured.all",
            "lpips.random.all",
        ),
    ],
)
def test_metrics_depend_on_what_the_pipeline_has(overrides, there, absent):
    names = metric_names(configured(*overrides))
    assert there in names and absent not in names


def sweep(**fields):
    return Sweep("mine", origin="mine.yaml", seeds=(0, 1), **fields)


def refusal(sweep, *configs):
    with pytest.raises(ConfigError) as caught:
        check_metrics(sweep, configs)
    return str(caught.value)


def test_a_metric_that_no_stage_reports_is_refused_with_the_nearest():
    message = refusal(sweep(metric="frechet_distance.generatd"), configured())
    assert "mine.yaml: metric 'frechet_distance.generatd'" in message
    assert "did you mean 'frechet_distance.generated'" in message
    assert "there are " in refusal(sweep(metric="beauty"), configured())


def test_what_trials_are_compared_by_is_reported_by_all_of_them():
    with_and_without = [configured(), configured("diffusion.enabled=false")]
    check_metrics(sweep(metric="psnr.structured.all"), with_and_without)
    assert "frechet_distance.generated" in refusal(sweep(), *with_and_without)


def test_schedulers_need_a_metric_of_milestones():
    found = sweep(metric="psnr.structured.all", scheduler="asha")
    assert "scheduler is 'asha'; metric 'psnr.structured.all'" in refusal(found, configured())
    check_metrics(replace(found, metric="recall.generated"), [configured()])


@pytest.mark.parametrize(
    ("figure", "overrides", "named"),
    [
        (Figure("per_arm", ("psnr.structured.all", "pnsr.structured.all")), (), "did you mean 'psnr.structured.all'"),
        (Figure("over_channels", ("psnr.structured.all",)), (), "figures[0].measures 'psnr.structured.all'"),
        (Figure("over_images", ("precision.generated",)), (), "give diffusion.milestones"),
        (Figure("over_images", ("psnr.structured.all",)), ("diffusion.milestones=[64]",), "is reported by no stage"),
        (Figure("against", ("object_share.random", "recall.generated")), (), "object_share.random"),
    ],
)
def test_figures_ask_for_what_there_is(figure, overrides, named):
    assert named in refusal(sweep(figures=(figure,)), configured(*overrides))


def test_figures_may_show_what_some_trials_have():
    figures = (Figure("over_images", ("recall.generated",)), Figure("over_channels", ("psnr", "probe_accuracy")))
    check_metrics(sweep(figures=figures), [configured(), configured("diffusion.milestones=[64]")])
