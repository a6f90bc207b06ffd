"""Which tracking server or database is used, and a SQLite file that many processes can share."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dcae15 import storage
from dcae15.errors import ConfigError
from dcae15.redaction import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SQLITE = re.compile(r"sqlite:///(?P<path>.*?)(?P<options>\?\w+=[^/]*)?", re.DOTALL)
_MLFLOWS = "?%"  # what MLflow and SQLAlchemy take for their own in the URI of a database, whatever the folder is called
_URLS = "?#"  # what MLflow takes for its own in the URI of a bucket


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

    return MlflowClient(_for_mlflow(uri))


def _for_mlflow(uri: str) -> str:
    """Return the URI for MLflow: a folder with '?' or '%' in its name is reached through a link with a plain name.

    To escape them helps no more: SQLAlchemy 2.1 decodes the path, 2.0 does not, and MLflow makes folders of the undecoded one.
    """
    found, database = _SQLITE.fullmatch(uri), sqlite_path(uri)
    if found is None or database is None or not set(str(database)) & set(_MLFLOWS):
        return uri
    folder = str(database.parent)
    link = (
        Path(tempfile.gettempdir())
        / f"dcae15-tracking-{os.getuid()}-{hashlib.sha256(folder.encode()).hexdigest()[:16]}"
    )
    with contextlib.suppress(FileExistsError):
        link.symlink_to(folder)
    if link.lstat().st_uid != os.getuid() or str(link.readlink()) != folder:
        raise ConfigError(f"{link} should be a link to {folder}, but is not; remove it, or set tracking.uri")
    return f"sqlite:///{link}/{database.name}{found['options'] or ''}"


def choose_uri(configured: str, storage_root: str) -> str:
    """Return the tracking URI: ``tracking.uri``, else MLFLOW_TRACKING_URI, else a SQLite file beside the artifacts.

    With remote storage there is no place for a SQLite file beside the artifacts: it goes into the working directory,
    and a log line says so. Paths of SQLite files become absolute, because workers have other working directories; they are taken
    as they stand, without escapes.

    Args:
        configured: ``tracking.uri``; ~ and $VARIABLES in the path of an SQLite file are expanded.
        storage_root: URI of the storage, resolved.

    Raises:
        ConfigError: a folder is given, which MLflow no longer supports, or a database with a name that it cannot read.
    """
    uri = configured or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        root = storage_root
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
    uri = storage.expanded(uri) if uri.startswith("sqlite:") else uri
    found, database = _SQLITE.fullmatch(uri), sqlite_path(uri)
    if found is None or database is None:
        return uri
    if set(database.name) & set(_MLFLOWS):
        raise ConfigError(
            f"tracking.uri is '{uri}': MLflow cannot read '?' or '%' in the name of a database; rename it"
        )
    return f"sqlite:///{database}{found['options'] or ''}"


def artifact_location(uri: str, storage_root: str) -> str | None:
    """Return where a new experiment keeps its files: beside our artifacts, or None where a server decides.

    Left to itself MLflow would write to ./mlruns of whatever process comes first.

    Raises:
        ConfigError: MLflow would write to another place of the bucket.
    """
    if not uri.startswith(_DATABASES):
        return None
    if "://" in storage_root and set(storage_root) & set(_URLS):
        raise ConfigError(
            f"storage is {redact(storage_root)}: MLflow would write to another place, because '?' and '#' mean something else to "
            "it; choose another folder, set tracking.uri to a server, or go without: tracking.enabled=false"
        )
    files = storage.join(storage_root, "mlflow-artifacts")
    return Path(files).as_uri() if "%" in files and "://" not in files else files  # MLflow decodes paths, too


def sqlite_path(uri: str) -> Path | None:
    """Return the absolute path of a ``sqlite:///`` URI's file, or None for any other URI, also of a database in memory."""
    found = _SQLITE.fullmatch(uri)
    return Path(found["path"]).expanduser().absolute() if found and found["path"] not in ("", ":memory:") else None


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
