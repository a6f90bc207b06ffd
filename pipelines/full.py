"""Run the whole pipeline, from images to the report.

Stages: prepare images, train the autoencoder and its baseline, cache latents, train the denoiser, sample, evaluate.
Finished stages are reused; the same command continues an interrupted run.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dcae15.command_line import Command, run_script


def run(command: Command) -> None:
    """Run the pipeline, or print its plan."""
    from dcae15.orchestration import pipeline

    if command.dry_run:
        print(pipeline.dry_run(command.config))
        return
    print(f"report: {pipeline.run_pipeline(command.config)}")


if __name__ == "__main__":
    sys.exit(run_script(run, __doc__ or ""))
