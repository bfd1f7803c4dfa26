"""Pyrallel-Consumer as a peer of the streams benchmark. `../run --help` tells its arguments and what it prints.

Its settings are its defaults, but for the ordering, the concurrency (of `async` its `max_in_flight`; of `process` also the
number of its processes, up to 16), and no dead letters. Its own variables hold: with polls of no more than the concurrency
(PARALLEL_CONSUMER_POLL_BATCH_SIZE=100) it is three times faster on handlers that do nothing, and four times slower on those
that take 10 ms. The clock starts with the first poll that brings records, and a
record is done when its control plane knows. Processor time and memory are those of all its processes.
"""

import asyncio
import functools
import json
import logging
import os
import sys
import time
from pathlib import Path

from pyrallel_consumer.config import KafkaConfig
from pyrallel_consumer.consumer import PyrallelConsumer
from pyrallel_consumer.control_plane.broker_dispatch_support import BrokerDispatchSupport
from pyrallel_consumer.dto import ExecutionMode, OrderingMode, WorkItem

ORDERINGS = {"KEY": OrderingMode.KEY_HASH, "PARTITION": OrderingMode.PARTITION, "UNORDERED": OrderingMode.UNORDERED}


async def on_loop(work_s: float, _: WorkItem) -> None:
    if work_s > 0:
        await asyncio.sleep(work_s)


def in_process(work_s: float, _: WorkItem) -> None:
    if work_s > 0:
        time.sleep(work_s)


def main() -> None:
    bootstrap, topic, group, records, ordering, concurrency, work_us, *engine = sys.argv[1:]
    mode = ExecutionMode(engine[0] if engine else "async")
    config = KafkaConfig(BOOTSTRAP_SERVERS=bootstrap, CONSUMER_GROUP=group, dlq_enabled=False)
    config.parallel_consumer.ordering_mode = ORDERINGS[ordering]
    execution = config.parallel_consumer.execution
    execution.mode = mode
    execution.max_in_flight = int(concurrency)
    execution.process_config.process_count = min(int(concurrency), 16)
    handle = on_loop if mode is ExecutionMode.ASYNC else in_process
    worker = functools.partial(handle, int(work_us) / 1e6)
    # It warns each time it pauses.
    logging.disable(logging.WARNING)
    asyncio.run(measure(PyrallelConsumer(config, worker, topic), int(records)))


async def measure(consumer: PyrallelConsumer, records: int) -> None:
    """Runs the consumer until this many records are done, and prints the figures."""
    polled: dict[tuple[int, int], float] = {}
    latencies: list[float] = []
    begin: list[float] = []
    finished = asyncio.Event()

    # The two ends of its control plane: messages as they come, and completions as it takes note of them.
    dispatch = BrokerDispatchSupport.dispatch_messages
    poll_completed = consumer._execution_engine.poll_completed_events

    async def stamped(support, messages):
        now = time.perf_counter()
        begin or begin.extend((now, cpu_s()))
        polled.update(((message.partition(), message.offset()), now) for message in messages)
        await dispatch(support, messages)

    async def completed(*arguments, **named):
        events = await poll_completed(*arguments, **named)
        now = time.perf_counter()
        latencies.extend(now - polled.pop((event.tp.partition, event.offset)) for event in events)
        if len(latencies) >= records:
            finished.set()
        return events

    BrokerDispatchSupport.dispatch_messages = stamped
    consumer._execution_engine.poll_completed_events = completed
    await consumer.start()
    await finished.wait()
    seconds, cpu = time.perf_counter() - begin[0], cpu_s() - begin[1]
    latencies.sort()
    done = len(latencies)
    figures = {
        "records": done,
        "seconds": round(seconds, 3),
        "records_per_s": round(done / seconds),
        "p50_ms": round(latencies[done // 2] * 1e3, 3),
        "p99_ms": round(latencies[done * 99 // 100] * 1e3, 3),
        "cpu_s": round(cpu, 2),
        "peak_rss_mb": peak_rss_mb(),
    }
    print(json.dumps(figures), flush=True)
    await consumer.stop()


def processes() -> list[Path]:
    """This process and its children."""
    children = [pid for listed in Path("/proc/self/task").glob("*/children") for pid in listed.read_text().split()]
    return [Path("/proc") / pid for pid in (str(os.getpid()), *children)]


def cpu_s() -> float:
    """What they have used of processors."""
    ticks = (process.joinpath("stat").read_text().rsplit(")")[-1].split()[11:13] for process in processes())
    return sum(int(user) + int(system) for user, system in ticks) / os.sysconf("SC_CLK_TCK")


def peak_rss_mb() -> int:
    """The sum of their peaks; pages they share count for each."""
    lines = (line for process in processes() for line in process.joinpath("status").read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) // 1024


if __name__ == "__main__":
    main()
