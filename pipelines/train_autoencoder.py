"""Train the structured autoencoder on an image set; with baseline=true the same graph without masks, too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dcae15.command_line import Command, run_script

SECTIONS = ("data", "autoencoder", "scaling", "tracking")
INPUTS = {
    "images": "image set to train on; default: the one that prepare_images makes of this configuration",
}


def run(command: Command) -> None:
    """Run the stage, or print its plan."""
    from dcae15.orchestration import pipeline

    pipeline.run_command(command, "train_autoencoder")


if __name__ == "__main__":
    sys.exit(run_script(run, __doc__ or "", sections=SECTIONS, optional_inputs=INPUTS))
