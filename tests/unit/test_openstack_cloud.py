"""The login: ambient credentials, patience with a keystone in trouble, and sentences for all that goes wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from keystoneauth1 import exceptions as auth_errors
from openstack import exceptions as sdk_errors
from openstack.exceptions import raise_from_response

from dhctl.infra.errors import ExitCode
from dhctl.infra.openstack.answers import reason_of, status_of
from dhctl.infra.openstack.cloud import CloudError, cloud_errors, connect, node_access
from dhctl.infra.openstack.section import OpenStackSection
from unit.fake_openstack import answer
from unit.http_cloud import HANGS_UP, PROJECT, HttpCloud

NAMED = OpenStackSection(cloud="small")


def refused(section: OpenStackSection = NAMED) -> str:
    with pytest.raises(CloudError) as caught:
        connect(section)
    assert caught.value.exit_code is ExitCode.REFUSED
    return str(caught.value)


def test_an_entry_of_clouds_yaml_is_logged_in(http_cloud: HttpCloud) -> None:
    assert connect(NAMED).current_project_id == PROJECT
    assert http_cloud.asked == ["POST /identity/v3/auth/tokens"]


def test_the_cloud_of_the_environment_is_the_default(http_cloud: HttpCloud) -> None:
    assert connect(OpenStackSection()).current_project_id == PROJECT


def test_a_file_that_was_found_is_named_for_processes_in_other_folders(
    http_cloud: HttpCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OS_CLIENT_CONFIG_FILE")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("openstack.config.loader.CONFIG_FILES", ["clouds.yaml"])  # read at its import: its cwd then
    connect(NAMED)
    assert os.environ["OS_CLIENT_CONFIG_FILE"] == str(tmp_path / "clouds.yaml")


def test_a_wrong_password_is_told_at_once(http_cloud: HttpCloud, tmp_path: Path) -> None:
    http_cloud.write_config(tmp_path, password="wrong")
    told = refused()
    assert told.startswith("cannot log in on OpenStack: The request you have made requires authentication. (HTTP 401)")
    assert told.endswith("check user, password and project, or whether the application credential has expired")
    assert len(http_cloud.asked) == 1


def test_a_keystone_in_trouble_is_asked_again(http_cloud: HttpCloud) -> None:
    http_cloud.broken["/identity/v3/auth"] = [503, HANGS_UP, 200]
    assert connect(NAMED).current_project_id == PROJECT
    assert len(http_cloud.asked) == 3


def test_a_keystone_that_stays_in_trouble_is_told(http_cloud: HttpCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dhctl.infra.openstack.cloud.LOGIN_WAIT_S", 0.1)
    http_cloud.broken["/identity/v3/auth"] = [503]
    told = refused()
    assert "out of order (HTTP 503)" in told
    assert told.endswith("try again later, or ask the cloud's operator with the text above")


def test_an_address_where_nobody_answers_is_told(
    http_cloud: HttpCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dhctl.infra.openstack.cloud.LOGIN_WAIT_S", 0.1)
    http_cloud.url = "http://127.0.0.1:9"
    http_cloud.write_config(tmp_path)
    assert refused().endswith("check auth_url, VPN and proxy settings")


def test_an_entry_that_is_not_there_is_told(http_cloud: HttpCloud) -> None:
    told = refused(OpenStackSection(cloud="other"))
    assert "other" in told
    assert told.endswith("or source the project's RC file")


def test_no_credentials_at_all_are_told(http_cloud: HttpCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "clouds.yaml").unlink()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("OS_CLOUD")
    assert refused(OpenStackSection()).endswith("or source the project's RC file")


def test_what_is_no_error_of_the_cloud_is_left_alone() -> None:
    with pytest.raises(KeyError), cloud_errors("count"):
        raise KeyError("x")


def test_a_reason_is_the_services_own_words() -> None:
    body = {"NeutronError": {"type": "InUse", "message": "Subnet in use.", "detail": ""}}
    with pytest.raises(sdk_errors.SDKException) as caught:
        raise_from_response(answer(409, body))
    assert reason_of(caught.value) == "Subnet in use. (HTTP 409)"
    assert status_of(caught.value) == 409


def test_a_reason_without_words_is_the_kind_of_error() -> None:
    assert reason_of(auth_errors.ConnectFailure("")) != ""
    assert status_of(ValueError("x")) == 0
    assert reason_of(auth_errors.Unauthorized("No.  (Request-ID: req-1)", http_status=401)).startswith("No.")


def test_nodes_are_told_the_way_and_never_the_password(http_cloud: HttpCloud, tmp_path: Path) -> None:
    told = node_access(connect(NAMED))
    assert told == {
        "auth_url": f"{http_cloud.url}/identity/v3",
        "region_name": "here",
        "interface": "public",
        "cacert": None,
        "verify": True,
    }


def test_nodes_are_told_the_clouds_own_certificates(http_cloud: HttpCloud, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    http_cloud.write_config(tmp_path, cacert=str(tmp_path / "ca.pem"))
    assert node_access(connect(NAMED))["cacert"] == "-----BEGIN CERTIFICATE-----\n"
    http_cloud.write_config(tmp_path, verify=False)
    assert node_access(connect(NAMED))["verify"] is False
