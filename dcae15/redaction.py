"""Secrets stay out of what is printed, logged or stored: one function that masks them in any text."""

from __future__ import annotations

import re

_MASK = "***"
_USER_AND_PASSWORD = re.compile(r"(?<=://)[^/@\s:]+:(?!\d+/)[^@\s]*@")  # a secret may itself hold a '/'
_TOKEN = re.compile(r"(?<=://)[^/@\s:]+@")
_QUERY = re.compile(r"([?&][\w.-]*(?:password|passwd|secret|token|key|sig|signature|credential)[\w.-]*=)[^&\s]+", re.I)


def redact(text: str) -> str:
    """Return the text with credentials inside its URIs masked: ``s3://key:secret@bucket`` is ``s3://***@bucket``."""
    text = _USER_AND_PASSWORD.sub(f"{_MASK}@", text)
    text = _TOKEN.sub(f"{_MASK}@", text)
    return _QUERY.sub(rf"\1{_MASK}", text)
