"""What one training step compiles to on 8 forced host devices; prints one JSON object."""

import json
import re
import sys

import jax
import numpy as np

from crl import parallel
from crl.core import grouped
from crl.sae.batch_topk_sae import batch_topk_sae
from crl.sae.topk_sae import topk_sae

DEVICES = tuple(jax.devices())
N, M, P, K = 64, 96, 40, 4


def shapes(text, operation):
    """The shapes of the results of an operation, e.g. [8, 96], by the computation it is in."""
    found, where = [], ""
    for line in text.splitlines():
        if start := re.match(r"(?:ENTRY )?%?([\w.-]+) .*{$", line):
            where = start[1]
        if re.search(rf"= .*\b{operation}\(", line):
            kinds = re.findall(r"\w+\[([\d,]*)\]", line.split(f" {operation}(")[0])
            found += [(where, [int(d) for d in kind.split(",") if d]) for kind in kinds]
    return found


def measure(factory):
    estimator = factory(M, K, batch_size=N, num_steps=1000)
    data = grouped(jax.random.normal(jax.random.key(1), (N, P)))
    state = estimator.init(jax.random.key(0), data)
    alone = jax.jit(estimator.step)(jax.random.key(2), state, data)

    def step(key, state, data):
        return estimator.step(key, state, parallel.spread_rows(data, DEVICES))

    args = parallel.on_all_devices((jax.random.key(2), state, data), DEVICES)
    compiled = jax.jit(step).lower(*args).compile()
    text = compiled.as_text()
    together = compiled(*args)
    bodies = set(re.findall(r"body=%?([\w.-]+)", text))
    products = [shape for _, shape in shapes(text, "dot")]
    # A product of (rows, p) or (rows, m), not a sum over rows (m, p) or the Gram matrix.
    by_row = {s[0] for s in products if s[1:] in ([P], [M]) and s not in ([M, P], [P, M])}
    top = [s[0] for _, s in shapes(text, "custom-call")]
    gathered = [int(np.prod(s)) for _, s in shapes(text, "all-gather")]
    sums = [s for where, s in shapes(text, "all-reduce") if where in bodies and len(s) == 2]
    return {
        "rows_of_products": sorted(by_row - {1, 256}),
        "rows_of_top_k": sorted(set(top)),
        "gathered_entries": max(gathered, default=0),
        "sums_of_gradients_in_loops": len(sums),
        "difference": max(
            float(np.max(np.abs(np.asarray(a) - np.asarray(b))))
            for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(together))
        ),
    }


if __name__ == "__main__":
    assert len(DEVICES) == 8, DEVICES
    found = {f.__name__: measure(f) for f in (topk_sae, batch_topk_sae)}
    # The control, and the reason why the step selects in another way.
    rows = parallel.over_devices(jax.numpy.ones((N, M)), DEVICES, 0)
    plain = jax.jit(lambda pre: jax.lax.top_k(pre, K)).lower(rows).compile().as_text()
    found["rows_of_plain_top_k"] = sorted({s[0] for _, s in shapes(plain, "custom-call")})
    sys.stdout.write(json.dumps(found))
