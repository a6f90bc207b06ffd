"""What trains in a phase and what is frozen, and whether training kept to it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from dcae15.errors import ConfigError, TrainingError
from dcae15.models.autoencoder import Autoencoder
from dcae15.runtime import Runtime
from dcae15.training.parallel import from_first_worker


def freeze(network: Autoencoder, parts: Sequence[str], path: str = "parts") -> None:
    """Leave only the named parts trainable, see ``PhaseConfig.parts``; ``path`` is the field that names them.

    Raises:
        ConfigError: a part names no parameter; the message lists what there is.
    """
    beginnings = _beginnings(network)
    names = [name for name, _ in network.named_parameters()]
    trainable: set[str] = set()
    for part in parts:
        found = [name for name in names if name.startswith(beginnings.get(part, (part,)))]
        if not found:
            near = sorted({".".join(name.split(".")[:3]) for name in names})
            raise ConfigError(
                f"{path} has '{part}', which begins no parameter of this autoencoder; "
                f"its parameters begin with {', '.join(near)}"
            )
        trainable.update(found)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in trainable)


def _beginnings(network: Autoencoder) -> dict[str, tuple[str, ...]]:
    stages = [
        f"decoder.up_blocks.{i}." for i, stage in enumerate(network.decoder.up_blocks) if len(list(stage.children()))
    ]
    return {
        "all": ("",),
        "encoder": ("encoder.",),
        "decoder": ("decoder.",),
        "encoder_head": ("encoder.conv_out.",),
        "decoder_input": ("decoder.conv_in.",),
        "decoder_head": ("decoder.norm_out.", "decoder.conv_out."),
        "decoder_last_stage": tuple(stages[:1]),  # stages are numbered from image to latent
    }


def train_mode(network: nn.Module) -> None:
    """Put what trains into training mode; frozen modules keep their running statistics, too."""
    network.train()
    for module in network.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()


def changeable(network: nn.Module) -> set[str]:
    """Return the names of weights that training may change: what is not frozen, and the running statistics of what trains."""
    trainable = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    training = {name for name, module in network.named_modules() if module.training}
    return trainable | {name for name, _ in network.named_buffers() if name.rsplit(".", 1)[0] in training}


def digests(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Return a digest of every tensor, by name; they tell what a phase changed."""
    return {
        name: hashlib.blake2b(value.detach().cpu().contiguous().view(-1).numpy().data, digest_size=8).hexdigest()
        for name, value in weights.items()
    }


def require_frozen(
    before: Mapping[str, str], weights: Mapping[str, Tensor], trainable: set[str], runtime: Runtime
) -> list[str]:
    """Return the trainable parameters that a phase left as they were, on every worker; all must call this together.

    ``before`` and ``weights`` are those of the phase's begin and end, of which only the first worker's are read; see `changeable`.

    Raises:
        TrainingError: something frozen has changed; the result must not be used. On every worker.
    """
    after = digests(weights) if runtime.rank == 0 else {}
    changed = from_first_worker({name for name in after if before[name] != after[name]}, runtime)
    if forbidden := sorted(changed - trainable):
        raise TrainingError(
            f"{len(forbidden)} frozen tensors have changed, such as {forbidden[0]}; this is a bug, and the result was not written"
        )
    return sorted(trainable - changed)
