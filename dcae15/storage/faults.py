"""Whose fault an error is: that of one file, or of the storage around it, which stops the work."""

from __future__ import annotations

import errno

from dcae15.errors import StorageError
from dcae15.storage.attempts import error_code, is_denied, is_missing
from dcae15.storage.names import is_remote
from dcae15.storage.web import is_web

# What says something about one name or one file. All other numbers are about the machine or the file system: a server
# of files that is gone (ESTALE, ENOTCONN), too many open files.
_LOCAL = {
    errno.ENOENT: "missing",
    errno.ENOTDIR: "missing",
    errno.EISDIR: "missing",
    errno.ENAMETOOLONG: "missing",
    errno.ELOOP: "missing",
    errno.EINVAL: "missing",
    errno.EACCES: "forbidden",
    errno.EPERM: "forbidden",
    errno.EIO: "unreadable",
    errno.EBADMSG: "unreadable",
    errno.EUCLEAN: "unreadable",
    errno.ENXIO: "unreadable",
    errno.ENODEV: "unreadable",
}
_OF_ONE_OBJECT = {"InvalidObjectState": "forbidden", "KeyTooLongError": "missing"}  # archived; no such name can be


def fault_of_file(uri: str, error: StorageError) -> str:
    """Say what is wrong with one of many files when reading it failed.

    Returns:
        "missing", "forbidden", "unreachable" or "unreadable"; empty where the storage itself fails: an object store that
        cannot be reached, wrong credentials, a bucket that does not exist, a package that is not installed. A web host is
        one of many, so all that it does is the fault of its files.
    """
    cause = error.__cause__
    if cause is None or isinstance(cause, ImportError):
        return ""
    if is_missing(error):
        return "missing"
    if is_web(uri):
        return "forbidden" if getattr(cause, "status", 0) in (401, 403, 407, 451) else "unreachable"
    if isinstance(cause, ValueError):  # no such scheme; or a name that no file can have, as one with a zero byte
        return "unreachable" if is_remote(uri) else "missing"
    if is_remote(uri):
        return "forbidden" if is_denied(cause) else _OF_ONE_OBJECT.get(error_code(cause), "")
    return _LOCAL.get(cause.errno or 0, "") if isinstance(cause, OSError) else ""
