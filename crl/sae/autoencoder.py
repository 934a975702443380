"""What the sparse autoencoders share: one hidden layer with unit atoms, and its training.

x ~ codes @ w_dec + b_dec, with codes chosen from the pre-activations of an affine encoder.
How they are chosen is what tells one method from another; the start, the loss, AuxK,
population control and the claims are the same and stand here.

A step sees rows that may lie over several devices, and each device works on its own:
products, ``top_k`` and scatters are written so that the partitioner splits them by row.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from crl.check import check_options
from crl.core import Data, Readout
from crl.numerics.linalg import dot, sum_of_squares, unit_rows
from crl.sae.atoms import duplicates, geometric_median, unit_decoder, worst_directions


class Params(NamedTuple):
    """The autoencoder: pre = w_enc (x - b_dec) + b_enc, and x ~ codes @ w_dec + b_dec."""

    w_enc: Array  # (m, p) encoder directions in rows
    b_enc: Array  # (m,)
    w_dec: Array  # (m, p) unit-norm atoms in rows
    b_dec: Array  # (p,)


class Training(NamedTuple):
    """The autoencoder, its optimiser, and what population control counts."""

    params: Params  # of the autoencoder of x / scale
    opt: optax.OptState
    scale: Array  # ()
    age: Array  # (m,) int32 steps since the atom last fired, or was replaced
    step: Array  # () int32


class Recipe(NamedTuple):
    """How an autoencoder is trained: the options that the methods share."""

    num_atoms: int
    k: int  # active atoms per row, at most or in the mean
    population_control: bool
    dead_after: int  # steps of silence after which an atom is dead
    aux_weight: float  # of AuxK
    num_steps: int
    optimizer: optax.GradientTransformation


def recipe(
    who: str,
    num_atoms: int,
    k: int,
    population_control: bool,
    dead_after: int,
    aux_weight: float,
    num_steps: int,
    batch_size: int,
    learning_rate: float,
) -> Recipe:
    """The options of the factory ``who``, checked."""
    check_options(
        who,
        at_least_one=dict(
            num_atoms=num_atoms,
            dead_after=dead_after,
            num_steps=num_steps,
            batch_size=batch_size,
        ),
        positive=dict(learning_rate=learning_rate),
        nonnegative=dict(aux_weight=aux_weight),
    )
    if not 1 <= k <= num_atoms:
        raise ValueError(f"{who} needs 1 <= k <= num_atoms, got k={k} of {num_atoms}")
    optimizer = adam(learning_rate, num_steps)
    return Recipe(
        num_atoms, k, population_control, dead_after, aux_weight, num_steps, optimizer
    )


def flat_rows(data: Data) -> Array:
    """x (n, ...) as (n, p)."""
    return data.x.reshape(len(data.x), -1)


def encode(params: Params, x: Array, multiply: Callable = jnp.matmul) -> Array:
    """Pre-activations (n, m) of x (n, p).

    A training step takes the products that its hardware likes best: rounding is small
    beside the noise of a batch. Claims are made with ``dot``.
    """
    return multiply(x - params.b_dec, params.w_enc.T) + params.b_enc


def top_k(pre: Array, k: int) -> tuple[Array, Array]:
    """The k largest entries of each row of pre (n, m), largest first: values and indices."""
    # lax.top_k gathers the rows of all devices on each. With recall 1 this is the same
    # exact selection, and compiles to the same on a CPU, but each device keeps its rows.
    return jax.lax.approx_max_k(pre, k, recall_target=1.0)


def top_codes(pre: Array, k: int) -> Array:
    """The k largest entries of each row of pre (n, m), where positive; 0 elsewhere."""
    values, index = top_k(pre, k)  # (n, k)

    def put(value, index):  # exactly k, also in ties
        return jnp.zeros(pre.shape[1:], pre.dtype).at[index].set(value, unique_indices=True)

    return jax.vmap(put)(jax.nn.relu(values), index)


def adam(learning_rate: float, num_steps: int) -> optax.GradientTransformation:
    """Adam on clipped gradients that keeps the atoms at norm 1.

    Linear warm-up over 2 % of num_steps to learning_rate, cosine to 2 % of it.
    """
    warm_up = max(1, num_steps // 50)
    decay = optax.cosine_decay_schedule(1.0, max(1, num_steps - warm_up), alpha=0.02)

    def rate(step):
        return learning_rate * jnp.minimum(1.0, (step + 1) / warm_up) * decay(step - warm_up)

    return unit_decoder(
        optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.scale_by_adam(),
            optax.scale_by_schedule(lambda step: -rate(step)),
        )
    )


def begin(key: Array, data: Data, how: Recipe) -> Training:
    """Random atoms, the encoder their transpose, around the geometric median of x."""
    x = flat_rows(data)
    x = x[:: max(1, len(x) // 8192)]  # rows are grouped, so a stride sees all groups
    center = geometric_median(x)
    # E |x - center|^2 = k, so that the active codes are of order 1.
    scale = jnp.sqrt(jnp.mean(jnp.sum((x - center) ** 2, axis=1)) / how.k)
    scale = jnp.where(scale > 0, scale, 1)
    atoms = unit_rows(jax.random.normal(key, (how.num_atoms, x.shape[1]), x.dtype))
    params = Params(atoms, jnp.zeros(len(atoms), x.dtype), atoms, center / scale)
    age = jnp.zeros(len(atoms), jnp.int32)
    step = jnp.zeros((), jnp.int32)
    return Training(params, how.optimizer.init(params), scale, age, step)


def improve(
    training: Training, x: Array, autoencode: Callable, how: Recipe
) -> tuple[Training, dict[str, Array]]:
    """One step on the mean of |x - estimate|^2 and AuxK, and population control.

    x: (n, p) in units of training.scale. autoencode: (params, x) -> (estimate (n, p), which
    atoms fired (m,) bool).
    """
    # Population control takes an atom as soon as it is dead: AuxK has its say before.
    is_dead = training.age >= -(-how.dead_after // 2)

    def loss(params):
        estimate, fired = autoencode(params, x)
        residual = x - estimate
        sse = jnp.mean(jnp.sum(residual**2, axis=1))
        aux = aux_loss(params, x, residual, is_dead)
        return sse + how.aux_weight * aux, (sse, residual, fired)

    grads, (sse, residual, fired) = jax.grad(loss, has_aux=True)(training.params)
    updates, opt = how.optimizer.update(grads, training.opt, training.params)
    params = optax.apply_updates(training.params, updates)
    age = jnp.where(fired, 0, training.age + 1)
    training = Training(params, opt, training.scale, age, training.step + 1)
    info = {"loss": sse / how.k, "num_dead": jnp.sum(age >= how.dead_after)}
    if how.population_control:
        wasted = wasted_atoms(training, how)
        info["num_replaced"] = jnp.sum(wasted)
        training = jax.lax.cond(
            jnp.any(wasted), replace, lambda training, *_: training, training, residual, wasted
        )
    return training, info


def aux_loss(params: Params, x: Array, residual: Array, is_dead: Array) -> Array:
    """AuxK: how badly the p / 2 best dead atoms explain the residual, over its variance.

    x, residual: (n, p). is_dead: (m,) bool. The residual is a target and gets no gradient;
    b_dec, whose part it lacks already, is not added again. The gradient reaches the dead
    atoms only. 0 when none is dead.
    """
    m, p = params.w_dec.shape
    target = jax.lax.stop_gradient(residual)

    def some(params):
        fixed = params._replace(b_dec=jax.lax.stop_gradient(params.b_dec))
        codes = top_codes(jnp.where(is_dead, encode(fixed, x), -1), min(max(1, p // 2), m))
        error = jnp.sum((target - codes @ params.w_dec) ** 2)
        variance = jnp.sum((target - jnp.mean(target, axis=0)) ** 2)
        return error / jnp.where(variance > 0, variance, 1)

    # A second encoding with a larger top-k: not paid for as long as every atom fires.
    return jax.lax.cond(jnp.any(is_dead), some, lambda _: jnp.zeros((), x.dtype), params)


def wasted_atoms(training: Training, how: Recipe) -> Array:
    """(m,) bool: atoms that are dead and, looked at every 100 steps, later twins of others.

    Twins have a cosine above 0.9. None in the last fifth of the steps, which is for what
    there is to settle.
    """
    is_open = training.step < 0.8 * how.num_steps
    is_twin = jax.lax.cond(
        is_open & (training.step % 100 == 0),
        lambda atoms: duplicates(atoms, 0.9),
        lambda atoms: jnp.zeros(len(atoms), bool),
        training.params.w_dec,
    )
    return is_open & (is_twin | (training.age >= how.dead_after))


def replace(training: Training, residual: Array, wasted: Array) -> Training:
    """Wasted atoms take the directions of the worst residuals, their past forgotten."""
    directions, replaced = worst_directions(residual, wasted)

    def put(params, rows, bias):
        return Params(
            jnp.where(replaced[:, None], rows, params.w_enc),
            jnp.where(replaced, bias, params.b_enc),
            jnp.where(replaced[:, None], rows, params.w_dec),
            params.b_dec,
        )

    mu, nu = (optax.tree_utils.tree_get(training.opt, name) for name in ("mu", "nu"))
    opt = optax.tree_utils.tree_set(training.opt, mu=put(mu, 0, 0), nu=put(nu, 0, 0))
    return training._replace(
        params=put(training.params, directions, 0),
        opt=opt,
        age=jnp.where(replaced, 0, training.age),
    )


def claims(params: Params, scale: Array, choose: Callable, data: Data) -> Readout:
    """Dictionary, codes and reconstruction of data in the units of its x.

    params: of the autoencoder of x / scale. choose: pre-activations (n, m) -> codes (n, m).
    """
    x = flat_rows(data)
    codes = choose(encode(params, x / scale, dot))
    estimate = scale * (dot(codes, params.w_dec) + params.b_dec)
    diag = {
        "dead_fraction": jnp.mean(jnp.all(codes == 0, axis=0)),
        "l0": jnp.mean(jnp.sum(codes > 0, axis=1)),
        "fvu": jnp.sum((x - estimate) ** 2) / sum_of_squares(x),
    }
    return Readout(
        x=estimate.reshape(data.x.shape),
        dictionary=params.w_dec,
        codes=scale * codes,
        diag=diag,
    )
