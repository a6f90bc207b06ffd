"""Files of web servers (http, https): many hosts, of which some are gone, refuse, or ask to wait."""

from __future__ import annotations

import email.utils
import re
import time
from http import HTTPStatus
from typing import Any

from dcae15.redaction import redact

# Of one host among many a user will not wait long; of an object store, which is the only one, see attempts.RETRY_SECONDS.
RETRY_SECONDS = 10.0  # a host that cannot be reached is tried for this long
CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0  # until a connection is there; without any byte

_WEB = re.compile(r"https?://", re.IGNORECASE)


def is_web(uri: str) -> bool:
    """Tell an address of the web from all other places."""
    return _WEB.match(uri) is not None


def host_of(uri: str) -> str:
    """Return the host (and port) of an address; empty for other places."""
    return re.split(r"[/?#]", uri.partition("://")[2], maxsplit=1)[0].rpartition("@")[2].lower() if is_web(uri) else ""


def shown(uri: str) -> str:
    """Return what may be printed of a place: an address without user, query and fragment, which may hold secrets."""
    return redact(re.split(r"[?#]", uri, maxsplit=1)[0]) if is_web(uri) else uri


def status_of(error: BaseException | None, response: dict[str, Any]) -> int:
    """Return the status with which a server answered; 0 where it did not, or the error does not say."""
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode") or getattr(error, "status", 0)
    return status if isinstance(status, int) else 0


def asked_delay(error: BaseException | None, response: dict[str, Any]) -> float:
    """Return the seconds that a server asked to wait (Retry-After: seconds, or a date); 0 where it did not."""
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders") or getattr(error, "headers", None) or {}
    text = next((value for name, value in headers.items() if name.lower() == "retry-after"), "").strip()
    try:
        return max(
            0.0, float(text) if text.isdigit() else email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        )
    except ValueError:
        return 0.0


def explain(error: Exception, status: int, unreachable: bool) -> str:
    """Say what was wrong with a request to the web; never in the client's words, which hold the whole address."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, FileNotFoundError):
        return "the server answers 404 (Not Found)."
    if "TooManyRedirects" in names:
        return "the server redirects without end."
    if status:
        phrase = next((f" ({known.phrase})" for known in HTTPStatus if known == status), "")
        return f"the server answers {status}{phrase}."
    if names & {"ClientSSLError", "ClientConnectorCertificateError", "ClientConnectorSSLError"}:
        return f"the server's certificate or encryption is not accepted ({type(error).__name__})."
    if unreachable:
        return f"the host cannot be reached, or does not answer ({type(error).__name__})."
    if "InvalidURL" in names or isinstance(error, ValueError):
        return "it is no valid address."
    return f"the transfer fails ({type(error).__name__})."
