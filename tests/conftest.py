"""Shared test set-up: a persistent compile cache, so that only the first run compiles."""

import os
import pathlib

# Two processes share one accelerator; set before JAX takes most of its memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import pytest

from crl.bench.cli import use_enough_threads

use_enough_threads()
_CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
_CACHE = _CACHE / "crl" / "xla-tests"
_CACHE.mkdir(parents=True, exist_ok=True, mode=0o700)
jax.config.update("jax_compilation_cache_dir", str(_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What xdist keeps in one process: a file, unless a test says otherwise."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """What a file has compiled goes with it: a process would grow to 5 GB of programs."""
    yield
    jax.clear_caches()
