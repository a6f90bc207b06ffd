"""Foreign weights in the shapes in which others hand them out, most of them written by diffusers itself."""

import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import save_file

from dcae15 import artifacts
from dcae15.errors import ArtifactError, ConfigError, StorageError, WeightsError
from dcae15.export.foreign_config import diffusers_config
from dcae15.export.foreign_weights import given_autoencoder, import_autoencoder, is_foreign
from dcae15.export.layouts import to_official
from dcae15.library import load_autoencoder
from tests.families import FAMILIES, randomised

SPEC = FAMILIES["1.5"]
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 1248963412\n"


@pytest.fixture(autouse=True)
def _warnings(caplog):
    caplog.set_level(logging.WARNING)


@pytest.fixture(scope="module")
def source():
    return randomised(SPEC)


@pytest.fixture(scope="module")
def other():
    return randomised(SPEC, seed=1)


@pytest.fixture(scope="module")
def theirs(source):
    """The network as diffusers has it."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is a test dependency only")
    model = diffusers.AutoencoderDC.from_config(diffusers_config(SPEC, 0.25))
    model.load_state_dict(source.state_dict())
    return model


def same(uri, expected, config=None, **asked):
    """Whether an autoencoder is opened, in the library and as an import, that has these weights."""
    loaded = load_autoencoder(str(uri), config, **asked).state_dict()
    return all(torch.equal(value, loaded[key]) for key, value in expected.state_dict().items())


def configured(folder, weights=None, name="diffusion_pytorch_model.safetensors"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(diffusers_config(SPEC, 0.25)))
    if weights is not None:
        save_file(weights.state_dict(), folder / name)
    return folder


def digest(uri):
    return given_autoencoder(str(uri), FAMILIES["1.0"], "custom").digest


# ------------------------------------------------------------------------------------------------------ folders of others


def test_the_only_variant_is_taken_and_said(tmp_path, theirs, source, caplog):
    theirs.save_pretrained(tmp_path, variant="fp16")
    assert same(tmp_path, source)
    assert "took diffusion_pytorch_model.fp16.safetensors, the only weights in it" in caplog.text
    given = given_autoencoder(str(tmp_path), FAMILIES["1.0"], "custom")
    assert given.spec == SPEC and given.facts["scaling_factor"] == 0.25
    assert given.taken == "took diffusion_pytorch_model.fp16.safetensors, the only weights in it"
    import_autoencoder(str(tmp_path), FAMILIES["1.0"], uri=str(tmp_path / "made"), fingerprint="f")
    assert same(tmp_path / "made", source)


def test_of_several_variants_the_unvaried_one_is_taken_or_the_one_asked_for(tmp_path, theirs, source, other, caplog):
    theirs.save_pretrained(tmp_path)
    save_file(other.state_dict(), tmp_path / "diffusion_pytorch_model.fp16.safetensors")
    assert same(tmp_path, source) and not caplog.records
    assert same(f"{tmp_path}#fp16", other), "asked for as others ask for variant='fp16'"
    assert digest(tmp_path) != digest(f"{tmp_path}#fp16")
    save_file(other.state_dict(), tmp_path / "diffusion_pytorch_model.ema.safetensors")
    assert same(tmp_path, source)
    assert "not read: diffusion_pytorch_model.ema.safetensors" in caplog.text, (
        "an average is never passed over in silence"
    )
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    (tmp_path / "diffusion_pytorch_model.fp16.safetensors").rename(
        tmp_path / "diffusion_pytorch_model.bf16.safetensors"
    )
    save_file(source.state_dict(), tmp_path / "diffusion_pytorch_model.fp32.safetensors")
    assert same(tmp_path, source), "the most exact"
    (tmp_path / "diffusion_pytorch_model.fp32.safetensors").rename(
        tmp_path / "diffusion_pytorch_model.mine.safetensors"
    )
    (tmp_path / "diffusion_pytorch_model.bf16.safetensors").unlink()
    with pytest.raises(
        StorageError, match=r"several weights: diffusion_pytorch_model\.ema.*\.mine.*give the path of one"
    ):
        load_autoencoder(str(tmp_path))


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_shards_with_an_index(tmp_path, theirs, source, variant, safe):
    theirs.save_pretrained(tmp_path, max_shard_size="100KB", variant=variant, safe_serialization=safe)
    (index,) = tmp_path.glob("*.index*.json")
    shards = sorted(tmp_path.glob("*-of-*"))
    assert len(shards) > 1
    assert same(tmp_path, source)
    assert same(index, source, SPEC) and same(shards[1], source, SPEC)
    before = digest(tmp_path)
    if safe:
        weights = {k: v.clone() for k, v in source.state_dict().items()}
        listed = json.loads(index.read_text())["weight_map"]
        changed = next(name for name, shard in listed.items() if shard == shards[1].name)
        weights[changed] += 1
        save_file({k: weights[k] for k, shard in listed.items() if shard == shards[1].name}, shards[1])
        assert digest(tmp_path) != before, "every shard counts"
    index.rename(tmp_path / "elsewhere")
    assert load_autoencoder(str(tmp_path)).spec == SPEC, "numbered shards need no index"
    (tmp_path / "elsewhere").rename(index)
    shards[0].unlink()
    with pytest.raises(StorageError, match=rf"index.*names {len(shards)} shards, of which .*-00001-of-.* is not in"):
        load_autoencoder(str(tmp_path))
    with pytest.raises(StorageError, match=r"shards, of which .*-00001-of-.* is not in"):
        digest(tmp_path)


def test_a_pickled_file_of_diffusers_and_of_a_training(tmp_path, theirs, source, other, caplog):
    theirs.save_pretrained(tmp_path / "old", safe_serialization=False)
    assert same(tmp_path / "old", source) and not caplog.records
    configured(tmp_path / "checkpoint-500", other, "model.safetensors")
    for name in ("optimizer.bin", "scheduler.bin", "random_states_0.pkl", "rank_00_optim_states.pt"):
        (tmp_path / "checkpoint-500" / name).write_bytes(b"x")
    assert same(tmp_path / "checkpoint-500", other) and not caplog.records
    (tmp_path / "checkpoint-500" / "config.json").unlink()
    assert same(tmp_path / "checkpoint-500", other, SPEC), "without config.json the configuration says the graph"
    with pytest.raises(ConfigError, match=r"a folder of weights without config\.json"):
        load_autoencoder(str(tmp_path / "checkpoint-500"))
    run = configured(tmp_path / "run")
    torch.save({"state_dict": source.state_dict()}, run / "last.ckpt")
    assert same(run, source)
    assert "took last.ckpt, the only weights in it" in caplog.text
    torch.save({"state_dict": source.state_dict()}, run / "best.ckpt")
    with pytest.raises(StorageError, match=r"several weights: best\.ckpt, last\.ckpt; give the path of one"):
        load_autoencoder(str(run))


def test_a_pipeline_s_root_and_a_folder_around_a_folder(tmp_path, source, caplog):
    root = tmp_path / "pipeline"
    configured(root / "vae", source)
    configured(root / "transformer", source)
    (root / "model_index.json").write_text('{"_class_name": "SanaPipeline"}')
    for uri in (root, root / "model_index.json", root / "vae" / "config.json"):
        assert same(uri, source)
    assert "opened vae/ in it" in caplog.text
    assert digest(root) == digest(root / "vae")
    assert given_autoencoder(str(root), FAMILIES["1.0"], "custom").taken == "opened vae/ in it"
    shutil.move(root / "vae", tmp_path / "hub" / "snapshots" / "0a1b2c")
    assert same(tmp_path / "hub", source)
    assert "opened snapshots/0a1b2c/ in it" in caplog.text
    configured(tmp_path / "hub" / "snapshots" / "3d4e5f", source)
    with pytest.raises(StorageError, match="holds weights in snapshots/0a1b2c/, snapshots/3d4e5f/; give one of these"):
        load_autoencoder(str(tmp_path / "hub"))


def test_what_lies_in_a_folder_without_weights_is_said(tmp_path):
    folder = configured(tmp_path / "folder")
    for name in ("README.md", "a.txt", "sub/b.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    with pytest.raises(StorageError) as error:
        load_autoencoder(str(folder))
    assert "holds no weights: expected diffusion_pytorch_model.safetensors (diffusers) or model.safetensors" in str(
        error.value
    )
    assert "it holds 4 files (README.md, a.txt, config.json, sub/ (1))" in str(error.value)
    (folder / "config.json").unlink()
    for open_it in (load_autoencoder, digest):
        with pytest.raises(
            ArtifactError, match=r"is no autoencoder: it holds 3 files \(README\.md, a\.txt, sub/ \(1\)\)"
        ):
            open_it(str(folder))


def test_our_own_unfinished_training_stays_one_and_its_checkpoints_open(tmp_path, source, other, caplog):
    artifact = tmp_path / "autoencoder" / "0a1b"
    (artifact / "checkpoints").mkdir(parents=True)
    file = artifact / "checkpoints" / "000000016000.pt"
    torch.save({"images_seen": 16_000, "network": source.state_dict(), "average": other.state_dict()}, file)
    (artifact / "checkpoints" / "000000016000.pt.json").write_text("{}")
    assert not is_foreign(str(artifact))
    for open_it in (load_autoencoder, digest):
        with pytest.raises(
            ArtifactError, match=r"is unfinished .*give its newest checkpoint as weights, .*/000000016000\.pt$"
        ):
            open_it(str(artifact))
    assert same(file, source, SPEC) and same(f"{file}#ema", other, SPEC)


# ------------------------------------------------------------------------------------------------------------- bare files


def test_an_entry_is_part_of_what_names_an_import(tmp_path, source, other):
    file = tmp_path / "last.ckpt"
    torch.save({"state_dict": source.state_dict(), "ema_state_dict": other.state_dict()}, file)
    given = {uri: given_autoencoder(uri, SPEC, "custom") for uri in (str(file), f"{file}#ema")}
    assert [(found.uri, found.facts.get("entry")) for found in given.values()] == [
        (str(file), None),
        (f"{file}#ema", "ema"),
    ]
    for uri, expected in ((str(file), source), (f"{file}#ema", other)):
        import_autoencoder(given[uri].uri, SPEC, uri=str(tmp_path / expected_name(uri)), fingerprint="f")
        assert same(tmp_path / expected_name(uri), expected)
    assert same(file, other, SPEC, ema=True)
    artifact = tmp_path / expected_name(str(file))
    assert artifacts.read_manifest(str(artifact))["source"] == str(file)
    with pytest.raises(ArtifactError, match="is an artifact, which has no entries: leave out #ema"):
        digest(f"{artifact}#ema")
    odd = tmp_path / "a#b.ckpt"
    shutil.copy(file, odd)
    assert same(odd, source, SPEC) and same(f"{odd}#ema", other, SPEC), "a name may have a # itself"


def expected_name(uri):
    return "averaged" if uri.endswith("#ema") else "last"


@pytest.mark.parametrize(
    "beginning", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "first_stage_model.", "vae."]
)
@pytest.mark.parametrize("layout", ["official", "ours"])
def test_beginnings_of_names_and_other_networks_beside(tmp_path, source, beginning, layout, caplog):
    weights = source.state_dict() if layout == "ours" else to_official(source.state_dict(), SPEC)
    weights = {beginning + name: value for name, value in weights.items()}
    unet = {"unet.encoder.in.weight": torch.zeros(2), "unet.decoder.out.weight": torch.full((2,), torch.nan)}
    torch.save({"state_dict": weights | unet, "epoch": 3}, tmp_path / "last.ckpt")
    assert same(tmp_path / "last.ckpt", source, SPEC), "what is not taken may hold anything"
    torch.save({"state_dict": unet}, tmp_path / "unet.ckpt")
    with pytest.raises(
        WeightsError, match=r"no weights of a DC-AE autoencoder .*: it has 2 tensors, of state_dict\.unet"
    ):
        load_autoencoder(str(tmp_path / "unet.ckpt"), SPEC)


def test_layers_between_encoder_and_decoder_are_not_dropped(tmp_path, source):
    weights = {**source.state_dict(), "quant_conv.weight": torch.ones(1), "loss.logvar": torch.zeros(1)}
    torch.save(weights, tmp_path / "kl.ckpt")
    with pytest.raises(WeightsError, match=r"not expected keys \(1\): quant_conv\.weight"):
        load_autoencoder(str(tmp_path / "kl.ckpt"), SPEC)


def test_weights_that_are_not_finite_or_whole_numbers_are_refused(tmp_path, source):
    for value, dtype, words in (
        (torch.nan, torch.float32, "1 NaN among the .* of 'encoder.conv_out.bias'.*diverged"),
        (1e9, torch.float16, r"infinite values among the .* \(float16\).*overflow"),
    ):
        weights = {name: tensor.clone() for name, tensor in source.state_dict().items()}
        weights["encoder.conv_out.bias"][0] = value
        save_file({name: tensor.to(dtype) for name, tensor in weights.items()}, tmp_path / "a.safetensors")
        with pytest.raises(WeightsError, match=words):
            load_autoencoder(str(tmp_path / "a.safetensors"), SPEC)
    weights = {**source.state_dict(), "encoder.conv_out.bias": torch.ones(8, dtype=torch.int8)}
    save_file(weights, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"quantised keys \(1\): encoder\.conv_out\.bias is torch\.int8"):
        load_autoencoder(str(tmp_path / "a.safetensors"), SPEC)


# ------------------------------------------------------------------------------------------- what a clone without lfs has


@pytest.mark.parametrize("name", ["config.json", "diffusion_pytorch_model.safetensors", "index"])
def test_pointers_of_git_lfs_are_named_wherever_they_lie(tmp_path, source, name):
    folder = configured(tmp_path / "clone", source)
    if name == "index":
        (folder / "diffusion_pytorch_model.safetensors").unlink()
        name = "diffusion_pytorch_model.safetensors.index.json"
    (folder / name).write_bytes(LFS)
    with pytest.raises((StorageError, WeightsError)) as error:
        load_autoencoder(str(folder))
    assert str(folder / name) in str(error.value)
    assert "git-lfs pointer" in str(error.value) and "git lfs pull" in str(error.value)
    assert "remove" not in str(error.value).lower()


def test_an_artifact_that_was_copied_without_its_weights(tmp_path, source):
    uri = tmp_path / "made"
    import_autoencoder(str(configured(tmp_path / "theirs", source)), SPEC, uri=str(uri), fingerprint="f")
    (uri / "weights.safetensors").write_bytes(LFS)
    with pytest.raises(WeightsError, match="git-lfs pointer") as error:
        load_autoencoder(str(uri))
    assert "delete" not in str(error.value)


def test_a_configuration_of_another_library_is_named(tmp_path, source):
    folder = configured(tmp_path / "text_encoder", source)
    (folder / "config.json").write_text('{"architectures": ["T5EncoderModel"], "model_type": "t5"}')
    with pytest.raises(ConfigError, match=r"config\.json: .*of transformers' T5EncoderModel.*not of an autoencoder"):
        load_autoencoder(str(folder))


def test_a_folder_with_the_name_of_a_file_and_a_file_as_a_folder(tmp_path, source):
    folder = configured(tmp_path / "model.pt", source)
    assert same(folder, source)
    with pytest.raises(ArtifactError, match="no autoencoder"):
        load_autoencoder(str(folder / "config.json" / "x"))
    with pytest.raises(ArtifactError, match=r"there is nothing at .*nowhere"):
        load_autoencoder(str(tmp_path / "nowhere"), SPEC)
