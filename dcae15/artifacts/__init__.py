"""What the stages hand to each other: kinds of artifacts, and the manifests that finish and name them."""

from dcae15.artifacts.kinds import (
    LATENT_BYTES,
    Artifact,
    Autoencoder,
    Denoiser,
    Evaluation,
    ImageSet,
    LatentSet,
    LatentSpec,
    Milestones,
    Shard,
    Split,
    Statistics,
)
from dcae15.artifacts.manifests import (
    CHECKPOINTS,
    HISTORY,
    MANIFEST,
    PICTURES,
    RAW_WEIGHTS,
    WEIGHTS,
    environment,
    finished,
    now,
    read_history,
    read_manifest,
    read_pictures,
    set_counts,
    snapshot_uri,
)
