"""`make bench-cost` in a tiny form, and the parts that count: nothing is missed, nothing counted twice."""

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import asyncpg
import pytest

from benchmarks.bench.page import PAGE, with_table
from benchmarks.bench.rig import ROOT, Rig
from benchmarks.cost.__main__ import BEGIN
from benchmarks.cost.checkout import NoHistoryError, checked_out
from benchmarks.cost.relations import by_table, of_postgresql
from benchmarks.cost.rows import STORED, rows
from benchmarks.cost.run import Cost, Size
from benchmarks.cost.written import FRAME_HEADER_BYTES, watched
from tests.servers.postgres import PostgresServer


@pytest.mark.slow
def test_a_tiny_form_runs_in_real_processes() -> None:
    command = [sys.executable, "-m", "benchmarks.cost", "--ours", "--store", "sqlite", "--rounds", "1"]
    command += ["--tasks", "40", "--apart-tasks", "40", "--relations"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    lines = done.stdout.splitlines()
    assert done.stderr == ""
    values = {
        line[:28].strip(): float(line[40:].split()[0]) for line in lines if line[28:].startswith(" sqlite")
    }
    assert values["stored, deliveries"] > 3_000
    assert values["write-ahead log, a delivery"] > 10_000
    assert values["processor time, all"] > 0
    assert values["sql statements"] > 0
    assert values["redis commands"] > 0


def test_every_write_of_sqlite_is_counted_through_restarts_of_its_log(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    connection = sqlite3.connect(path, isolation_level=None)
    page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    rig = Rig("sqlite", tmp_path, None, None)  # type: ignore[arg-type]
    frames = 0
    seen = threading.Event()
    with watched(rig, f"sqlite:///{path}") as written:

        def until_seen(expected: int) -> None:
            for _ in range(2_000):
                if written.bytes_so_far() == expected:
                    return
                seen.wait(0.005)
            raise AssertionError(f"{written.bytes_so_far()} of {expected}")

        connection.execute("CREATE TABLE t (x BLOB)")
        for _ in range(3):
            for _ in range(2):
                connection.execute("INSERT INTO t VALUES (zeroblob(50000))")
            # Copied, but the log keeps its size; the next write begins it anew.
            frames += connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
            until_seen(frames * (page_bytes + FRAME_HEADER_BYTES))
    connection.close()
    assert frames > 60


async def test_partitions_and_their_indexes_count_as_their_table(postgres: PostgresServer) -> None:
    url = postgres.create_database()
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("CREATE TABLE whole (id int PRIMARY KEY, body text) PARTITION BY RANGE (id)")
        await connection.execute("CREATE INDEX ix_whole_body ON whole (body)")
        for n in range(2):
            await connection.execute(
                f"CREATE TABLE part_{n} PARTITION OF whole FOR VALUES FROM ({n * 100}) TO ({n * 100 + 100})"
            )
        await connection.execute("INSERT INTO whole SELECT n, 'x' FROM generate_series(0, 199) n")
        found = await of_postgresql(connection)
        size_bytes = await connection.fetchval(
            "SELECT sum(pg_total_relation_size(c)) FROM unnest(ARRAY['part_0', 'part_1']::regclass[]) c"
        )
    finally:
        await connection.close()
        postgres.drop_database(url)
    assert found.keys() == {"whole", "whole toast", "whole.whole_pkey", "whole.ix_whole_body"}
    assert all(found[name] > 0 for name in found)
    assert by_table(found) == {"whole": size_bytes}


def test_bytes_of_a_table_are_those_of_all_that_belongs_to_it() -> None:
    found = {"tasks": 1, "tasks toast": 2, "tasks.pk_tasks": 4, "ledger": 8}
    assert by_table(found) == {"tasks": 7, "ledger": 8}


def test_a_commit_that_the_clone_lacks_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NoHistoryError, match="unshallow"), checked_out("0" * 40, tmp_path):
        pass


def test_bars_are_of_the_sum_of_our_processes_and_of_all_stored_bytes() -> None:
    def cost(of_all: int) -> Cost:
        return Cost(
            Size(10),
            seconds=1,
            cpu_s={"web": 1, "worker": of_all, "redis": 1, "submit": 50, "emulator": 90},
            written_bytes=10,
            delivery_written_bytes=of_all,
            redis_commands=1,
            sql_statements=1,
            relations={"tasks": 30_000, "tasks.pk_tasks": 5_000 * of_all},
        )

    sides = [cost(2)], [cost(8)]
    found = {one.benchmark: one for one in rows("sqlite", "abc", sides, sides)}
    assert found["processor time, all"].ratio == 0.4
    assert found["processor time, all"].holds
    assert found["write-ahead log, a delivery"].holds
    assert (found[STORED].value, found[STORED].bar, found[STORED].holds) == (4_000, 6_500, True)
    assert {name for name, one in found.items() if one.bar} == {
        "processor time, all",
        "write-ahead log, a delivery",
        STORED,
    }


def test_the_page_has_the_marks_of_the_costs() -> None:
    assert with_table(PAGE.read_text(), [], BEGIN)
