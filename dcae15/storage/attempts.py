"""Storage operations that fail: transient errors are retried, all others explained to the user."""

from __future__ import annotations

import errno
import itertools
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from dcae15.errors import StorageError
from dcae15.storage import web

RETRY_SECONDS = 60.0  # transient errors are retried for this long
RETRY_FIRST_DELAY = 0.2  # seconds; the upper bound of the random delay doubles with every attempt ...
RETRY_LONGEST_DELAY = 15.0  # ... up to this

AWS_VARIABLES = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL (if it is not AWS) and AWS_DEFAULT_REGION"

# Names of classes instead of the classes: botocore, aiohttp, urllib3 and fsspec each bring their own.
_UNREACHABLE_ERRORS = {"ConnectionError", "TimeoutError", "ClientConnectionError"}
_TRANSIENT_ERRORS = {"HTTPClientError", "ClientPayloadError", "IncompleteRead", "ResponseParserError"}
_TLS_ERRORS = {"SSLError", "ClientSSLError"}
_CREDENTIAL_ERRORS = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"}
_TRANSIENT_CODES = {
    "SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling", "ThrottlingException",
    "ConditionalRequestConflict", "OperationAborted", "XAmzContentSHA256Mismatch",
}  # fmt: skip
_CREDENTIAL_CODES = {
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired",
    "InvalidSecurity", "RequestTimeTooSkewed",
}  # fmt: skip
_REGION_CODES = {"AuthorizationHeaderMalformed", "PermanentRedirect", "301"}
_LOCAL_REASONS = {
    errno.EDQUOT: "the disk quota, of space or of files, is used up. Free some, or choose another folder.",
    errno.EFBIG: "the file is larger than the file system or `ulimit -f` permits. Choose another folder, or raise the limit.",
    errno.EROFS: "the file system is read-only. Choose another folder.",
    errno.EACCES: "permission denied. Change the permissions of the file or of its folder, or choose another one.",
    errno.EPERM: "the operation is not permitted. Change the attributes of the file, or choose another folder.",
    errno.EISDIR: "it is a folder, not a file. Name a file.",
    errno.ENAMETOOLONG: "its name is longer than the file system permits. Choose a shorter one.",
    errno.ELOOP: "its symbolic links lead in a circle. Name the file or folder itself.",
    errno.EIO: "the disk reports an error of its own. Look at the disk, or choose another folder.",
    errno.ESTALE: "the network file system has lost it. Mount it again, or run again.",
}
_PROCESS_REASONS = {  # of the process or the machine, whatever it opens
    errno.EMFILE: "this process has too many files open. Raise the limit, for instance with `ulimit -n 65536`, and run again.",
    errno.ENFILE: "all processes of this machine together have too many files open. End some, or raise fs.file-max.",
    errno.ENOMEM: "the machine has no memory left for it. End other processes, and run again.",
}

_jitter = random.SystemRandom()  # not a seeded generator: forked workers must not retry in step
_T = TypeVar("_T")


def attempt(uri: str, action: str, operation: Callable[[], _T], seconds: float | None = None) -> _T:
    """Run a storage operation, with exponential backoff and full jitter between attempts.

    A server that says how long to wait (Retry-After) is asked again no earlier; where that is too long, not at all.

    Args:
        uri: what the operation works on; for messages.
        action: what it does there, a verb; for messages.
        operation: called again after each transient error, so it must be safe to repeat.
        seconds: no attempt starts later than this; `RETRY_SECONDS` if None.

    Raises:
        StorageError: another than a transient error (at once), or a transient one that lasts.
    """
    start = time.monotonic()
    limit = RETRY_SECONDS if seconds is None else seconds
    for tries in itertools.count():
        try:
            return operation()
        except (StorageError, TypeError, AttributeError, NameError, AssertionError):
            raise  # explained already, or a mistake in code that no user can mend
        except Exception as error:  # every file system brings its own exceptions
            transient = _is_transient(error)
            if web.is_web(uri) and _is_unreachable(error):
                limit = min(limit, web.RETRY_SECONDS)
            delay = _jitter.uniform(0, min(RETRY_LONGEST_DELAY, RETRY_FIRST_DELAY * 2 ** min(tries, 20)))
            delay = max(delay, web.asked_delay(error, _response(error)))
            if not transient or time.monotonic() - start + delay > limit:
                after = f" Gave up after {tries + 1} attempts in {time.monotonic() - start:.0f} s." if transient else ""
                raise StorageError(f"Cannot {action} {web.shown(uri)}: {_explain(error, uri)}{after}") from error
        time.sleep(delay)
    raise AssertionError("an endless loop has ended")


def error_code(error: BaseException | None) -> str:
    """Return the error code that an S3 server sent; '' for every other error."""
    return str(_response(error).get("Error", {}).get("Code", ""))


def is_denied(error: BaseException | None) -> bool:
    """Tell whether a server knows the user (the credentials are right), but does not permit the operation."""
    return isinstance(error, PermissionError) and error_code(error) not in _CREDENTIAL_CODES


def is_missing(error: BaseException) -> bool:
    """Tell whether a StorageError says that a file does not exist, in a bucket that does."""
    gone = isinstance(error.__cause__, FileNotFoundError) or getattr(error.__cause__, "status", 0) == 410
    return gone and error_code(error.__cause__) != "NoSuchBucket"


def _response(error: BaseException | None) -> dict[str, Any]:
    """Return what botocore kept of a server's answer, from anywhere in the chain of exceptions."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return response
        error = error.__cause__ or error.__context__
    return {}


def _is_unreachable(error: BaseException) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & _UNREACHABLE_ERRORS) and not names & _TLS_ERRORS


def _is_transient(error: BaseException) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & (_UNREACHABLE_ERRORS | _TRANSIENT_ERRORS):
        return not names & _TLS_ERRORS
    status = web.status_of(error, _response(error))
    return error_code(error) in _TRANSIENT_CODES or status in (408, 429) or (status >= 500 and status != 501)


def _explain(error: Exception, uri: str) -> str:
    """Say in one sentence what is wrong and in another what to do, without the value of any secret."""
    if reason := next((_PROCESS_REASONS[number] for number in _numbers(error) if number in _PROCESS_REASONS), ""):
        return reason
    if isinstance(error, OSError) and "://" not in uri:
        if error.errno == errno.ENOSPC:
            return _full(uri)
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            return f"a file stands where a folder is needed{_file_above(uri)}. Choose another folder, or move the file."
        if error.errno in _LOCAL_REASONS:
            return _LOCAL_REASONS[error.errno]
    if web.is_web(uri):
        return web.explain(error, web.status_of(error, {}), _is_unreachable(error))
    code, names = error_code(error), {kind.__name__ for kind in type(error).__mro__}
    if code == "NoSuchBucket":
        bucket = uri.partition("://")[2].partition("/")[0]
        return f"the bucket {bucket} does not exist. Create it, or correct the URI or AWS_ENDPOINT_URL."
    if isinstance(error, FileNotFoundError):
        return "it does not exist."
    if code in _CREDENTIAL_CODES or names & _CREDENTIAL_ERRORS:
        return f"the credentials are missing, wrong or expired ({code or type(error).__name__}). Set {AWS_VARIABLES}."
    if code in _REGION_CODES:
        return f"the bucket is in another region ({code}). Set AWS_DEFAULT_REGION to the region of the bucket."
    if isinstance(error, PermissionError):
        return f"access denied. Give the user behind AWS_ACCESS_KEY_ID the permission, or set {AWS_VARIABLES}."
    if names & _UNREACHABLE_ERRORS:
        return f"the endpoint cannot be reached ({type(error).__name__}). Check AWS_ENDPOINT_URL and the network."
    if _is_transient(error):
        return f"the storage keeps failing ({code or type(error).__name__}). Try again later."
    if code in {"PreconditionFailed", "412"}:
        return "it was overwritten while it was being read. Run again."
    text = str(error)
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        if secret := os.environ.get(name):
            text = text.replace(secret, "***")
    return f"{type(error).__name__}: {text}"


def _numbers(error: BaseException | None) -> Iterator[int]:
    """Yield the numbers of operating system errors, from anywhere in the chain of exceptions."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            yield error.errno
        error = error.__cause__ or error.__context__


def _full(path: str) -> str:
    """Tell a file system without space from one that can hold no more files: the error is the same."""
    folder = next((above for above in (Path(path), *Path(path).parents) if above.is_dir()), Path("/"))
    try:
        status = os.statvfs(folder)
    except OSError:
        return "no space is left on the device. Free some, or choose another folder."
    free = status.f_bavail * status.f_frsize / 2**20
    if status.f_files and not status.f_favail:
        return (
            f"the file system can hold no more files, though {free:,.0f} MiB are free: all its {status.f_files:,} inodes are in "
            "use. Remove files that nobody needs, or choose another folder."
        )
    return f"no space is left on the device ({free:,.0f} MiB are free). Free some, or choose another folder."


def _file_above(path: str) -> str:
    """Name the file on the way to a path, where there is one."""
    found = next((above for above in (Path(path), *Path(path).parents) if above.is_file()), None)
    return f": {found}" if found else ""
