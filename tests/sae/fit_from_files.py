"""Fits a sparse autoencoder to rows on disk; a program of its own, to be killed and weighed.

    python fit_from_files.py FOLDER OUT CHECKPOINT OPTIONS

OUT: the fitted state, as .npz. CHECKPOINT: a directory or "". OPTIONS: of the factory, as
JSON. Rows go over all devices that jax sees. Prints the peak of resident memory, in bytes.
"""

import json
import pathlib
import sys

import jax
import numpy as np

import crl
from crl.files import stream_rows
from crl.sae.batch_topk_sae import batch_topk_sae

if __name__ == "__main__":
    folder, out, checkpoint, options = sys.argv[1:]
    estimator = batch_topk_sae(**json.loads(options))
    devices = jax.devices() if jax.device_count() > 1 else None
    fit = crl.fit(
        estimator,
        jax.random.key(0),
        stream_rows(folder, seed=0),
        devices=devices,
        checkpoint=checkpoint or None,
    )
    assert not fit.diverged
    np.savez(out, *jax.tree.leaves(fit.state))
    status = pathlib.Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in status if line.startswith("VmHWM"))
    sys.stdout.write(f"{int(peak) * 1024}\n")
