"""Where a study lives: a journal file, or a database by its URL."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from classification.errors import UserError
from classification.files import check_writable

_SQLITE_WAIT_SECONDS = 60  # for another process's write


def open_storage(location: str) -> BaseStorage:
    """Open a journal file (`results/study.journal`) or a database (`sqlite:///...`, `mysql://...`).

    A journal file may lie on a shared disk; several machines may use it or a database at once.

    Raises:
        UserError: it cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        if "://" in location:
            return _open_database(location)
        path = Path(location)
        check_writable(path.parent)
        return JournalStorage(JournalFileBackend(str(path)))
    except UserError:
        raise
    except Exception as error:  # of any database's driver; a journal that is none
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"--storage {location}: cannot be opened ({type(error).__name__}: {reason}). Expected "
            "a journal file such as results/study.journal, or a URL such as "
            "postgresql://USER@HOST/NAME whose driver is installed."
        ) from error


def open_study(storage: BaseStorage, name: str) -> int:
    """Return the id of a study, which is made if it is not there."""
    study = optuna.create_study(
        storage=storage, study_name=name, direction="maximize", load_if_exists=True
    )
    return storage.get_study_id_from_name(study.study_name)


def _open_database(url: str) -> BaseStorage:
    if not url.startswith("sqlite"):
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    options = {"connect_args": {"timeout": _SQLITE_WAIT_SECONDS}}
    for pause in (0.2, 0.5, 1.0):  # two processes that make the tables at once trip over each other
        with contextlib.suppress(Exception):
            return _lock_whole_transactions(RDBStorage(url, engine_kwargs=options))
        time.sleep(pause)
    return _lock_whole_transactions(RDBStorage(url, engine_kwargs=options))


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
