"""import_*: other people's weights as an artifact, so that every stage treats them like trained ones."""

from __future__ import annotations

from collections.abc import Mapping

from dcae15 import artifacts
from dcae15.config import autoencoder_spec
from dcae15.stages.base import Context, Output, Stage


def run(context: Context, inputs: Mapping[str, str], output: Output) -> None:
    """Read the weights and write the artifact, in this process."""
    from dcae15.export.foreign_weights import import_autoencoder

    settings = context.config.autoencoder
    import_autoencoder(
        inputs["weights"],
        autoencoder_spec(settings),
        uri=output.uri,
        fingerprint=output.fingerprint,
        preset=settings.preset,
    )


STAGE = Stage(
    "import",
    "Import other people's weights.",
    role="",
    makes=artifacts.Autoencoder,
    reads=("weights",),
    run=run,
    identity=lambda view: {},
    facts=lambda view: {},
)
"""It is not in the list of stages: a plan has one for each given autoencoder that is foreign."""
