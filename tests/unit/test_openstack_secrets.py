"""The run's secrets: private files that only the owner reads, gone when the run is."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from dhctl.infra.openstack.secrets import HeadSecrets
from dhctl.infra.record import RunRecord
from unit.own_sshd import program


@pytest.fixture
def secrets(record: RunRecord) -> HeadSecrets:
    return HeadSecrets.of(record)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_key_and_token_are_the_owners_alone(secrets: HeadSecrets, record: RunRecord) -> None:
    secrets.make_key()
    assert secrets.folder == record.folder / "secrets"
    assert mode(secrets.folder) == 0o700
    assert {path.name: mode(path) for path in secrets.folder.iterdir()} == {"id_ed25519": 0o600, "token": 0o600}
    assert len(secrets.token_file.read_text()) == 64


def test_openssh_reads_the_key_and_it_fits_the_public_one(secrets: HeadSecrets) -> None:
    program()
    public = secrets.make_key()
    told = subprocess.run(["ssh-keygen", "-y", "-f", secrets.key_file], capture_output=True, text=True, check=True)
    assert told.stdout.split()[:2] == public.split()[:2]
    assert public.startswith("ssh-ed25519 ")


def test_a_second_call_draws_nothing_anew(secrets: HeadSecrets) -> None:
    public = secrets.make_key()
    before = {path: path.read_bytes() for path in secrets.folder.iterdir()}
    assert secrets.make_key() == public
    assert {path: path.read_bytes() for path in secrets.folder.iterdir()} == before


def test_two_runs_share_nothing(tmp_path: Path) -> None:
    one, other = HeadSecrets(tmp_path / "one"), HeadSecrets(tmp_path / "other")
    assert one.make_key() != other.make_key()
    assert one.token_file.read_text() != other.token_file.read_text()


def test_nodes_get_token_credential_and_the_keys_of_the_store(
    secrets: HeadSecrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the store")
    monkeypatch.setenv("OS_PASSWORD", "of the user")
    secrets.make_key()
    body = json.loads(secrets.for_nodes({"application_credential_secret": "narrow"}))
    assert body.keys() == {"token", "credential", "env"}
    assert body["token"] == secrets.token_file.read_text()
    assert body["credential"] == {"application_credential_secret": "narrow"}
    assert body["env"]["AWS_SECRET_ACCESS_KEY"] == "of the store"
    assert "of the user" not in json.dumps(body)


def test_they_are_a_row_of_the_receipt_until_they_are_removed(secrets: HeadSecrets) -> None:
    assert secrets.look().state == "none"
    secrets.make_key()
    (left,) = secrets.look().found
    assert (left.kind, left.remove_with) == ("folder", f"rm -r {secrets.folder}")
    secrets.remove()
    secrets.remove()
    assert secrets.look().state == "none"
