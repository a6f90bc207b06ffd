"""Measure autoencoders (structured, and its controls) and generated images."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dcae15.command_line import Command, run_script

INPUTS = {
    "images": "image set to compare with; default: the one that prepare_images makes",
    "autoencoder": "the structured autoencoder",
    "baseline": "the autoencoder trained without masks",
    "random": "the autoencoder trained with random masks",
    "denoiser": "the denoiser that generated",
    "samples": "the generated images",
}


def run(command: Command) -> None:
    """Run the stage, or print its plan."""
    from dcae15.orchestration import pipeline

    pipeline.run_command(command, "evaluate")


if __name__ == "__main__":
    sys.exit(run_script(run, __doc__ or "", optional_inputs=INPUTS))
