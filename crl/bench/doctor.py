"""``crl doctor``: what is installed, which devices there are, and whether they agree."""

import os
import subprocess
import sys
from pathlib import Path

import jax

import crl
from crl.bench.run.measure import provenance

NUM_DEVICES = 8
TIMEOUT = 180  # seconds

# Runs in a fresh process, since the number of host devices is fixed once jax has started.
SELF_TEST = """
import jax, jax.numpy as jnp, numpy as np
from crl.parallel import map_replicas
def sweep(key):
    x = jax.random.normal(key, (32, 4))
    return jax.lax.fori_loop(0, 10, lambda _, w: jnp.tanh(x.T @ (x @ w)), jnp.eye(4))
keys = jax.random.split(jax.random.key(0), 13)
assert len(jax.local_devices()) == 8, jax.local_devices()
first, *others = [
    np.asarray(map_replicas(sweep, backend=b)(keys)) for b in ("vmap", "shard_map", "pmap")
]
for other in others:
    np.testing.assert_allclose(other, first, rtol=1e-4, atol=1e-5)
"""


def examine() -> int:
    """Print what a bug report needs; exit code 1 if the self test fails."""
    made_by = provenance(jax.local_devices())
    for name, version in made_by.versions.items():
        print(f"{name:14} {version}")
    print(f"{'machine':14} {made_by.machine}")
    print(f"{'commit':14} {made_by.commit}{' (edited)' if made_by.dirty else ''}")
    kinds = [f"{d.id}: {d.device_kind} ({d.platform})" for d in jax.local_devices()]
    print(f"{'devices':14} {', '.join(kinds)}")
    print(f"{'precision':14} {'float64' if jax.config.jax_enable_x64 else 'float32'}")
    folder = jax.config.jax_compilation_cache_dir
    if folder and Path(folder).is_dir():
        files = [f for f in Path(folder).iterdir() if f.is_file()]
        size = sum(f.stat().st_size for f in files) / 2**20
        mode = Path(folder).stat().st_mode & 0o777
        print(f"{'compile cache':14} {folder} ({len(files)} files, {size:.0f} MiB, {mode:o})")
    else:
        print(f"{'compile cache':14} {folder or 'off'}")
    print(f"{'self test':14} 13 seeds on {NUM_DEVICES} forced CPU devices ... ", end="")
    error = self_test()
    print(error or "vmap, shard_map and pmap agree")
    return 1 if error else 0


def self_test() -> str:
    """Seeds over forced host devices with every backend; "" or what went wrong."""
    flags = f"--xla_force_host_platform_device_count={NUM_DEVICES}"
    path = os.pathsep.join([str(Path(crl.__file__).parent.parent), *sys.path])
    own = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": path}
    try:
        done = subprocess.run(
            [sys.executable, "-c", SELF_TEST],
            env={**os.environ, **own},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {TIMEOUT} s"
    said = done.stderr.strip().splitlines() or [f"ended with exit code {done.returncode}"]
    return "" if done.returncode == 0 else said[-1]
