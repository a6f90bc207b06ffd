"""Turn a folder of images, or the embedded ones, into an image set."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dcae15.command_line import Command, run_script

SECTIONS = ("data", "scaling", "tracking")


def run(command: Command) -> None:
    """Run the stage, or print its plan."""
    from dcae15.orchestration import pipeline

    pipeline.run_command(command, "prepare_images")


if __name__ == "__main__":
    sys.exit(run_script(run, __doc__ or "", sections=SECTIONS))
