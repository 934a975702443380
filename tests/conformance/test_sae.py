"""Every estimator of crl.sae keeps the contract."""

from functools import partial

from properties import estimators

from crl.sae.batch_topk_sae import batch_topk_sae
from crl.sae.topk_sae import topk_sae
from crl.testing.tasks import dictionary_task

test_estimator = estimators(
    {
        "topk_sae": (partial(topk_sae, 12, 2, num_steps=400), dictionary_task),
        "batch_topk_sae": (partial(batch_topk_sae, 12, 2, num_steps=400), dictionary_task),
    }
)
