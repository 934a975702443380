import pathlib
import sys

import jax
import jax.numpy as jnp
import pytest

from crl.bench.run.measure import free_programs


@pytest.mark.skipif(sys.platform != "linux", reason="counts the memory maps of Linux")
def test_compiled_programs_are_forgotten_before_the_maps_of_the_process_run_out():
    def num_maps():
        return pathlib.Path("/proc/self/maps").read_bytes().count(b"\n")

    before = num_maps()
    programs = [jax.jit(lambda x, i=i: jnp.linalg.cholesky(x + i)) for i in range(10)]
    for program in programs:
        program(jnp.eye(3)).block_until_ready()
    grown = num_maps()
    assert grown > before + 50
    free_programs()
    assert num_maps() >= grown - 10  # far from half of what is allowed
    free_programs(share=0.0)
    assert num_maps() < grown - 50
    assert jnp.isfinite(programs[3](jnp.eye(3))).all()  # compiles again
