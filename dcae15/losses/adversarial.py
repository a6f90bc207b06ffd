"""The adversarial game of VQGAN (arXiv 2012.09841): hinge losses, and the weight that balances it with the reconstruction."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

_MOST = 1e4
_EPS = 1e-4  # keeps the factor finite when the discriminator has nothing to say


def hinge_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return what the discriminator minimises, from its logits of any shape: 1 when it is blind, 0 when it always wins."""
    return 0.5 * (F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean())


def generator_loss(fake: Tensor) -> Tensor:
    """Return what the autoencoder minimises, from the discriminator's logits of the reconstructions."""
    return -fake.float().mean()


def adaptive_weight(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return the factor that makes both gradients at the decoder's last layer equally long (arXiv 2012.09841, Eq. 7).

    ``ours`` is the gradient of the reconstruction losses with respect to that weight, ``theirs`` that of the generator loss.
    """
    return (ours.float().norm() / (theirs.float().norm() + _EPS)).clamp(0, _MOST).detach()


class LastLayer:
    """The gradient of a loss at the weight of the decoder's last convolution, without a pass through the decoder.

    It remembers what went into that convolution at each call of the decoder with gradients enabled.
    The gradient of the loss at the decoder's output is then all that is needed: no autograd graph, so it works as well
    for a decoder that is compiled (whose backward is all or nothing), sharded or wrapped.

    Call `reset` before the decoder's first call of each step: `gradient` may be called any number of times in between. The hook
    goes away with this object. Creating it drops what torch.compile compiled so far: that code would not call it. The decoder's
    last ``nn.Conv2d`` must be followed by nothing, or by a pixel shuffle.
    """

    def __init__(self, decoder: nn.Module) -> None:
        self.conv = [layer for layer in decoder.modules() if isinstance(layer, nn.Conv2d)][-1]
        self._inputs: list[Tensor] = []
        me = weakref.ref(self)  # the next phase trains the same decoder: it must not feed this object for ever

        def remember(conv: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            last_layer = me()
            if last_layer is not None and torch.is_grad_enabled():  # whether or not the layer itself trains
                last_layer._inputs.append(inputs[0].detach())

        hook: Any = torch.compiler.disable(remember)  # a traced list would be compiled anew for each of its lengths
        weakref.finalize(self, self.conv.register_forward_pre_hook(hook).remove)
        torch.compiler.reset()

    def reset(self) -> None:
        """Forget the calls so far."""
        self._inputs.clear()

    def gradient(self, grads_at_reconstructions: Sequence[Tensor]) -> Tensor:
        """Return the gradient at the last convolution's weight, in float32.

        Of each call since `reset`, in order, it takes the loss's gradient at the decoder's output.
        """
        if len(self._inputs) != len(grads_at_reconstructions):
            raise RuntimeError(
                f"the decoder was called {len(self._inputs)} times since reset(), but there are "
                f"{len(grads_at_reconstructions)} gradients"
            )
        with torch.no_grad(), torch.autocast(self._inputs[0].device.type, enabled=False):
            pairs = zip(self._inputs, grads_at_reconstructions, strict=True)
            return torch.stack([self._weight_gradient(x.float(), grad.float()) for x, grad in pairs]).sum(0)

    def _weight_gradient(self, inputs_BCHW: Tensor, grad_BCHW: Tensor) -> Tensor:
        factor = grad_BCHW.shape[-1] // inputs_BCHW.shape[-1]
        if factor > 1:
            grad_BCHW = F.pixel_unshuffle(grad_BCHW, factor)
        conv: Any = self.conv  # torch types these arguments as numbers, but takes pairs
        return conv2d_weight(
            inputs_BCHW, conv.weight.shape, grad_BCHW, conv.stride, conv.padding, conv.dilation, conv.groups
        )
