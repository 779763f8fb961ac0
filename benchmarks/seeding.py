"""Time every seeding method against the pipeline of 100, side by side on a server of its own.

Run by hand: ``python benchmarks/seeding.py [--count 1000] [--rounds 25]``. "times faster" is the
pipeline's median time over the method's, with the 95 % interval of that ratio; "written only"
leaves out the generation of the users.
"""

import argparse
import asyncio
from functools import partial

import hiredis
import pandas as pd
import redis

import cachelab as cl
from cachelab import seeder
from cachelab.lab import timing

TARGETS = {
    "bulk": 3,
    "bulk of 1000": 3,
    "bulk, written only": 5,
    "bulk of 1000, written only": 5,
    "bulk with ttl": 1.5,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, help="users to seed")
    parser.add_argument("--rounds", type=int, default=25)
    arguments = parser.parse_args()
    print(
        f"{arguments.count} users, {arguments.rounds} rounds; "
        f"redis-py {redis.__version__}, hiredis {hiredis.__version__}"
    )
    with cl.Server() as server:
        client, aclient = cl.connect(server.url), cl.connect_async(server.url)
        write = partial(cl.seed, client, arguments.count)
        awrite = partial(cl.seed_async, aclient, arguments.count)
        ready = {size: list(seeder._batches(arguments.count, size, "", 0)) for size in (100, 1000)}

        def write_only(method: str, size: int) -> None:
            for batch in ready[size]:
                seeder._METHODS[method](client, batch, {})

        plain = {
            "pipeline": write,
            "one by one": partial(write, method="one_by_one"),
            "threads": partial(write, method="threads"),
            "bulk": partial(write, method="bulk"),
            "bulk of 1000": partial(write, method="bulk", batch_size=1000),
        }
        alone = {
            "pipeline, written only": partial(write_only, "pipeline", 100),
            "bulk, written only": partial(write_only, "bulk", 100),
            "bulk of 1000, written only": partial(write_only, "bulk", 1000),
        }
        expiring = {
            "pipeline with ttl": partial(write, ttl=60),
            "bulk with ttl": partial(write, method="bulk", ttl=60),
        }
        for variants in (plain, alone, expiring):
            show("sync", timing.compare(variants, rounds=arguments.rounds))
        plain = {
            "pipeline": awrite,
            "one by one": partial(awrite, method="one_by_one"),
            "gather": partial(awrite, method="gather"),
            "bulk": partial(awrite, method="bulk"),
            "bulk of 1000": partial(awrite, method="bulk", batch_size=1000),
        }
        expiring = {
            "pipeline with ttl": partial(awrite, ttl=60),
            "bulk with ttl": partial(awrite, method="bulk", ttl=60),
        }

        async def measure() -> None:
            for variants in (plain, expiring):
                show("async", await timing.compare_async(variants, rounds=arguments.rounds))
            await aclient.connection_pool.disconnect()

        asyncio.run(measure())


def show(flavour: str, times: pd.DataFrame) -> None:
    """Print a line a variant; the first variant is what the others are compared with."""
    for name, row in timing.summary(times).iterrows():
        interval = f"{1 / row.ratio_high:.2f} to {1 / row.ratio_low:.2f}"
        faster = f"{1 / row.ratio:6.2f} ({interval}) times faster"
        target = f", target {TARGETS[name]}" if name in TARGETS else ""
        print(f"{flavour:6}{name:28}{row.p50 * 1000:8.2f} ms {faster}{target}")
    print()


if __name__ == "__main__":
    main()
