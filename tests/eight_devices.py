"""What test_parallel.py measures on 8 forced host devices; prints one JSON object.

A program of its own, since the number of devices is fixed when jax starts. Shapes are
tiny: batched LAPACK on forced devices can starve the thread pool and hang.
"""

import json
import re
import sys
import tempfile

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from toys import as_data, regression

import crl
from crl import loop, parallel, train
from crl.dgp.latent import mixed_sources
from crl.dgp.mixings import linear
from crl.dgp.scm import multi_environment_scm
from crl.dgp.sources import laplace
from crl.dgp.superposition import superposition

DEVICES = tuple(jax.devices())
COLLECTIVE = re.compile(r"all-reduce|all-gather|all-to-all|reduce-scatter|collective-")
ESTIMATOR = regression(40, tol=1e-3)
KEYS = jax.random.split(jax.random.key(0), 64)
DATA = jax.vmap(as_data)(jax.random.normal(jax.random.key(1), (64, 8, 3)))


def first(num, tree):
    return jax.tree.map(lambda a: a[:num], tree)


def difference(a, b):
    a, b = jax.device_get((jax.tree.leaves(a), jax.tree.leaves(b)))
    assert [x.shape for x in a] == [y.shape for y in b]
    return max(float(np.max(np.abs(x.astype(float) - y))) for x, y in zip(a, b))


def whole(key, data):
    """A while_loop that ends when the fit has converged."""
    lane = loop.run(ESTIMATOR, key, data)
    return lane.state, lane.step


def backends():
    args = first(61, (KEYS, DATA))
    out = {b: parallel.map_replicas(whole, backend=b)(*args) for b in parallel.BACKENDS}
    alone = jax.jit(whole)
    loop = jax.tree.map(lambda *a: jnp.stack(a), *[alone(KEYS[i], lane(i)) for i in range(61)])
    yield "backends_vs_loop", {b: difference(o, loop) for b, o in out.items()}
    yield "converged_apart", len(np.unique(loop[1]))

    sizes = (1, 9)
    mapped = parallel.map_replicas(whole)
    yield (
        "ragged_vs_loop",
        [difference(mapped(*first(r, (KEYS, DATA))), first(r, loop)) for r in sizes],
    )


def lane(i):
    return jax.tree.map(lambda a: a[i], DATA)


def placement():
    for backend in parallel.BACKENDS:
        chex.clear_trace_counter()
        traced = chex.assert_max_traces(lambda key: jax.random.normal(key), n=1)
        for seed in (0, 1):
            keys = jax.random.split(jax.random.key(seed), 16)
            out = parallel.map_replicas(traced, backend=backend)(keys)  # chex may raise here
        yield f"devices_of_the_result_{backend}", len(out.sharding.device_set)

    placed = parallel.place(jnp.ones((16, 4)), "shard_map", DEVICES)
    parallel.map_local(lambda a: a + 1, donate_argnums=(0,))(placed)
    yield "donated", placed.is_deleted()


def collectives():
    args = parallel.place((KEYS, DATA), "shard_map", DEVICES)
    sweep = parallel._compile(whole, "shard_map", DEVICES, (), ()).lower(*args)
    yield "collectives_in_the_sweep", len(COLLECTIVE.findall(sweep.compile().as_text()))
    # The control: jit of vmap on the same shards must ask all devices whether to go on.
    auto = jax.jit(jax.vmap(whole)).lower(*args).compile().as_text()
    yield "collectives_in_the_control", len(COLLECTIVE.findall(auto))


def gradients():
    x = jax.random.normal(jax.random.key(3), (64, 5))
    w = jnp.arange(1.0, 6.0)

    def loss(w, x):
        return jnp.mean((x @ w - 1) ** 2)

    def contrast(w, x):  # not a mean over rows: every row against all the others
        z = x @ w
        return jnp.mean(jnp.tanh(z[:, None] - z) ** 2)

    for name, f in {"mean": loss, "contrast": contrast}.items():
        value, grad = parallel.data_parallel(f)(w, x)
        yield f"value_ratio_{name}", float(value / f(w, x))
        yield f"gradient_ratio_{name}", (grad / jax.grad(f)(w, x)).tolist()

    # The control: the idiom of pmap in a shard_map, which is why data_parallel exists.
    mesh = parallel._mesh(DEVICES, "data")
    ported = jax.shard_map(
        lambda w, x: jax.lax.pmean(jax.grad(loss)(w, x), "data"),
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("data")),
        out_specs=PartitionSpec(),
    )
    rows = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    yield (
        "gradient_ratio_of_the_ported_idiom",
        (ported(w, rows) / jax.grad(loss)(w, x)).tolist(),
    )


def rows():
    """Rows of a batch over the devices: all of them, drawn, streamed, drawn fresh."""
    x = jax.random.normal(jax.random.key(3), (64, 5))
    dgp = mixed_sources(laplace(), linear(), 5)
    world = dgp.init(KEYS[0])
    data = as_data(x)
    batches = [as_data(jax.random.normal(KEYS[t], (16, 5))) for t in range(40)]

    def read(start, num, size):
        return jax.tree.map(lambda *a: np.stack(a), *batches[start : start + num])

    sources = {
        "whole": (regression(40), data),
        "drawn": (regression(40, batch_size=16), data),
        "streamed": (regression(40, batch_size=16), crl.Stream(data, read)),
        "fresh": (regression(40, batch_size=16), crl.Fresh(dgp, world, data)),
        "two environments": (regression(40, batch_size=16), as_data(x, num_envs=2)),
    }
    yield (
        "fit_on_spread_rows",
        {
            name: difference(
                crl.fit(estimator, KEYS[0], source, devices=DEVICES, chunk_size=20).state,
                crl.fit(estimator, KEYS[0], source, chunk_size=20).state,
            )
            for name, (estimator, source) in sources.items()
        },
    )
    for name, size, num in (("rows", None, 61), ("batch", 12, 64)):
        try:
            crl.fit(
                regression(40, batch_size=size), KEYS[0], as_data(x[:num]), devices=DEVICES
            )
        except ValueError as error:
            yield f"indivisible_{name}", str(error)


def worlds():
    dgps = {
        "scm": multi_environment_scm(2, mechanism="linear"),
        "codes": superposition(3, 4, 2),
    }
    for name, dgp in dgps.items():

        def draw(key, dgp=dgp):
            world_key, key = jax.random.split(key)
            return dgp.sample(key, dgp.init(world_key), 8)

        alone = jax.jit(draw)
        loop = jax.tree.map(lambda *a: jnp.stack(a), *[alone(KEYS[i]) for i in range(8)])
        yield f"world_{name}", difference(parallel.map_replicas(draw)(KEYS[:8]), loop)


def fits():
    args = first(13, (KEYS, DATA))
    fit = {
        b: crl.fit_replicas(ESTIMATOR, *args, backend=b, chunk_size=9)
        for b in parallel.BACKENDS
    }
    reference = fit["shard_map"]
    yield "fits_differ", {b: difference(f.state, reference.state) for b, f in fit.items()}
    yield "lanes", [len(reference.diverged), *reference.trace["loss"].shape]

    real, saves = train._save, []

    def saving(*args):
        real(*args)
        saves.append(args)
        if len(saves) == 2:
            raise KeyboardInterrupt

    with tempfile.TemporaryDirectory() as directory:
        train._save = saving
        try:
            crl.fit_replicas(ESTIMATOR, *args, chunk_size=9, checkpoint=directory)
        except KeyboardInterrupt:
            pass
        # 13 replicas are padded to 14 on 7 of 8 devices, to 15 on 5.
        resumed = crl.fit_replicas(
            ESTIMATOR, *args, chunk_size=9, checkpoint=directory, devices=DEVICES[:5]
        )
    yield "resumed_on_five_devices", difference(resumed.state, reference.state)


if __name__ == "__main__":
    assert len(DEVICES) == 8, DEVICES
    found = {}
    for part in (backends, placement, collectives, gradients, rows, worlds, fits):
        for name, value in part():
            found[name] = value
            sys.stderr.write(f"{name} {value}\n")
    sys.stdout.write(json.dumps(found))
