"""Experiments on event loops, tasks and threads."""

import asyncio
import functools
import json
import os
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import redis
import redis.asyncio

from cachelab.lab.claims.bench import Bench, awaited, raised, trial
from cachelab.lab.claims.cases import Case, counted, instead, sampled


@trial
def one_thread(bench: Bench) -> list[Case]:
    """Threads that are busy while forty waits of 20 ms run at once in a loop."""

    async def waits() -> int:
        before = threading.active_count()
        async with asyncio.TaskGroup() as group:
            for _ in range(40):
                group.create_task(asyncio.sleep(0.02))
        return threading.active_count() - before + 1

    return [counted("forty waits", awaited(waits), 40)]


@trial
def tasks_at_once(bench: Bench) -> list[Case]:
    """Tasks that wait at once, of 2,000."""

    async def most() -> int:
        waiting, highest = 0, 0

        async def wait() -> None:
            nonlocal waiting, highest
            waiting += 1
            highest = max(highest, waiting)
            await asyncio.sleep(0.1)
            waiting -= 1

        async with asyncio.TaskGroup() as group:
            for _ in range(2000):
                group.create_task(wait())
        return highest

    return [counted("tasks", awaited(most), 2000)]


@trial
def threads_at_once(bench: Bench) -> list[Case]:
    """Threads that wait at once, of 2,000."""
    gate, inside = threading.Event(), threading.Semaphore(0)

    def wait() -> None:
        inside.release()
        gate.wait(10)

    threads = []
    with suppress(RuntimeError):  # the system has no more
        for _ in range(2000):
            threads.append(threading.Thread(target=wait, daemon=True))
            threads[-1].start()
    waiting = sum(inside.acquire(timeout=5) for _ in threads)
    gate.set()
    for thread in threads:
        thread.join(5)
    return [counted("threads", waiting, 2000)]


@trial
def executor_queues(bench: Bench) -> list[Case]:
    """Blocking calls of 20 ms handed to the default executor at once, as times of one."""

    async def hand(count: int) -> float:
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        await asyncio.gather(*(loop.run_in_executor(None, time.sleep, 0.02) for _ in range(count)))
        return (time.perf_counter() - began) / 0.02

    workers, cases = min(32, (os.cpu_count() or 1) + 4), []
    for name, times in (("as many as it has threads", 1), ("ten times as many", 10)):
        rounds = [awaited(functools.partial(hand, times * workers)) for _ in range(3)]
        cases.append(sampled(name, rounds, predicted=times))
    return cases


@trial
def input_async(bench: Bench) -> list[Case]:
    """Threads that a read of a line needs beside the loop's own."""

    async def line() -> int:
        reading, writing = os.pipe()
        reader, before = asyncio.StreamReader(), threading.active_count()
        loop = asyncio.get_running_loop()
        with os.fdopen(reading) as file:
            transport, _ = await loop.connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), file
            )
            os.write(writing, b"user-1\n")
            said = await reader.readline()
            os.close(writing)
            transport.close()
        assert said == b"user-1\n"
        return threading.active_count() - before

    async def blocking() -> int:
        reading, writing = os.pipe()
        before = threading.active_count()
        with os.fdopen(reading) as file:
            task = asyncio.create_task(asyncio.to_thread(file.readline))
            await asyncio.sleep(0)
            threads = threading.active_count() - before
            os.write(writing, b"user-1\n")
            assert await task == "user-1\n"
        os.close(writing)
        return threads

    return [
        counted("a call that blocks, as input() does", awaited(blocking)),
        counted("a line from a pipe, awaited", awaited(line)),
    ]


@trial
def loop_got(bench: Bench) -> list[Case]:
    """Whether asyncio.get_event_loop() gives a loop: in a coroutine, in a thread."""

    async def inside() -> bool:
        return asyncio.get_event_loop().is_running()

    outside: list[type[BaseException] | None] = []
    thread = threading.Thread(target=lambda: outside.append(raised(asyncio.get_event_loop)))
    thread.start()
    thread.join()
    return [counted("in a coroutine", awaited(inside)), counted("in a thread", outside[0] is None)]


@trial
def loop_running(bench: Bench) -> list[Case]:
    """Different answers to "is the loop running?", asked from a coroutine of a loop that stalls."""

    async def asked() -> int:
        told = {asyncio.get_running_loop().is_running()}
        time.sleep(0.02)  # noqa: ASYNC251 (nothing else can run)
        return len(told | {asyncio.get_running_loop().is_running()})

    return [counted("before and in a stall", awaited(asked))]


@trial
def run_where_a_loop_runs(bench: Bench) -> list[Case]:
    """Whether asyncio.run() runs: in a script, and where a loop runs already."""

    async def inside() -> bool:
        coroutine = asyncio.sleep(0)
        try:
            return raised(lambda: asyncio.run(coroutine)) is None
        finally:
            coroutine.close()

    return [
        counted("in a script", awaited(lambda: asyncio.sleep(0, True))),
        counted("where a loop runs", awaited(inside)),
    ]


@trial
def clients_module(bench: Bench) -> list[Case]:
    """Whether the async client comes from aioredis."""
    module = redis.asyncio.Redis.__module__
    return [counted(f"from {module.rpartition('.')[0]}", module.startswith("aioredis"))]


@trial
def client_not_awaited(bench: Bench) -> list[Case]:
    """Whether an async client that was made without await answers."""

    async def answers() -> bool:
        client = redis.asyncio.Redis.from_url(bench.server.url)
        try:
            return await client.ping()
        finally:
            await client.aclose()

    return [counted("made by a plain call", awaited(answers))]


@trial
def siblings(bench: Bench) -> list[Case]:
    """Of nine others, those that still run when the call has come back to its caller."""

    async def left(run: Callable[[list], Awaitable[object]], fail: bool) -> int:
        async def last() -> None:
            if fail:
                raise LookupError

        tasks = [asyncio.create_task(asyncio.sleep(0.05)) for _ in range(9)]
        with suppress(LookupError, ExceptionGroup):
            await run([*tasks, asyncio.create_task(last())])
        running = sum(not task.done() for task in tasks)
        await asyncio.gather(*tasks, return_exceptions=True)
        return running

    async def gathered(tasks: list) -> None:
        await asyncio.gather(*tasks)

    async def grouped(tasks: list) -> None:
        async def wait(task: asyncio.Task) -> None:
            await task

        async with asyncio.TaskGroup() as group:
            for task in tasks:
                group.create_task(wait(task))

    ran = {
        name: awaited(functools.partial(left, run, fail))
        for name, run, fail in (
            ("gather, none fails", gathered, False),
            ("gather, one fails", gathered, True),
            ("TaskGroup, one fails", grouped, True),
        )
    }
    *ways, group = (counted(name, running, 9) for name, running in ran.items())
    return [*ways, instead(group)]


@trial
def gather_refused(bench: Bench) -> list[Case]:
    """GETs that fail, of those that gather starts at once on a pool of 20 connections."""

    async def refused(count: int) -> int:
        pool = redis.asyncio.ConnectionPool.from_url(bench.server.url, max_connections=20)
        client = redis.asyncio.Redis(connection_pool=pool)
        told = await asyncio.gather(
            *(client.get("user-1") for _ in range(count)), return_exceptions=True
        )
        await pool.disconnect()
        return sum(isinstance(one, redis.ConnectionError) for one in told)

    return [
        counted(f"{count} calls", awaited(functools.partial(refused, count)), count)
        for count in (20, 200)
    ]


@trial
def chunk_holds(bench: Bench) -> list[Case]:
    """How long a chunk of a thousand records holds the loop, for light records and for heavy."""
    record = json.dumps({"id": "user-1", "tags": ["x"] * 5})
    heavy = json.dumps({"id": "user-1", "tags": ["x" * 50] * 500})

    def chunk(text: str) -> float:
        began = time.thread_time()  # its own work, whatever else the machine does meanwhile
        for _ in range(1000):
            json.loads(text)
        return time.thread_time() - began

    return [
        sampled("records of 50 bytes", [chunk(record) for _ in range(40)]),
        sampled("records of 27 KB", [chunk(heavy) for _ in range(3)]),
    ]


@trial
def pending_tasks(bench: Bench) -> list[Case]:
    """What all_tasks() counts while three tasks are pending."""

    async def told() -> int:
        tasks = [asyncio.create_task(asyncio.sleep(0.01)) for _ in range(3)]
        seen = len(asyncio.all_tasks())
        await asyncio.gather(*tasks)
        return seen

    return [counted("three pending tasks", awaited(told))]


@trial
def traced(bench: Bench) -> list[Case]:
    """Of three functions that led to an error, those that its stack trace names."""
    names = {"outer", "middle", "inner"}

    async def inner() -> None:
        await asyncio.sleep(0)
        raise LookupError

    async def middle(own_task: bool) -> Any:
        if own_task:
            return asyncio.create_task(inner())
        return await inner()

    async def outer(own_task: bool) -> int:
        try:
            task = await middle(own_task)
            await task
        except LookupError as error:
            trace, seen = error.__traceback__, set()
            while trace:
                seen.add(trace.tb_frame.f_code.co_name)
                trace = trace.tb_next
            return len(seen & names)
        return 0

    return [
        counted(name, awaited(functools.partial(outer, own)), 3)
        for name, own in (("awaited directly", False), ("through a task", True))
    ]


@trial
def written_twice(bench: Bench) -> list[Case]:
    """The share of this package's cache that exists once for sync and once for async."""
    import inspect

    from cachelab import cache
    from cachelab.cache import aside

    folder = os.path.dirname(cache.__file__ or "")
    files = [os.path.join(folder, one) for one in os.listdir(folder) if one.endswith(".py")]
    lines = 0
    for file in files:
        with open(file, encoding="utf-8") as text:
            lines += sum(1 for line in text if line.strip())
    twice = [inspect.getsource(one) for one in (aside.CacheAside, aside.AsyncCacheAside)]
    own = sum(1 for source in twice for line in source.splitlines() if line.strip())
    return [counted("CacheAside and its twin", own / lines, lines)]
