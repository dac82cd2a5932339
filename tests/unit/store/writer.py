"""A process of its own that saves runs: what the crash tests kill, and what writes beside another.

`python -m tests.unit.store.writer URL KEY_FILE many NAME COUNT` saves COUNT runs; `… stall NAME TABLE` stops
for ever in the middle of one save, after the first row of TABLE was written, and says so on stdout.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from sqlalchemy import event

from service.ports import RunId
from service.store.cipher import Cipher
from service.store.sql import SqlStore
from tests.unit.writeback.charts import make_run


def main(url: str, key_file: str, act: str, name: str, detail: str) -> None:
    store = SqlStore(url, Cipher.from_file(Path(key_file)))
    if act == "stall":
        _stall_after(store, detail)
        store.save(make_run(run_id=RunId(name)))
    for number in range(int(detail)):
        store.save(make_run(run_id=RunId(f"{name}-{number}")))
    store.close()


def _stall_after(store: SqlStore, table: str) -> None:
    @event.listens_for(store.database.engine, "after_cursor_execute")
    def stall(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith(f"INSERT INTO {table}"):
            print("in the middle", flush=True)
            time.sleep(600)


if __name__ == "__main__":
    main(*sys.argv[1:])
