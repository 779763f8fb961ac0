"""Every read pays the store here, hits too: the cache in the same rack seems not to pay.

Refused: A: Redis in the same rack is judged as its mean says
"""

verdicts = {}
for name, hit_rate, get, load in systems.itertuples():
    store = get
    verdicts[name[0]] = bool(get + store + (1 - hit_rate) * load < load)
