"""Ending runs from a project's own lists: by mark and expiry alone, never a run that is not past its lease."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from openstack.connection import Connection

from dhctl.cli.main import run_group
from dhctl.infra.errors import ExitCode, UnknownRunError
from dhctl.infra.events import Event, Warned, ignore
from dhctl.infra.home import Home
from dhctl.infra.openstack import reap, sweep
from dhctl.infra.openstack.cloud import CloudError, connect
from dhctl.infra.openstack.mark import HEAD, Mark
from dhctl.infra.openstack.section import OpenStackSection
from unit.http_cloud import HttpCloud

OVER, LIVING, UNTOLD = "dh-aaaabbbbcc", "dh-ccccbbbbaa", "dh-bbbbaaaacc"

Reap = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "PAUSE_S", 0.0)
    monkeypatch.setattr(sweep, "GONE_S", 0.05)
    monkeypatch.setattr(sweep, "ROUNDS_S", 0.1)


@pytest.fixture
def cloud(http_cloud: HttpCloud) -> Connection:
    """A run past its lease, one that lives, and one of which only a keypair is left."""
    for run, expires_at in ((OVER, time.time() - 60), (LIVING, time.time() + 3600)):
        mark = Mark(run, int(expires_at))
        http_cloud.add("servers", f"{run}-s", name=mark.name("head"), metadata=mark.metadata(HEAD))
        http_cloud.add("networks", f"{run}-n", name=mark.name("net"), tags=mark.tags)
    for run in (OVER, LIVING, UNTOLD):
        http_cloud.add("os-keypairs", f"{run}-key", name=f"{run}-key")
    return connect(OpenStackSection())


@pytest.fixture
def dhctl_reap(home: Home, cloud: Connection, capsys: pytest.CaptureFixture[str]) -> Reap:
    """Runs the verb: exit code, stdout, stderr."""

    def running(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run_group(["reap", *words])
        out, err = capsys.readouterr()
        return int(code), out, err

    return running


def test_runs_are_told_with_all_that_they_have(cloud: Connection) -> None:
    found = {run.run_id: run for run in reap.marked_runs(cloud, ignore)}
    assert found.keys() == {OVER, LIVING, UNTOLD}
    assert [owned.kind for owned in found[OVER].owned] == ["server", "network", "keypair"]
    assert found[OVER].expires_at > 0
    assert found[UNTOLD].expires_at == 0
    assert not found[OVER].clean


def test_only_runs_past_their_lease_are_meant(cloud: Connection) -> None:
    assert [run.run_id for run in reap.expired(cloud, ignore)] == [OVER]


def test_one_run_may_be_named_whatever_its_lease(cloud: Connection) -> None:
    assert [run.run_id for run in reap.expired(cloud, ignore, LIVING)] == [LIVING]
    assert [run.run_id for run in reap.expired(cloud, ignore, UNTOLD)] == [UNTOLD]
    with pytest.raises(UnknownRunError, match="no run matches 'dh-zzzzzzzzzz'"):
        reap.expired(cloud, ignore, "dh-zzzzzzzzzz")


def test_the_latest_expiry_counts(http_cloud: HttpCloud, cloud: Connection) -> None:
    later = Mark(OVER, int(time.time()) + 3600)
    http_cloud.add("volumes", "v1", metadata=later.metadata(HEAD))
    assert reap.expired(cloud, ignore) == []


def test_a_service_in_trouble_is_warned_of_and_the_others_tell(
    http_cloud: HttpCloud, cloud: Connection, told: list[Event]
) -> None:
    http_cloud.broken["/network/v2.0/routers"] = [500]
    (run,) = reap.expired(cloud, told.append)
    assert [owned.kind for owned in run.owned] == ["server", "network", "keypair"]
    (warned,) = told
    assert isinstance(warned, Warned)
    assert warned.text.startswith("cannot list routers on OpenStack")


def test_without_the_list_of_servers_nobody_is_past_the_lease(http_cloud: HttpCloud, cloud: Connection) -> None:
    http_cloud.broken["/compute/v2.1/servers"] = [500]
    with pytest.raises(CloudError, match="cannot list servers"):
        reap.expired(cloud, ignore)


def test_an_ended_run_is_looked_for_again(http_cloud: HttpCloud, cloud: Connection, told: list[Event]) -> None:
    (run,) = reap.expired(cloud, ignore)
    ended = reap.end(cloud, run, told.append)
    assert ended.clean
    assert (ended.run_id, ended.owned) == (run.run_id, run.owned)
    assert http_cloud.ids("servers") == [f"{LIVING}-s"]
    assert http_cloud.ids("os-keypairs") == [f"{LIVING}-key", f"{UNTOLD}-key"]
    assert told


def test_an_api_in_trouble_leaves_a_run_that_is_not_clean(
    http_cloud: HttpCloud, cloud: Connection, told: list[Event]
) -> None:
    (run,) = reap.expired(cloud, ignore)
    http_cloud.broken["/volume"] = [500]
    ended = reap.end(cloud, run, told.append)
    assert not ended.clean
    assert ended.to_dict()["unknown"].keys() == {"volumes", "volume snapshots"}
    assert any(isinstance(event, Warned) for event in told)


def test_the_verb_ends_what_is_over(http_cloud: HttpCloud, dhctl_reap: Reap, home: Home) -> None:
    code, out, _ = dhctl_reap()
    assert code == ExitCode.DONE
    assert OVER in out
    assert LIVING not in out
    assert "nothing is left" in out
    assert http_cloud.ids("servers") == [f"{LIVING}-s"]
    assert not home.root.exists()
    assert "no run of this place is past its lease" in dhctl_reap()[1]


def test_a_dry_run_only_shows(http_cloud: HttpCloud, dhctl_reap: Reap) -> None:
    code, out, _ = dhctl_reap("--dry-run")
    assert code == ExitCode.DONE
    assert f"{OVER}-s" in out
    assert http_cloud.deleted == []


def test_one_run_is_ended_before_its_lease_when_named(http_cloud: HttpCloud, dhctl_reap: Reap) -> None:
    assert dhctl_reap("--run", LIVING)[0] == ExitCode.DONE
    assert http_cloud.ids("servers") == [f"{OVER}-s"]
    assert dhctl_reap("--run", UNTOLD)[0] == ExitCode.DONE


def test_a_run_that_nobody_knows_is_usage(dhctl_reap: Reap) -> None:
    code, _, err = dhctl_reap("--run", "dh-zzzzzzzzzz")
    assert code == ExitCode.USAGE
    assert "no run matches" in err


def document(out: str) -> Any:
    return json.loads(out.partition('{"event"')[0])


def test_json_is_one_document(dhctl_reap: Reap) -> None:
    code, out, _ = dhctl_reap("--json")
    assert code == ExitCode.DONE
    (run,) = json.loads(out)["runs"]
    assert {key: run[key] for key in ("run", "ended", "clean", "left", "unknown")} == {
        "run": OVER,
        "ended": True,
        "clean": True,
        "left": [],
        "unknown": {},
    }
    assert run["lease_ends"].endswith("+00:00")
    assert [had["kind"] for had in run["had"]] == ["server", "network", "keypair"]


def test_json_keeps_the_warnings(http_cloud: HttpCloud, dhctl_reap: Reap) -> None:
    http_cloud.broken["/network/v2.0/routers"] = [500]
    code, out, _ = dhctl_reap("--dry-run", "--json")
    assert code == ExitCode.DONE
    found = json.loads(out)
    assert [run["run"] for run in found["runs"]] == [OVER]
    (warning,) = found["warnings"]
    assert warning.startswith("cannot list routers on OpenStack")


def test_what_is_left_is_told_and_is_exit_code_5(http_cloud: HttpCloud, dhctl_reap: Reap) -> None:
    http_cloud.refuses[f"{OVER}-n"] = (409, "Network in use.")
    code, out, err = dhctl_reap()
    assert code == ExitCode.LEFTOVER
    assert f"openstack network delete {OVER}-n" in out
    assert "Network in use." in out
    assert f"something is left of {OVER}" in err
    code, out, _ = dhctl_reap("--json")
    (run,) = document(out)["runs"]
    assert code == ExitCode.LEFTOVER
    assert [left["reason"] for left in run["left"]] == ["Network in use. (HTTP 409)"]


def test_no_login_is_a_sentence(dhctl_reap: Reap) -> None:
    code, _, err = dhctl_reap("--cloud", "other")
    assert code == ExitCode.REFUSED
    assert "set OS_CLOUD or openstack.cloud to an entry of your clouds.yaml" in err
