"""What Ray is told, the same on every target."""

from __future__ import annotations

from pathlib import Path

import pytest

from dhctl.infra import ray_config
from unit.node_fakes import make_node_settings


@pytest.mark.parametrize(("workers", "every_ms"), [(0, "200"), (200, "200"), (1000, "1000"), (3000, "3000")])
def test_a_head_asks_often_what_tasks_wait_for_but_not_thousands_at_once(workers: int, every_ms: str) -> None:
    env = ray_config.head_env(make_node_settings(max_workers=workers))
    assert env == {"RAY_gcs_pull_resource_loads_period_milliseconds": every_ms}


def test_rays_processes_find_the_token_by_its_file() -> None:
    env = ray_config.own_env(Path("/run/token"), "head-1", ray_config.HEAD_KIND)
    assert env["RAY_AUTH_TOKEN_PATH"] == "/run/token"
    assert (env["RAY_AUTH_MODE"], env["RAY_CLOUD_INSTANCE_ID"], env["RAY_NODE_TYPE_NAME"]) == (
        "token",
        "head-1",
        "head",
    )
