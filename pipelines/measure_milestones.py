"""Measure what the denoiser generated at each of diffusion.milestones; full.py does it while the denoiser trains."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dcae15.command_line import Command, run_script

INPUTS = {
    "images": "image set to compare with; default: the one that prepare_images makes",
    "autoencoder": "autoencoder that decodes; default: the one that train_autoencoder makes",
    "latents": "latent set that the denoiser was trained on; default: the one that cache_latents makes",
}


def run(command: Command) -> None:
    """Run the stage, or print its plan."""
    from dcae15.orchestration import pipeline

    pipeline.run_command(command, "measure_milestones")


if __name__ == "__main__":
    sys.exit(run_script(run, __doc__ or "", optional_inputs=INPUTS))
