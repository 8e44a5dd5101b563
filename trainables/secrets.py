"""Secrets in texts, which no record may have: logins and keys within URLs."""

from __future__ import annotations

import re

SECRET_NAME = re.compile(r"pass|pwd|secret|token|key|credential|signature|\bsig\b|auth", re.IGNORECASE)
"""Names of a URL's parameters whose values are secrets."""

_LOGIN = re.compile(r"(?<=://)[^/\s@]+@")
_PARAMETER = re.compile(r"(?<=[?&;])([^=&;\s]+)=([^&;\s'\"]+)")


def without_secrets(text: str) -> str:
    """Return a text without the logins of the URLs in it and the values of their parameters that look like secrets."""
    return _PARAMETER.sub(_masked, _LOGIN.sub("…@", text))


def _masked(match: re.Match[str]) -> str:
    name, value = match.groups()
    return f"{name}={'…' if SECRET_NAME.search(name) else value}"
