"""Generate images with a denoiser into an image set of their own."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dcae15.command_line import Command, run_script

INPUTS = {
    "denoiser": "denoiser; default: the one that train_diffusion makes of this configuration",
    "autoencoder": "autoencoder that decodes; default: the one that train_autoencoder makes",
}


def run(command: Command) -> None:
    """Run the stage, or print its plan."""
    from dcae15.orchestration import pipeline

    pipeline.run_command(command, "sample")


if __name__ == "__main__":
    sys.exit(run_script(run, __doc__ or "", optional_inputs=INPUTS))
