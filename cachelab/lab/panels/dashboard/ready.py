"""The panels that need no server of their own, made once: kernels forked from here share them."""

import gc

from cachelab.lab.panels import dashboard, widgets

cost_of_a_hit = widgets.cost_of_a_hit()
batch_and_round_trip = widgets.batch_and_round_trip(*dashboard.recorded())
how_big_a_cache = widgets.how_big_a_cache(progress=False)
ttl_and_staleness = widgets.ttl_and_staleness()
stampede = widgets.stampede()
limit_over_time = widgets.limit_over_time()
prefetch_and_price = widgets.prefetch_and_price(progress=False)
claim_and_evidence = widgets.claim_and_evidence()

# What is there now is looked at by no collection after the fork: to look is to write, and what is
# written is no longer shared.
gc.collect()
gc.freeze()
