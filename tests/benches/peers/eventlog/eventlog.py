"""An event logger in Python as a peer of the streams benchmark: what pype's event log does, with what one would take for it.

`../run --help` tells its arguments and what it prints. A durable pull consumer fetches from JetStream, protobuf reads the
wrapper of an event, and pyarrow writes Parquet to OUT/{simulation_id}/{YYYY-MM-DD}/{HH}/{sequence}.parquet, of the event's
own time. Messages are acknowledged once every file of their batch has its name. A batch is 10,000 messages, or what came
within a second. An unreadable message is terminated. There is no more: no deduplication, no dead letters, no fsync.
"""

import asyncio
import datetime
import json
import os
import re
import resource
import sys
import time
from collections import defaultdict
from pathlib import Path

import nats
import pyarrow as pa
import pyarrow.parquet as pq
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from nats.js.api import AckPolicy, ConsumerConfig

BATCH = 10_000
# What one request asks for. nats-py drops messages beyond its pending limits.
FETCH = 1_000

STRING, BYTES, INT64 = (getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{kind}") for kind in ("STRING", "BYTES", "INT64"))
FIELDS = {
    "event_id": STRING,
    "event_type_key": STRING,
    "event_payload": BYTES,
    "timestamp_ns": INT64,
    "source_worker_id": STRING,
    "simulation_id": STRING,
    "payload_content_type": STRING,
    "correlation_id": STRING,
}
SCHEMA = pa.schema({
    "timestamp_ns": pa.int64(),
    "event_type_key": pa.string(),
    "worker_id": pa.string(),
    "simulation_id": pa.string(),
    "payload_format_hint": pa.string(),
    "event_payload": pa.binary(),
    "event_id": pa.string(),
    "correlation_id": pa.string(),
})
# The columns that are called otherwise in the message.
SOURCES = {"worker_id": "source_worker_id", "payload_format_hint": "payload_content_type"}


def event_class():
    """The class of `fes.common.events.GenericEventRequest`, whose fields are numbered as they stand."""
    file = descriptor_pb2.FileDescriptorProto(name="events.proto", package="fes.common.events", syntax="proto3")
    message = file.message_type.add(name="GenericEventRequest")
    for number, (name, kind) in enumerate(FIELDS.items(), start=1):
        message.field.add(name=name, number=number, type=kind, label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("fes.common.events.GenericEventRequest"))


async def main() -> None:
    server, stream, subject, durable, out, wanted = sys.argv[1:]
    connection = await nats.connect(server)
    settings = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, max_ack_pending=2 * BATCH, ack_wait=60)
    consumer = await connection.jetstream().pull_subscribe(subject, durable=durable, stream=stream, config=settings)
    event, done = event_class(), 0
    start, cpu = time.perf_counter(), time.process_time()
    while done < int(wanted):
        messages = await fetch_batch(consumer)
        readable = []
        for message in messages:
            try:
                readable.append((message, event.FromString(message.data)))
            except DecodeError:
                await message.term()
        # Files and compression are not for the loop, which answers the server meanwhile.
        await asyncio.to_thread(write, readable, Path(out))
        for message, _ in readable:
            await message.ack()
        done += len(messages)
    # Now the acknowledgements are with the server.
    await connection.flush()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    figures = {
        "messages": done,
        "seconds": round(seconds, 3),
        "messages_per_s": round(done / seconds),
        "cpu_s": round(cpu, 2),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "files": sum(1 for _ in Path(out).rglob("*.parquet")),
    }
    print(json.dumps(figures), flush=True)
    await connection.close()


async def fetch_batch(consumer) -> list:
    """The messages of a batch: as many as fit, or as come within a second."""
    messages, end = [], time.monotonic() + 1
    while len(messages) < BATCH and (left := end - time.monotonic()) > 0:
        try:
            messages += await consumer.fetch(min(FETCH, BATCH - len(messages)), timeout=left)
        except nats.errors.TimeoutError:
            break
    return messages


def write(readable: list, out: Path) -> None:
    """Writes events to the files of their simulations and hours."""
    files = defaultdict(list)
    for message, event in readable:
        # An id must not leave the folder, and may be empty.
        simulation = re.sub(r"[^A-Za-z0-9_-]", "_", event.simulation_id) or "_"
        files[simulation, event.timestamp_ns // 3_600_000_000_000].append((message, event))
    for (simulation, hour), events in files.items():
        time_of = datetime.datetime.fromtimestamp(hour * 3600, datetime.timezone.utc)
        folder = out / simulation / f"{time_of:%Y-%m-%d}" / f"{time_of:%H}"
        folder.mkdir(parents=True, exist_ok=True)
        columns = {column: [getattr(event, SOURCES.get(column, column)) for _, event in events] for column in SCHEMA.names}
        name = events[0][0].metadata.sequence.stream
        pq.write_table(pa.table(columns, SCHEMA), folder / f"{name}.tmp", compression="zstd")
        os.replace(folder / f"{name}.tmp", folder / f"{name}.parquet")


if __name__ == "__main__":
    asyncio.run(main())
