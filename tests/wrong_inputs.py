"""Wrong inputs of users, and what the message must say.

As a script it prints every command and its message, so that those of two checkouts can be compared side by side:

    python tests/wrong_inputs.py [CHECKOUT] > messages.txt

It uses nothing of the library but the scripts of `pipelines/`, which run in this process. None of the commands starts Ray.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.scripts import PRIVATE, REPOSITORY, run_here

SWEEP = "name: mine\nspace: {sampling.guidance: [2, 4]}\n"
MANIFEST = json.dumps({"kind": "latents", "schema": 4, "fingerprint": "0123456789abcdef"})
FILES = {
    "binary.yaml": b"\xff\xfe\x00name",
    "broken.yaml": b"name: [",
    "words.yaml": b"words",
    "twice.yaml": b"seed: 1\nseed: 2\n",
    "typo.yaml": b"autoencoder:\n  training: {lr: 1}\n",
    "open.yaml": b"data:\n  source: ???\n",
    "section.yaml": b"data: 3",
    "texts.yaml": b"sampling: {solver: 010}",
    "weights.safetensors": b"no weights",
    "pointer.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1248963412\n",
    "page.ckpt": b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>",
    "pictures/a.png": b"\x89PNG",
    "shards/config.json": b"{}",
    "shards/model.safetensors.index.json": b'{"weight_map": {"a": "model-00001-of-00001.safetensors"}}',
    "foreign/config.json": b'{"_class_name": "AutoencoderKL"}',
    "foreign/model.safetensors": b"",
    "unfinished/part.parquet": b"",
    "latents/manifest.json": MANIFEST.encode(),
    "old/manifest.json": MANIFEST.replace('"schema": 4', '"schema": 0').encode(),
    "other/manifest.json": b"{}",
    "sweep.yaml": SWEEP.encode(),
    "sweep_key.yaml": f"{SWEEP}seedz: [0]".encode(),
    "sweep_field.yaml": SWEEP.replace("guidance", "guidence").encode(),
    "sweep_type.yaml": f"{SWEEP}seeds: 3".encode(),
    "sweep_search.yaml": f"{SWEEP}search: random".encode(),
    "sweep_metric.yaml": f"{SWEEP}metric: psnr.structured.al".encode(),
    "sweep_scheduler.yaml": f"{SWEEP}scheduler: asha".encode(),
    "sweep_invalid.yaml": SWEEP.replace("[2, 4]", "[2, -4]").encode(),
    "sweep_range.yaml": b"name: mine\nspace: {autoencoder.prefix.first: {low: 4, high: 4}}\nsearch: random\ntrials: 2",
    "sweep_figure.yaml": f"{SWEEP}figures: [{{kind: per_arms, measures: [a]}}]".encode(),
}
"""What lies in the folder ``TMP``, in which the scripts run."""


@dataclass(frozen=True)
class WrongInput:
    """A command, what its message must hold, and its exit code: 2 for what can be seen in the command, else 1."""

    command: str
    named: tuple[str, ...]
    code: int = 2


def _wrong(command: str, *named: str, code: int = 2) -> WrongInput:
    return WrongInput(command, named, code)


WRONG_INPUTS = (
    # fields that contradict each other
    _wrong("full data.resolution=36", "data.resolution is 36", "32 or 40"),
    _wrong("full latents.resolution=64", "latents.resolution is 64, larger than", "32 pixels"),
    _wrong("full autoencoder.encoder_widths=[24,24,48]", "encoder_widths has 3", "decoder_widths has 4", "each stage"),
    _wrong("full autoencoder.decoder_blocks=[EViTGUL]", "decoder_blocks[0] is 'EViTGUL'", "did you mean 'EViTGLU'"),
    _wrong("full autoencoder.prefix.choices=[4,16]", "autoencoder.prefix.choices", "all 32 channels"),
    _wrong("full diffusion.prefix.first=2", "diffusion.prefix draws [2, 6,", "autoencoder.prefix"),
    _wrong("full autoencoder.training.images=10 autoencoder.training.warmup_images=0", "less than one batch"),
    _wrong("full autoencoder.training.schedule=cosin", "autoencoder.training.schedule", "did you mean 'cosine'?"),
    _wrong("full autoencoder.preset=dc-ae", "autoencoder.preset is 'dc-ae'", "dc-ae-f32c128-1.5", "'custom'"),
    _wrong("full scaling.num_workers=65", "scaling.num_workers 65", "autoencoder.training.batch_size"),
    _wrong("full diffusion.denoiser.class_dropout=0", "sampling.guidance is 3.0", "class_dropout 0"),
    _wrong("full data.source=", "data.source is empty"),
    _wrong("full seed=-1 sampling.steps=0", "seed is -1", "sampling.steps is 0"),
    # keys and values that cannot be
    _wrong("full autoencoder.training.lr=1", "autoencoder.training.lr (command line)", "training.learning_rate?"),
    _wrong("full learning_rate=1", "did you mean", "autoencoder.training.learning_rate"),
    _wrong("full qqqq=1", "qqqq", "--help"),
    _wrong("full autoencoder=1", "autoencoder (command line) is a section"),
    _wrong("full resume", "'resume' is not key=value"),
    _wrong("full data.resolution=big", "data.resolution is 'big'", "command line", "a whole number"),
    _wrong("full baseline=true", "baseline (command line)", "arms=[baseline, random]"),
    _wrong("full arms=[baselin]", "arms[0] is 'baselin'", "did you mean 'baseline'"),
    _wrong("full tracking.enabled=maybe", "tracking.enabled is 'maybe'", "true or false"),
    _wrong("full autoencoder.encoder_widths=[a]", "autoencoder.encoder_widths[0] is 'a'", "a whole number"),
    _wrong("full autoencoder.training.learning_rate=.nan", "autoencoder.training.learning_rate", "finite"),
    _wrong("full arms=[no]", "arms[0] is 'no'"),
    _wrong("full data.classes=no", "data.classes is 'no'", "a list of words"),
    _wrong("full sampling.solver=1e3", "sampling.solver is '1e3'", "'euler' or 'heun'"),
    _wrong("full --config texts.yaml", "sampling.solver is '010'", "'euler' or 'heun'"),
    _wrong("full storage=$NOT_SET_HERE/x", "$NOT_SET_HERE", code=1),
    _wrong("full data.resolution=8 data.shapes.resolution=8", "data.resolution is 8 pixels", "16 pixels or more"),
    _wrong("full data.resolution=8 data.shapes.resolution=8 --dry-run", "data.resolution is 8 pixels"),
    _wrong("full tracking.uri=sqlite:////tmp/my%20own.db", "tracking.uri is", "in the name of a database"),
    _wrong("full storage=${oc.env:NOT_THERE}", "storage", "NOT_THERE"),
    _wrong("full --resume", "unrecognized arguments: --resume"),
    # files
    _wrong("full --config absent.yaml", "--config absent.yaml cannot be read"),
    _wrong("full --config binary.yaml", "--config binary.yaml is not a text file"),
    _wrong("full --config broken.yaml", "broken.yaml is not valid YAML"),
    _wrong("full --config words.yaml", "words.yaml must hold 'key: value' lines"),
    _wrong("full --config twice.yaml", "twice.yaml", "seed"),
    _wrong("full --config typo.yaml", "autoencoder.training.lr (typo.yaml)", "training.learning_rate?"),
    _wrong("full --config open.yaml", "data.source must be given", "open.yaml"),
    _wrong("full --config section.yaml", "data (section.yaml) is a section"),
    # artifacts as inputs
    _wrong("export", "the input 'to' is missing", "to=URI"),
    _wrong("cache_latents images=", "the input 'images' is empty"),
    _wrong("cache_latents imags=x", "'imags' is neither an input nor a configuration field", "did you mean 'images'"),
    _wrong("cache_latents latents=x", "latents=URI is for --verify"),
    _wrong("cache_latents images=absent", "the artifact absent does not exist", code=1),
    _wrong("cache_latents images=unfinished", "the artifact unfinished is unfinished", "manifest.json", code=1),
    _wrong("cache_latents images=latents", "latents holds 'latents', but 'images' is needed", code=1),
    _wrong("train_diffusion latents=old", "old has schema version 0, this version reads 4", code=1),
    _wrong("train_diffusion latents=other", "other/manifest.json is no manifest of this project", code=1),
    _wrong("train_autoencoder", "train_autoencoder needs images", "prepare_images.py", "images=URI", code=1),
    _wrong("measure_milestones", "nothing to do for measure_milestones", "diffusion.milestones is empty"),
    _wrong("sample denoiser=latents", "latents holds 'latents', but 'denoiser' is needed", code=1),
    _wrong("sample denoiser=latents --dry-run", "latents holds 'latents', but 'denoiser' is needed", code=1),
    _wrong("evaluate samples=latents", "latents holds 'latents', but 'images' is needed", code=1),
    _wrong("evaluate autoencoder=$NOT_SET_HERE/x", "$NOT_SET_HERE", code=1),
    _wrong("sample diffusion.enabled=false", "nothing to do for sample", "diffusion.enabled is false"),
    _wrong("cache_latents --verify latents=absent", "the artifact absent does not exist", code=1),
    _wrong("prepare_images --validate-only", "the embedded images need no validation", "data.source=..."),
    _wrong("export to=folder", "there is no autoencoder of this configuration", "train_autoencoder.py", code=1),
    _wrong("export to=folder autoencoder=weights.safetensors", "weights.safetensors", code=1),
    _wrong("export to=folder autoencoder=pointer.safetensors", "a git-lfs pointer", "`git lfs pull`", code=1),
    _wrong("export to=folder autoencoder=page.ckpt", "page.ckpt is neither", "a web page titled 'Sign in'", code=1),
    _wrong("export to=folder autoencoder=pictures", "pictures is no autoencoder", "1 file (a.png)", code=1),
    _wrong(
        "export to=folder autoencoder=shards", "names 1 shard,", "model-00001-of-00001.safetensors is not in", code=1
    ),
    _wrong("export to=folder autoencoder=absent.ckpt", "absent.ckpt does not exist", code=1),
    _wrong("export to=folder autoencoder=latents#ema", "which has no entries: leave out #ema", code=1),
    _wrong("export to=folder autoencoder=foreign", "foreign/config.json", "AutoencoderKL, not AutoencoderDC"),
    # sweeps
    _wrong("sweep", "name one sweep: --study NAME with channel_count, ", "or --sweep FILE"),
    _wrong("sweep --study sparcity", "there is no sweep 'sparcity'", "did you mean", "channel_count"),
    _wrong("sweep --sweep absent.yaml", "absent.yaml cannot be read"),
    _wrong("sweep --sweep nowhere://key:hunter2@bucket/mine.yaml", "nowhere://***@bucket/mine.yaml"),
    _wrong("sweep --study sparsity --scale huge", "has no scale 'huge'", "laptop"),
    _wrong("sweep --sweep sweep.yaml sampling.guidance=8", "same for all trials", "space varies it"),
    _wrong("sweep --sweep sweep_key.yaml", "sweep_key.yaml: 'seedz' is no key of a sweep", "did you mean 'seeds'"),
    _wrong("sweep --sweep sweep_field.yaml", "sweep_field.yaml: space", "did you mean sampling.guidance"),
    _wrong("sweep --sweep sweep_type.yaml", "sweep_type.yaml: seeds is '3'", "a list of whole numbers"),
    _wrong("sweep --sweep sweep_search.yaml", "sweep_search.yaml", "search is 'random'", "give trials"),
    _wrong("sweep --sweep sweep_metric.yaml", "sweep_metric.yaml: metric", "'psnr.structured.all'"),
    _wrong("sweep --sweep sweep_scheduler.yaml", "scheduler is 'asha'", "give 2 or more"),
    _wrong("sweep --sweep sweep_invalid.yaml", "sampling.guidance is -4", "skip_invalid: true"),
    _wrong("sweep --sweep sweep_range.yaml", "space.autoencoder.prefix.first", "low 4, which is not below high 4"),
    _wrong("sweep --sweep sweep_figure.yaml", "figures[0].kind", "did you mean 'per_arm'"),
)


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """Yield the folder ``TMP`` and make it the working directory; afterwards this process is as it was."""
    before, variables, folder = Path.cwd(), dict(os.environ), Path(tempfile.mkdtemp())
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    for name in [name for name in variables if name.startswith(PRIVATE)]:
        del os.environ[name]
    os.environ |= {"DCAE15_STORAGE": str(folder / "storage"), "COLUMNS": "100"}
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(variables)
        shutil.rmtree(folder)


def outcome(wrong: WrongInput, checkout: Path = REPOSITORY) -> tuple[int, str]:
    """Run a command within `place`; return its exit code and what it wrote to stderr, without names of this machine."""
    name, *words = wrong.command.split(" ")
    code, _, message = run_here(checkout / "pipelines" / f"{name}.py", words)
    return code, message.replace(str(checkout), "CHECKOUT").replace(str(Path.cwd()), "TMP")


def main(checkout: Path) -> None:
    """Print every command and its message."""
    with place():
        for wrong in WRONG_INPUTS:
            code, message = outcome(wrong, checkout)
            print(f"$ {wrong.command}\n{message.rstrip()}\n  -> {code}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else REPOSITORY)
