"""Write an autoencoder as a folder for others: for diffusers' AutoencoderDC, or in the official layout.

The folder has the weights, config.json, a model card (README.md) and, with latents=URI, the statistics of the latents.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dcae15.command_line import Command, run_script

SECTIONS = ("data", "autoencoder")
INPUTS = {"to": "folder to write"}
OPTIONAL = {
    "autoencoder": "autoencoder, or a folder or file with foreign weights; default: the one that train_autoencoder makes",
    "latents": "latent set that it made: gives scaling_factor and latent_statistics.json",
    "format": "'diffusers' (the default) or 'official'",
    "license": "licence of the weights, for the model card (apache-2.0, mit, other, ...); default: unknown",
}


def run(command: Command) -> None:
    """Write the folder."""
    from dcae15.orchestration.export import export

    export(command.config, command.inputs, command.dry_run)


if __name__ == "__main__":
    sys.exit(run_script(run, __doc__ or "", sections=SECTIONS, inputs=INPUTS, optional_inputs=OPTIONAL))
