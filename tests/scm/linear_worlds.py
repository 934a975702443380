"""Linear SCMs in numpy, for comparisons with other libraries on the same arrays."""

import numpy as np

NOISES = {
    "exponential": lambda rng, size: rng.exponential(size=size),
    "laplace": lambda rng, size: rng.laplace(size=size),
    "uniform": lambda rng, size: rng.uniform(size=size),
    "gaussian": lambda rng, size: rng.normal(size=size),
}


def linear_world(seed, d, n, noise, edges_per_node=2.0):
    """x (n, d) float32 and weights (d, d), [i, j] the effect of i on j, |w| in U(.5, 2)."""
    rng = np.random.default_rng(seed)
    place = rng.permutation(d)
    edges = np.triu(rng.random((d, d)) < min(1, 2 * edges_per_node / (d - 1)), 1)
    weights = edges * rng.uniform(0.5, 2, (d, d)) * rng.choice([-1, 1], (d, d))
    x = NOISES[noise](rng, (n, d)) @ np.linalg.inv(np.eye(d) - weights)
    back = np.argsort(place)
    return x[:, back].astype(np.float32), weights[back][:, back]
