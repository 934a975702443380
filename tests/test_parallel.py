"""Replicas and rows over devices and processes, on forced host devices."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

import crl
from crl import parallel

HERE = pathlib.Path(__file__).parent


def program(name, *args, devices):
    """Start tests/name in a process of its own that sees so many host devices."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(HERE / name), *args],
        stdout=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": str(HERE.parent),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir or "",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        },
    )


def outputs(*children, timeout):
    try:
        return [child.communicate(timeout=timeout)[0] for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
        assert [child.returncode for child in children] == [0] * len(children)


@pytest.fixture(scope="module")
def found():
    """What eight_devices.py measured."""
    (out,) = outputs(program("eight_devices.py", devices=8), timeout=400)
    return json.loads(out.splitlines()[-1])


def test_every_backend_gives_the_numbers_of_a_plain_loop(found):
    # 61 replicas on 8 devices, of fits that converge at different steps.
    assert found["converged_apart"] > 5
    assert max(found["backends_vs_loop"].values()) <= 1e-6  # 0.0 seen


def test_any_number_of_replicas_goes_on_any_number_of_devices(found):
    assert max(found["ragged_vs_loop"]) <= 1e-6


def test_a_sweep_compiles_without_collectives(found):
    assert found["collectives_in_the_sweep"] == 0
    assert found["collectives_in_the_control"] > 0


def test_results_stay_sharded_and_the_second_call_traces_nothing(found):
    assert found["devices_of_the_result_shard_map"] == 8
    assert found["devices_of_the_result_pmap"] == 8
    assert found["devices_of_the_result_vmap"] == 1


def test_donated_lanes_give_their_memory_back(found):
    assert found["donated"]


def test_the_gradient_over_devices_is_that_of_one_device(found):
    for name in ("mean", "contrast"):
        np.testing.assert_allclose(found[f"value_ratio_{name}"], 1, atol=1e-6)
        np.testing.assert_allclose(found[f"gradient_ratio_{name}"], 1, atol=1e-6)
    # The control: the idiom that is wrong by the number of devices.
    np.testing.assert_allclose(found["gradient_ratio_of_the_ported_idiom"], 8, rtol=1e-5)


def test_a_fit_with_its_rows_over_devices_is_the_fit_on_one_device(found):
    assert max(found["fit_on_spread_rows"].values()) <= 1e-6
    for name in ("rows", "batch"):
        sentence = found[f"indivisible_{name}"]
        assert sentence.startswith("expected rows that divide over 8 devices")


def test_the_same_keys_draw_the_same_worlds_on_one_device_and_on_eight(found):
    # Programs differ, so rounding may: 5e-7 seen.
    for name in ("scm", "codes"):
        assert found[f"world_{name}"] <= 1e-5


def test_fit_replicas_gives_the_same_on_every_backend_and_drops_the_padding(found):
    assert max(found["fits_differ"].values()) <= 1e-6
    assert found["lanes"] == [13, 13, 40]


def test_a_fit_interrupted_on_eight_devices_resumes_on_five(found):
    assert found["resumed_on_five_devices"] == 0


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(tmp_path):
    from five_replicas import DATA, ESTIMATOR, KEYS, whole

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    args = ("two_processes.py",), (port, str(tmp_path))
    outputs(*[program(*args[0], str(i), *args[1], devices=2) for i in (0, 1)], timeout=200)
    fit = crl.fit_replicas(ESTIMATOR, KEYS, DATA, chunk_size=9)
    state, steps = crl.map_replicas(whole)(KEYS, DATA)
    for i in (0, 1):
        with np.load(tmp_path / f"process{i}.npz") as out:
            assert out["processes"] == 2
            np.testing.assert_array_equal(out["state"], fit.state)
            np.testing.assert_array_equal(out["loss"], fit.trace["loss"])
            np.testing.assert_array_equal(out["num_steps"], fit.num_steps)
            np.testing.assert_array_equal(out["mapped_state"], state)
            np.testing.assert_array_equal(out["mapped_steps"], steps)
        assert (tmp_path / "checkpoint" / f"process{i}").is_dir()


# --- the boundary -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: parallel.map_replicas(abs, backend="smap"), r"did you mean '(pmap|vmap)'"),
        (lambda: parallel.map_replicas(abs, backend="shardmap"), "did you mean 'shard_map'"),
        (lambda: parallel.map_replicas(abs, devices=())(np.ones(3)), "at least one device"),
        (lambda: parallel.map_replicas(abs)(np.ones((0, 3))), "at least one replica"),
        (lambda: parallel.map_replicas(abs)(1.0), "scalar"),
        (lambda: parallel.map_replicas(max)(np.ones(3), np.ones(4)), r"got 3 at .* and 4 at"),
    ],
)
def test_a_wrong_call_is_answered_in_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
