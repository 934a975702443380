"""Multilayer perceptrons; each factory says what its network starts as."""

from flax import linen
from jax import Array
from jax.nn.initializers import Initializer, lecun_normal, variance_scaling

from crl.nets.net import Net, from_linen


class MLP(linen.Module):
    """``depth`` hidden layers of ``width`` units with SiLU between linear maps."""

    num_outputs: int
    width: int
    depth: int
    after_units: Initializer  # of the kernels that see hidden units, but the last
    last: Initializer

    @linen.compact
    def __call__(self, x: Array) -> Array:  # (n, p) -> (n, num_outputs)
        kernel = lecun_normal()
        for _ in range(self.depth):
            x = linen.silu(linen.Dense(self.width, param_dtype=x.dtype, kernel_init=kernel)(x))
            kernel = self.after_units
        return linen.Dense(self.num_outputs, param_dtype=x.dtype, kernel_init=self.last)(x)


def mlp(num_outputs: int, width: int = 64, depth: int = 2) -> Net:
    """A smooth MLP, (n, p) -> (n, num_outputs), in the float type of its input.

    Starts as a random function whose outputs have mean square about 1 where those of its
    inputs have, at any depth >= 1: for encoders, decoders and classifiers.
    """
    # SiLU leaves .356 of the mean square of a unit Gaussian; the kernels make up for it.
    kernel = variance_scaling(1 / 0.356, "fan_in", "normal")
    return from_linen(MLP(num_outputs, width, depth, kernel, kernel))


def residual_mlp(num_outputs: int, width: int = 64, depth: int = 2) -> Net:
    """``mlp`` as a correction that grows, on top of what its caller adds it to.

    Starts as almost nothing: outputs of root mean square about .003 for inputs of 1.
    """
    small = variance_scaling(1e-4, "fan_in", "normal")
    return from_linen(MLP(num_outputs, width, depth, lecun_normal(), small))
