"""Which tracking server or database is used, and a SQLite file that many processes can share."""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from dcae15 import storage
from dcae15.errors import ConfigError
from dcae15.redaction import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


def open_client(uri: str) -> MlflowClient:
    """Return a client of a tracking server or database.

    MLflow is imported here: it takes seconds, and most processes that know a tracker never write to it. Its patience
    with a dead server (minutes for each value) is cut to seconds, unless the environment says otherwise.

    Raises:
        FileNotFoundError: the SQLite file is not on this machine; MLflow would start an empty one.
    """
    database = sqlite_path(uri)
    if database and not database.exists():
        raise FileNotFoundError(
            f"the tracking database {database} is not on this machine; with several machines set tracking.uri to an "
            "MLflow server that all of them reach"
        )
    return _client(uri)


def _client(uri: str) -> MlflowClient:
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    return MlflowClient(uri)


def choose_uri(configured: str, storage_root: str) -> str:
    """Return the tracking URI: ``tracking.uri``, else MLFLOW_TRACKING_URI, else a SQLite file beside the artifacts.

    With remote storage there is no place for a SQLite file beside the artifacts: it goes into the working directory,
    and a log line says so. Paths of SQLite files become absolute, because workers have other working directories.

    Raises:
        ConfigError: a folder is given, which MLflow no longer supports.
    """
    uri = configured or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        root = storage.resolve(storage_root)
        if "://" in root:
            root = str(Path.cwd())
            _log.warning(
                "tracking into %s/mlflow.db, because storage is remote; an MLflow server in tracking.uri can be shared",
                root,
            )
        return f"sqlite:///{root}/mlflow.db"
    if uri.startswith("file:") or (":" not in uri and uri != "databricks"):
        who = "tracking.uri" if configured else "MLFLOW_TRACKING_URI"
        raise ConfigError(
            f"{who} is '{redact(uri)}', a folder, which MLflow no longer writes to; "
            f"use a database file (sqlite:///{Path(uri.removeprefix('file://')).absolute()}/mlflow.db) or a server"
        )
    database = sqlite_path(uri)
    return f"sqlite:///{database}" if database else uri


def artifact_location(uri: str, storage_root: str) -> str | None:
    """Return where a new experiment keeps its files: beside our artifacts, or None where a server decides.

    Left to itself MLflow would write to ./mlruns of whatever process comes first.
    """
    if uri.startswith(_DATABASES):
        return storage.join(storage.resolve(storage_root), "mlflow-artifacts")
    return None


def sqlite_path(uri: str) -> Path | None:
    """Return the absolute path of a ``sqlite:///`` URI's file, or None for any other URI."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").split("?")[0]).expanduser().absolute()


def prepare(uri: str) -> None:
    """Create the tables of a new SQLite file, once, before any other process sees it.

    Two processes that create them at the same time destroy the database (MLflow 3.17). So one holds a lock, fills a
    file under another name, and renames it; killed half way, it leaves no broken database.
    """
    database = sqlite_path(uri)
    if database is None or database.exists():
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(f"{database.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if database.exists():
            return
        new = database.with_name(f"{database.name}.new")
        new.unlink(missing_ok=True)
        for noisy in ("mlflow.store.db.utils", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        _client(f"sqlite:///{new}").search_experiments(max_results=1)
        new.rename(database)
