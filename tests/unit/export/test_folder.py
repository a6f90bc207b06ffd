import json
import math

import pytest
import torch

from dcae15 import artifacts
from dcae15.errors import ArtifactError, ConfigError
from dcae15.export.foreign_config import official_dotlist
from dcae15.export.foreign_weights import published_facts
from dcae15.export.publish import export_folder
from dcae15.library import load_autoencoder
from dcae15.models.presets import PRESETS
from tests.families import FAMILIES, pixels, randomised


def trained(root, spec, **manifest):
    """An artifact as training leaves it, but for its weights."""
    masked = spec.latent_channels > 4 and not spec.latent_shortcuts
    choices = (2, 4, spec.latent_channels) if masked else (spec.latent_channels,)
    artifact = artifacts.Autoencoder(
        str(root), "5eed", spec.to_dict(), 32, choices, "prefix" if masked else "none", 12_000, "1ma9e5"
    )
    artifact.commit(**manifest)
    return artifact


def latent_set(root, channels, autoencoder="5eed"):
    mean, std = tuple(0.5 * i for i in range(channels)), tuple(1.0 + i for i in range(channels))
    shard = artifacts.Shard("train/0.parquet", 300, 1, "")
    latents = artifacts.LatentSet(
        str(root),
        "1a7e",
        spec=artifacts.LatentSpec(channels, 4, 4, 8, (2, channels), autoencoder),
        dtype="float32",
        statistics=artifacts.Statistics(4_800, mean, std),
        splits={"train": artifacts.Split((shard,))},
        class_names=("a",),
        mirror=False,
        images="1ma9e5",
        autoencoder_uri="",
    )
    latents.commit()
    return latents


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_diffusers_opens_the_folder_and_computes_the_same(tmp_path, family):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is a test dependency only")
    spec = FAMILIES[family]
    ours = randomised(spec)
    to = tmp_path / "to"
    export_folder(ours.state_dict(), trained(tmp_path / "from", spec), str(to))
    theirs, report = diffusers.AutoencoderDC.from_pretrained(to, output_loading_info=True)
    assert not any(report.values()), report
    image = pixels(spec)
    latents = theirs.encode(image).latent
    torch.testing.assert_close(ours.encode(image), latents, rtol=1e-5, atol=1e-5)
    latents[:, 2:] = 0
    torch.testing.assert_close(ours.decode(latents[:, :2]), theirs.decode(latents).sample, rtol=1e-5, atol=1e-5)
    assert torch.equal(load_autoencoder(str(to))(image), ours(image)), "and so do we"


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_official_layout_reads_back(tmp_path, family):
    spec = FAMILIES[family]
    ours = randomised(spec)
    to = tmp_path / "to"
    export_folder(ours.state_dict(), trained(tmp_path / "from", spec), str(to), layout="official")
    assert json.loads((to / "config.json").read_text()) == {"dotlist": official_dotlist(spec), "scaling_factor": None}
    assert sorted(path.name for path in to.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    image = pixels(spec)
    assert torch.equal(load_autoencoder(str(to))(image), ours(image))


def test_a_published_graph_is_exported_under_its_name(tmp_path):
    name = "dc-ae-f32c32-mix-1.0"
    artifact = trained(tmp_path / "from", PRESETS[name], model_name=name)
    export_folder({}, artifact, str(tmp_path / "to"), layout="official")
    said = json.loads((tmp_path / "to" / "config.json").read_text())
    assert said == {"model_name": name, "scaling_factor": None}, "the name is that of a graph, these weights are others"


@pytest.mark.parametrize("factor", [None, 0.25])
def test_the_scaling_factor_survives_the_official_layout(tmp_path, factor):
    name = "dc-ae-f64c128-1.5"
    known = {} if factor is None else {"scaling_factor": factor}
    export_folder({}, trained(tmp_path / "from", PRESETS[name], **known), str(tmp_path / "to"), layout="official")
    assert published_facts(str(tmp_path / "to"), "") == {"model_name": name, **known}


def test_latents_give_scaling_factor_and_statistics(tmp_path):
    spec = FAMILIES["1.5"]
    latents = latent_set(tmp_path / "latents", 8)
    export_folder(
        randomised(spec).state_dict(), trained(tmp_path / "from", spec), str(tmp_path / "to"), latents=latents
    )
    factor = json.loads((tmp_path / "to" / "config.json").read_text())["scaling_factor"]
    squares = [(0.5 * i) ** 2 + (1.0 + i) ** 2 for i in range(8)]
    assert factor == pytest.approx(1 / math.sqrt(sum(squares) / 8))
    statistics = json.loads((tmp_path / "to" / "latent_statistics.json").read_text())
    assert statistics["mean"] == list(latents.statistics.mean)
    assert statistics["std"] == list(latents.statistics.std)
    assert (statistics["scaling_factor"], statistics["latent_set"]) == (factor, "1a7e")
    card = (tmp_path / "to" / "README.md").read_text()
    assert f"`scaling_factor` {factor:.6g} (1 / RMS of the latents of 300 training images)" in card


@pytest.mark.parametrize(
    ("manifest", "factor", "said"),
    [({}, 1.0, "not measured"), ({"scaling_factor": 0.3189}, 0.3189, "as published with the weights")],
)
def test_without_latents_the_published_factor_or_one(tmp_path, manifest, factor, said):
    spec = FAMILIES["1.5"]
    export_folder({}, trained(tmp_path / "from", spec, **manifest), str(tmp_path / "to"))
    assert json.loads((tmp_path / "to" / "config.json").read_text())["scaling_factor"] == factor
    assert said in (tmp_path / "to" / "README.md").read_text()
    assert not (tmp_path / "to" / "latent_statistics.json").exists()


def test_the_card_says_what_a_user_needs(tmp_path):
    export_folder({}, trained(tmp_path / "from", FAMILIES["1.5"]), str(tmp_path / "to"), license="apache-2.0")
    card = (tmp_path / "to" / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\nlibrary_name: diffusers\n")
    for words in (
        "12,000 images seen",
        "[2, 4, 8]",
        "AutoencoderDC.from_pretrained",
        "load_autoencoder",
        "latents[:, 2:] = 0",
        "| spatial compression f | 8 |",
        "| encoder widths | 8, 16, 32, 32 |",
        "| encoder blocks | ResBlock |",
        "| autoencoder | `5eed` |",
        "| training images | `1ma9e5` |",
    ):
        assert words in card, words


def test_the_card_of_a_baseline_and_of_an_import_promise_no_prefixes(tmp_path):
    export_folder({}, trained(tmp_path / "a", FAMILIES["1.0"]), str(tmp_path / "to"))
    assert "fewer channels decode to poor images" in (tmp_path / "to" / "README.md").read_text()
    artifact = artifacts.Autoencoder(str(tmp_path / "b"), "5eed", FAMILIES["1.5"].to_dict(), 0, (), "unknown", 0, "")
    artifact.commit(source="s3://bucket/weights.pt")
    export_folder({}, artifact, str(tmp_path / "to"))
    card = (tmp_path / "to" / "README.md").read_text()
    assert "is not known" in card and "Imported from `weights.pt`" in card


def test_wrong_requests_are_refused_before_anything_is_written(tmp_path):
    artifact = trained(tmp_path / "from", FAMILIES["1.5"])
    to = str(tmp_path / "to")
    with pytest.raises(ConfigError, match="format is 'onnx'; it must be diffusers or official"):
        export_folder({}, artifact, to, layout="onnx")
    with pytest.raises(ConfigError, match="license is 'do what you like'"):
        export_folder({}, artifact, to, license="do what you like")
    with pytest.raises(ArtifactError, match=r"those of autoencoder 07he2, but .* is 5eed; pass latents that it made"):
        export_folder({}, artifact, to, latents=latent_set(tmp_path / "latents", 8, "07he2"))
    with pytest.raises(ArtifactError, match="is an artifact of this project"):
        export_folder({}, artifact, str(tmp_path / "from"))
    assert not (tmp_path / "to").exists()
