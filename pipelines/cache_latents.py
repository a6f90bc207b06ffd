"""Encode every image of an image set into a latent set."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dcae15.command_line import Command, run_script

SECTIONS = ("data", "autoencoder", "latents", "scaling", "tracking")
INPUTS = {
    "images": "image set to encode; default: the one that prepare_images makes of this configuration",
    "autoencoder": "autoencoder, or a folder or file with foreign weights; default: the one that train_autoencoder makes",
}


def run(command: Command) -> None:
    """Run the stage, or print its plan."""
    from dcae15.orchestration import pipeline

    pipeline.run_command(command, "cache_latents")


if __name__ == "__main__":
    sys.exit(run_script(run, __doc__ or "", sections=SECTIONS, optional_inputs=INPUTS))
