"""Encode every image of an image set into a latent set, with any autoencoder; or, with --verify, check a latent set.

python pipelines/cache_latents.py images=URI autoencoder=URI
python pipelines/cache_latents.py --verify latents=URI images=URI autoencoder=URI
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dcae15.command_line import Command, run_script
from dcae15.errors import ConfigError

SECTIONS = ("data", "autoencoder", "latents", "scaling", "tracking")
INPUTS = {
    "images": "image set to encode, or to compare with; default: the one that prepare_images makes of this configuration",
    "autoencoder": "autoencoder, ours or a folder or file with foreign weights; default: the one that train_autoencoder makes",
    "latents": "with --verify only: latent set to check; default: the one of this configuration",
}
FLAGS = {
    "verify": "write nothing: check that the latent set is complete and undamaged; with images=URI also that its ids, labels and "
    "pixels are theirs, with autoencoder=URI, too, that it made them (some are encoded again); exit code 1 if not",
}


def run(command: Command) -> None:
    """Run the stage, print its plan, or verify a latent set."""
    if "verify" in command.flags:
        from dcae15.orchestration.verify import verify_latents

        print(verify_latents(command.config, command.inputs, command.dry_run))
        return
    if "latents" in command.inputs:
        raise ConfigError("latents=URI is for --verify; without it latents are made of images=URI with autoencoder=URI")
    from dcae15.orchestration import pipeline

    pipeline.run_command(command, "cache_latents")


if __name__ == "__main__":
    sys.exit(run_script(run, __doc__ or "", sections=SECTIONS, optional_inputs=INPUTS, flags=FLAGS))
