"""Reading what the API does not answer as plain JSON: lists of metadata alone, aggregated discovery, logs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from kubernetes.client.exceptions import ApiException

from dhctl.infra.kubernetes.client import REQUEST_S, Cluster

METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
"""A list without the objects' content, which may be large, or secret."""

Query = Sequence[tuple[str, str]]


def read(cluster: Cluster, path: str, query: Query = (), accept: str = "*/*", timeout_s: float = REQUEST_S) -> bytes:
    """The answer to a GET, as it came. Raises ApiException, and what `client.NO_SERVER` lists."""
    request = cluster.api.param_serialize(
        "GET", path, query_params=list(query), header_params={"Accept": accept}, auth_settings=["BearerToken"]
    )
    answer = cluster.api.call_api(*request, _request_timeout=timeout_s)
    content: bytes = answer.read() or b""
    if not 200 <= answer.status < 300:
        raise ApiException.from_response(http_resp=answer, body=content.decode(errors="replace"), data=None)
    return content


def read_json(cluster: Cluster, path: str, query: Query = (), accept: str = "application/json") -> dict[str, Any]:
    """As `read`, of a JSON object; empty where it is something else."""
    found = json.loads(read(cluster, path, query, accept) or b"{}")
    return found if isinstance(found, dict) else {}
