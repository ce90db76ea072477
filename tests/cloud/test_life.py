"""The whole life of a run on OpenStack: up, 0 to 2 workers and back to 0, train with results on S3, down."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import pytest
import yaml
from openstack.connection import Connection

from cloud.runs import SECTION, CloudRuns, assert_nothing_marked, workers
from cloud.things import Foreign
from dhctl.infra.openstack.secrets import HeadSecrets
from dhctl.infra.processes import wait_until
from dhctl.infra.record import RunRecord
from e2e.driver import assert_trained_on_two
from testbeds.object_store import ObjectStore

CANARY = "canary-9c1f27d0a4"


def test_whole_life(
    dhctl: CloudRuns, cloud: Connection, foreign: Foreign, s3_server: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    dhctl.env["AWS_DHCTL_TEST"] = CANARY
    up = dhctl("up", dhctl.spec("pair"))
    assert up.returncode == 0, up.stdout + up.stderr
    assert "Ray refuses callers without the token: Jobs API, GCS, raylet" in up.stdout
    assert "closed to the outside: 6379 (" in up.stdout
    record = dhctl.record()
    _assert_secrets_are_kept(record)
    assert workers(record) == 0

    trained = dhctl("train", "pair", "--json")
    assert trained.returncode == 0, trained.stdout + trained.stderr
    events = [json.loads(line) for line in trained.stdout.splitlines()]
    summary = events[-1]
    assert summary["status"] == "SUCCEEDED"
    assert len(summary["result"]["nodes"]) == 2, "the tasks ran on two workers"
    assert summary["result"]["seen"]["DHCTL_OUTPUT"] == record.output
    assert max(e["alive"] for e in events if e["event"] == "NodeChanged") == 2
    kept = s3_server.objects("runs", f"{dhctl.folder.name}/{record.run_id}/jobs/1/")
    assert {Path(key).name for key in kept} == {"driver.log", "metrics.jsonl", "result.json"}

    shell = dhctl("ssh", "pair", "--", "hostname")
    assert shell.stdout.strip() == f"{record.run_id}-head", shell.stderr
    assert wait_until(lambda: workers(record) == 0, 2 * 8 + 60, every_s=2), "workers do not leave when idle"

    def servers() -> list[str]:
        return [s.name for s in cloud.compute.servers() if record.run_id in s.name]

    # Ray lets go of a worker before the cloud has ended its server
    assert wait_until(lambda: servers() == [f"{record.run_id}-head"], 60, every_s=1), servers()

    down = dhctl("down", "pair", "--json")
    assert down.returncode == 0, down.stdout + down.stderr
    receipt = json.loads(down.stdout.splitlines()[-1])
    assert receipt["clean"] is True
    assert receipt["created"]["Instance"] == 1
    assert receipt["created"]["workers"] == 2
    assert {"servers", "ports", "floating IPs", "networks", "application credentials"} <= {
        check["place"] for check in receipt["checks"]
    }
    assert_nothing_marked(cloud, [record.run_id])
    assert not HeadSecrets.of(record).folder.exists()
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    assert [line for line in listed.splitlines() if record.run_id in line] == []
    again = dhctl("down", "pair")
    assert again.returncode == 0, again.stdout + again.stderr


def _assert_secrets_are_kept(record: RunRecord) -> None:
    """Private files are private, and neither state, ledger nor user data holds what they hold."""
    secrets = HeadSecrets.of(record)
    for path in (secrets.key_file, secrets.token_file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    hidden = [secrets.token_file.read_text(), secrets.key_file.read_text().splitlines()[2], CANARY]
    searched = [p for p in record.folder.rglob("*") if p.is_file() and secrets.folder not in p.parents]
    assert any("state" in str(p) for p in searched), "the state lies where it is searched"
    for path in searched:
        text = path.read_text(errors="replace")
        assert [path.name for secret in hidden if secret in text] == []


def test_prostate_example_trains_on_s3(dhctl: CloudRuns, cloud: Connection, s3_server: ObjectStore) -> None:
    """examples/prostate-openstack.yaml as it stands, with this site's names."""
    body = yaml.safe_load((Path(__file__).parents[2] / "examples" / "prostate-openstack.yaml").read_text())
    body["openstack"] = {**body["openstack"], **SECTION}
    body["output"] = f"{dhctl.bucket}/{dhctl.folder.name}"
    (dhctl.folder / "prostate.json").write_text(json.dumps(body))
    ran = dhctl("run", "prostate.json", "--json", timeout_s=1200)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert_trained_on_two(ran.stdout, "quadratic_weighted_kappa", 0.2)
    record = dhctl.record()
    kept = s3_server.objects("runs", f"{dhctl.folder.name}/{record.run_id}/")
    assert any(key.endswith("model.pt") for key in kept)
    assert any("/shards/" in key for key in kept)
    assert any("/checkpoint_" in key for key in kept)
    assert_nothing_marked(cloud, [record.run_id])
