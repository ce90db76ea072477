"""What a service of the cloud said, out of what openstacksdk and keystoneauth raise. Nodes use it too: nothing else is
imported here.
"""

from __future__ import annotations

from openstack import exceptions as sdk_errors


def reason_of(error: Exception) -> str:
    """What a service said, without the SDK's frame around it."""
    match error:
        case sdk_errors.HttpException(details=str(details)) if details:
            told = details
        case _:
            told = str(error)
    status = status_of(error)
    text = " ".join(told.split())[:500] or type(error).__name__
    text = text.partition(" (Request-ID:")[0]
    return f"{text} (HTTP {status})" if status and str(status) not in text else text


def status_of(error: Exception) -> int:
    """The HTTP status of an answer that was raised; 0 where there was none."""
    return int(getattr(error, "status_code", None) or getattr(error, "http_status", None) or 0)
