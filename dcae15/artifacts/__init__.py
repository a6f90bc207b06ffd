"""What the stages hand to each other: kinds of artifacts, and the manifests that finish and name them."""

from dcae15.artifacts.files import (
    CHECKPOINTS,
    HISTORY,
    PICTURES,
    RAW_WEIGHTS,
    WEIGHTS,
    read_history,
    read_pictures,
    snapshot_uri,
)
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
from dcae15.artifacts.manifests import MANIFEST, environment, finished, now, read_manifest, set_counts
