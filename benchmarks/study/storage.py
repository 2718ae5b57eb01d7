"""Where a study lives: Optuna's relational storage, made safe for many processes on SQLite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optuna.storages import RDBStorage

from classification.errors import UserError
from classification.files import check_writable
from classification.locks import open_locked

_SQLITE_WAIT_SECONDS = 60  # for another process's write


def open_storage(location: str, **heartbeats: Any) -> RDBStorage:
    """Open an SQLite file, created where it is missing, or a database by its URL.

    Args:
        location: such as results/study.db or postgresql://USER@HOST/NAME.
        heartbeats: arguments of RDBStorage.

    Raises:
        UserError: it cannot be opened.
    """
    if "://" not in location:
        check_writable(Path(location).parent)
    url = location if "://" in location else f"sqlite:///{location}"
    try:
        if not url.startswith("sqlite"):
            return RDBStorage(url, engine_kwargs={"pool_pre_ping": True}, **heartbeats)
        # Two processes that create the tables at once trip over each other.
        with open_locked(Path(f"{url.partition('///')[2]}.lock"), wait=True)[0]:
            options = {"connect_args": {"timeout": _SQLITE_WAIT_SECONDS}}
            return _lock_whole_transactions(RDBStorage(url, engine_kwargs=options, **heartbeats))
    except Exception as error:  # of any database's driver; a file that is no database
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"--storage {location}: cannot be opened ({type(error).__name__}: {reason}). Expected "
            "an SQLite file such as results/study.db, or a URL such as "
            "postgresql://USER@HOST/NAME whose driver is installed."
        ) from error


def _lock_whole_transactions(storage: RDBStorage) -> RDBStorage:
    """Let every transaction of SQLite begin with the write lock.

    Python's driver takes it at the first write only, so that two processes could read that a trial
    is waiting and then both set it to running. SQLite has no SELECT ... FOR UPDATE.
    """
    from sqlalchemy import event

    def leave_transactions_to_us(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    storage.engine.dispose()  # connections made so far
    event.listen(storage.engine, "connect", leave_transactions_to_us)
    event.listen(storage.engine, "begin", begin)
    return storage
