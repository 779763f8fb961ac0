"""Worked out from the mean of each system."""

verdicts = {}
for name, hit_rate, get, load in systems.itertuples():
    mean = get + (1 - hit_rate) * (load + get)
    verdicts[name[0]] = mean < load
