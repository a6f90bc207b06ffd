import json

import pytest
import torch
from safetensors.torch import save_file

from dcae15 import artifacts
from dcae15.errors import ArtifactError, WeightsError
from dcae15.export.foreign_weights import given_autoencoder, import_autoencoder, is_foreign
from dcae15.export.layouts import to_official
from dcae15.library import load_autoencoder
from dcae15.models.presets import PRESETS
from tests.families import FAMILIES, pixels, randomised


def official_file(folder, source, name="model.pt"):
    torch.save({"state_dict": to_official(source.state_dict(), source.spec)}, folder / name)
    return str(folder / name)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_an_import_is_an_artifact_that_computes_the_same(tmp_path, family):
    source = randomised(FAMILIES[family])
    uri = str(tmp_path / "imported")
    import_autoencoder(official_file(tmp_path, source), source.spec, uri=uri, fingerprint="f")
    artifact = artifacts.Autoencoder.open(uri)
    assert (artifact.prefix_choices, artifact.mask_kind, artifact.images_seen) == ((), "unknown", 0)
    image = pixels(source.spec)
    for averaged in (True, False):
        loaded = load_autoencoder(uri, averaged=averaged)
        assert (loaded.fingerprint, loaded.prefix_choices) == ("f", ())
        assert torch.equal(loaded(image), source(image))
    manifest = artifacts.read_manifest(uri)
    assert manifest["parameters"] == sum(p.numel() for p in source.parameters())
    assert manifest["source"].endswith("model.pt") and "scaling_factor" not in manifest


def test_a_folder_says_its_graph_and_scaling_factor(tmp_path):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is a test dependency only")
    from dcae15.export.foreign_config import diffusers_config

    source = randomised(FAMILIES["1.0"])
    model = diffusers.AutoencoderDC.from_config(diffusers_config(source.spec, 0.25))
    model.load_state_dict(source.state_dict())
    model.save_pretrained(tmp_path / "theirs")
    uri = str(tmp_path / "imported")
    import_autoencoder(str(tmp_path / "theirs"), FAMILIES["1.5"], uri=uri, fingerprint="f")
    assert load_autoencoder(uri).spec == source.spec
    assert artifacts.read_manifest(uri)["scaling_factor"] == 0.25


def test_a_published_name_brings_its_scaling_factor(tmp_path):
    source = randomised(FAMILIES["1.5"])
    uri = str(tmp_path / "imported")
    import_autoencoder(
        official_file(tmp_path, source), source.spec, uri=uri, fingerprint="f", preset="dc-ai/dc-ae-1.5-f64c128"
    )
    manifest = artifacts.read_manifest(uri)
    assert (manifest["scaling_factor"], manifest["model_name"]) == (0.5935, "dc-ae-f64c128-1.5")


def test_a_failed_import_leaves_no_artifact(tmp_path):
    uri = str(tmp_path / "imported")
    source = official_file(tmp_path, randomised(FAMILIES["1.0"]))
    with pytest.raises(WeightsError, match="unknown keys"):
        import_autoencoder(source, FAMILIES["1.5"], uri=uri, fingerprint="f")
    assert not artifacts.finished(uri)


def test_foreign_weights_are_named_by_their_content(tmp_path):
    first, other = (randomised(FAMILIES["1.5"], seed).state_dict() for seed in (0, 1))
    for folder, weights in (("a", first), ("b", first), ("c", other)):
        (tmp_path / folder).mkdir()
        save_file(weights, tmp_path / folder / "model.safetensors")
        (tmp_path / folder / "config.json").write_text(json.dumps({"model_name": "dc-ae-f64c128-1.5"}))
    configured = FAMILIES["1.0"]
    found = [given_autoencoder(str(tmp_path / folder), configured, "custom") for folder in "abc"]
    assert all(given.foreign and given.spec == PRESETS["dc-ae-f64c128-1.5"] for given in found)
    assert found[0].digest == found[1].digest != found[2].digest
    graph = {"spec": found[0].spec.to_dict()}
    assert found[0].facts == graph | {"model_name": "dc-ae-f64c128-1.5", "scaling_factor": 0.5935}
    file = given_autoencoder(str(tmp_path / "a" / "model.safetensors"), configured, "custom")
    assert (file.digest, file.facts) == (found[0].digest, {"spec": configured.to_dict()}), (
        "a file has the configured graph"
    )


def test_an_artifact_is_given_with_its_own_graph_and_fingerprint(tmp_path):
    source = randomised(FAMILIES["1.0"])
    uri = str(tmp_path / "imported")
    import_autoencoder(official_file(tmp_path, source), source.spec, uri=uri, fingerprint="f")
    given = given_autoencoder(uri, FAMILIES["1.5"], "custom")
    assert (given.foreign, given.spec, given.digest) == (False, source.spec, "f")
    with pytest.raises(ArtifactError, match="does not exist"):
        given_autoencoder(str(tmp_path / "nowhere"), FAMILIES["1.5"], "custom")


def test_what_is_foreign(tmp_path):
    (tmp_path / "folder").mkdir()
    assert not is_foreign(str(tmp_path / "folder"))
    (tmp_path / "folder" / "config.json").write_text("{}")
    assert is_foreign(str(tmp_path / "folder"))
    (tmp_path / "folder" / "manifest.json").write_text("{}")
    assert not is_foreign(str(tmp_path / "folder"))
    assert not is_foreign(str(tmp_path / "a.pt"))
    (tmp_path / "a.pt").write_bytes(b"")
    assert is_foreign(str(tmp_path / "a.pt"))
