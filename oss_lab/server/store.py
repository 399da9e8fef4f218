"""Stored responses, in one SQLite file that only its owner can read.

A response is committed before the client learns that it is complete, so a server that is killed
and restarted still knows it. What is deleted is overwritten. By default the file is
`responses.sqlite3` in the user's data folder (`default_path`).
"""

import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oss_lab.errors import LabError

Item = dict[str, Any]
SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY, previous TEXT, response TEXT NOT NULL,
    input TEXT NOT NULL, output TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS items (id TEXT PRIMARY KEY, response TEXT NOT NULL, item TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS items_of ON items (response);
"""
LONGEST_CHAIN = 1000  # responses


@dataclass(frozen=True)
class Record:
    """One response.

    Attributes:
        previous: id of the response that it continues.
        response: the object that clients get.
        input, output: the items of this turn; the output has the chain of thought even if clients
            do not get it, because the model needs it while it waits for a tool.
    """

    id: str
    previous: str | None
    response: dict[str, Any]
    input: list[Item]
    output: list[Item]


def default_path() -> Path:
    """The file in the user's data folder."""
    from platformdirs import user_data_path

    return user_data_path("oss-lab", appauthor=False) / "responses.sqlite3"


class Store:
    """The responses in one file; None keeps them in memory, until the server ends.

    Raises:
        LabError: the file cannot be opened, or is not such a database.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self._lock = threading.Lock()
        if file is not None:
            create_private(file)
        try:
            self._database = sqlite3.connect(
                ":memory:" if file is None else file, timeout=10, check_same_thread=False
            )
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA secure_delete = ON")
            self._database.executescript(SCHEMA)
        except sqlite3.Error as error:
            raise LabError(
                f"{file} cannot be used to store responses ({error}); move it away, or name another"
                " file with --store"
            ) from None

    def save(self, record: Record) -> None:
        """Store a response and its items."""
        pairs = [(each["id"], each) for each in (*record.input, *record.output) if each.get("id")]
        with self._write() as database:
            database.execute(
                "INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?, ?)",
                (record.id, record.previous, *map(json.dumps, (
                    record.response, record.input, record.output
                ))),
            )  # fmt: skip
            database.executemany(
                "INSERT OR REPLACE INTO items VALUES (?, ?, ?)",
                [(id, record.id, json.dumps(item)) for id, item in pairs],
            )

    def find(self, id: str) -> Record | None:
        """The response with this id."""
        with self._lock:
            query = "SELECT * FROM responses WHERE id = ?"
            row = self._database.execute(query, (id,)).fetchone()
        return None if row is None else Record(row[0], row[1], *map(json.loads, row[2:]))

    def find_chain(self, id: str) -> list[Record] | str:
        """The responses up to this one, the first one first; the id of one that is missing.

        Raises:
            LabError: there are more than LONGEST_CHAIN.
        """
        found: list[Record] = []
        wanted: str | None = id
        while wanted is not None:
            if len(found) == LONGEST_CHAIN:
                raise LabError(
                    f"a conversation may have {LONGEST_CHAIN} responses; start a new one"
                )
            record = self.find(wanted)
            if record is None:
                return wanted
            found.append(record)
            wanted = record.previous
        return found[::-1]

    def find_items(self, ids: Sequence[str]) -> dict[str, Item]:
        """The stored items with these ids."""
        with self._lock:
            rows = [
                self._database.execute("SELECT item FROM items WHERE id = ?", (id,)).fetchone()
                for id in ids
            ]
        return {
            id: json.loads(row[0]) for id, row in zip(ids, rows, strict=True) if row is not None
        }

    def delete(self, id: str) -> bool:
        """Delete a response and its items; False if there is none with this id."""
        with self._write() as database:
            database.execute("DELETE FROM items WHERE response = ?", (id,))
            count = database.execute("DELETE FROM responses WHERE id = ?", (id,)).rowcount
        self._empty_log()
        return count > 0

    def delete_all(self) -> int:
        """Delete every response; returns their number."""
        with self._write() as database:
            database.execute("DELETE FROM items")
            count = database.execute("DELETE FROM responses").rowcount
        self._empty_log()
        return count

    def close(self) -> None:
        with self._lock:
            self._database.close()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._database:
            yield self._database

    def _empty_log(self) -> None:
        """Remove deleted text from SQLite's write-ahead log."""
        with self._lock:
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def create_private(file: Path) -> None:
    """Create the file, unless it exists; only its owner can read it.

    SQLite gives its other files (`-wal`, `-shm`) the same mode.

    Raises:
        LabError: it cannot be created.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
        file.chmod(0o600)
    except OSError as error:
        raise LabError(
            f"{file} cannot be created ({error.strerror}); name another file with --store"
        ) from None
