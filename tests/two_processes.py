"""One of two processes that fit five replicas together; see test_parallel.py."""

import sys

import jax
import numpy as np

number, port, directory = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=number)

from five_replicas import DATA, ESTIMATOR, KEYS, whole  # noqa: E402

import crl  # noqa: E402

fit = crl.fit_replicas(
    ESTIMATOR, KEYS, DATA, chunk_size=9, checkpoint=f"{directory}/checkpoint"
)
state, step = crl.map_replicas(whole)(KEYS, DATA)
np.savez(
    f"{directory}/process{number}.npz",
    state=fit.state,
    loss=fit.trace["loss"],
    num_steps=fit.num_steps,
    mapped_state=state,
    mapped_steps=step,
    processes=jax.process_count(),
)
