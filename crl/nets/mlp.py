"""Multilayer perceptrons."""

from flax import linen
from jax import Array

from crl.nets.net import Net, from_linen


class MLP(linen.Module):
    """``depth`` hidden layers of ``width`` units with SiLU between linear maps.

    The last layer starts at a hundredth of the usual size: the MLP is a correction that
    grows, on top of what its caller adds it to.
    """

    num_outputs: int
    width: int
    depth: int

    @linen.compact
    def __call__(self, x: Array) -> Array:  # (n, p) -> (n, num_outputs)
        for _ in range(self.depth):
            x = linen.silu(linen.Dense(self.width, param_dtype=x.dtype)(x))
        small = linen.initializers.variance_scaling(1e-4, "fan_in", "normal")
        return linen.Dense(self.num_outputs, param_dtype=x.dtype, kernel_init=small)(x)


def mlp(num_outputs: int, width: int = 64, depth: int = 2) -> Net:
    """A smooth MLP, (n, p) -> (n, num_outputs), in the float type of its input."""
    return from_linen(MLP(num_outputs, width, depth))
