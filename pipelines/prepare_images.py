"""Turn images into an image set: folders, ILSVRC 2012's tars, Parquet, WebDataset, lists, or the embedded ones."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dcae15.command_line import Command, run_script

SECTIONS = ("data", "scaling", "tracking")
FLAGS = {
    "validate-only": "look at every image of data.source, report, write nothing; exit code 1 if preparing would fail"
}


def run(command: Command) -> None:
    """Run the stage, print its plan, or validate the source."""
    if "validate-only" in command.flags and not command.dry_run:
        from dcae15.stages.image_check import validate_source

        print(validate_source(command.config))
        return
    from dcae15.orchestration import pipeline

    pipeline.run_command(command, "prepare_images")


if __name__ == "__main__":
    sys.exit(run_script(run, __doc__ or "", sections=SECTIONS, flags=FLAGS))
