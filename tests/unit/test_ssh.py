"""Commands and files over SSH, against a real sshd."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import psutil
import pytest
from click.testing import CliRunner

from dhctl.cli import factory
from dhctl.cli.ssh import command as ssh_verb
from dhctl.infra import ssh, ssh_client
from dhctl.infra.errors import ClusterError, NotUpError, RefusedError
from dhctl.infra.record import RunRecord
from dhctl.infra.ssh import SshEndpoint, login_line, pin_host_key, run, with_first_login
from unit.own_sshd import ALIAS, OwnSshd, free_port, make_key


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnSshd]:
    sshd = OwnSshd(tmp_path_factory.mktemp("sshd")).start()
    yield sshd
    sshd.stop()


@pytest.fixture
def head(server: OwnSshd, tmp_path: Path) -> SshEndpoint:
    """In a folder whose name ssh's options could misread."""
    folder = tmp_path / 'a b %h "q"'
    folder.mkdir()
    return server.endpoint(folder / "known_hosts")


def clients() -> list[psutil.Process]:
    """The ssh processes, with the Python before them, that we or our children started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it ended, or is a zombie
            if any(f"HostKeyAlias={ALIAS}" in word for word in process.cmdline()):
                found.append(process)
    return found


# Commands


def test_words_arrive_exactly_with_input_output_and_status(head: SshEndpoint) -> None:
    words = ["sh", "-c", 'printf "%s|" "$@"; cat; echo oops >&2; exit 7', "sh", "a b", "$HOME", "'\"", ""]
    done = run(head, words, stdin=b"\x00\xffinput")
    assert (done.stdout, done.stderr, done.returncode) == (b"a b|$HOME|'\"||\x00\xffinput", b"oops\n", 7)


def test_without_input_a_command_finds_the_end_of_it(head: SshEndpoint) -> None:
    assert run(head, ["cat"], timeout_s=10).stdout == b""


def test_a_command_past_its_time_is_ended_here(head: SshEndpoint) -> None:
    began = time.monotonic()
    with pytest.raises(ssh.UnreachableError, match=r"`sleep` on .* was not done after 1 s"):
        run(head, ["sleep", "4"], timeout_s=1)
    assert time.monotonic() - began < 6
    assert clients() == []


def test_another_host_key_is_somebody_else_and_nothing_runs(head: SshEndpoint, tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    pin_host_key(head.known_hosts, ALIAS, (tmp_path / "other.pub").read_text())
    with pytest.raises(ssh.HostKeyDiffersError, match=r"somebody else answers at .*nothing was sent"):
        run(head, ["touch", str(tmp_path / "ran")])
    assert not (tmp_path / "ran").exists()


def test_an_unknown_host_key_is_never_learnt(head: SshEndpoint) -> None:
    before = head.known_hosts.read_text()
    with pytest.raises(NotUpError, match="host key of dh-other-head is not known yet"):
        run(replace(head, alias="dh-other-head"), ["true"])
    assert head.known_hosts.read_text() == before


def test_another_user_key_is_refused(head: SshEndpoint, tmp_path: Path) -> None:
    make_key(tmp_path / "stranger")
    with pytest.raises(ssh.LoginRefusedError, match="does not take the run's SSH key"):
        run(replace(head, key_file=tmp_path / "stranger"), ["true"])


def test_a_missing_key_is_a_sentence(head: SshEndpoint, tmp_path: Path) -> None:
    with pytest.raises(NotUpError, match=r"SSH key .*/gone is missing"):
        run(replace(head, key_file=tmp_path / "gone"), ["true"])


def test_nobody_there_is_a_sentence(head: SshEndpoint) -> None:
    with pytest.raises(ssh.UnreachableError, match=r"cannot be reached over SSH .*Connection refused"):
        run(replace(head, port=free_port()), ["true"])


def test_what_a_command_prints_is_not_taken_for_ssh(head: SshEndpoint) -> None:
    shout = "echo 'Host key verification failed. Permission denied (publickey).' >&2; exit 255"
    with pytest.raises(ClusterError) as caught:
        run(head, ["sh", "-c", shout])
    assert type(caught.value) is ssh.UnreachableError


def test_no_ssh_is_a_sentence(head: SshEndpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RefusedError, match="no `ssh` on PATH; install the OpenSSH client"):
        run(head, ["true"])


def test_a_command_dies_with_a_killed_client(head: SshEndpoint, eventually: Callable[..., None]) -> None:
    client = (
        "import sys; from pathlib import Path; from dhctl.infra.ssh import SshEndpoint, run;"
        "host, user, key, known, alias, port = sys.argv[1:];"
        "run(SshEndpoint(host, user, Path(key), Path(known), alias, int(port)), ['sleep', '4'])"
    )
    place = [head.host, head.user, str(head.key_file), str(head.known_hosts), head.alias, str(head.port)]
    process = subprocess.Popen([sys.executable, "-c", client, *place])
    eventually(lambda: [p for p in clients() if p.name() == "ssh"], 10)
    process.kill()
    process.wait()
    eventually(lambda: not clients())


# Waiting for a young node


def test_a_login_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sshd = OwnSshd(tmp_path / "young")
    endpoint = sshd.endpoint(tmp_path / "known_hosts")
    monkeypatch.setattr(ssh_client, "LOGIN_EVERY_S", 0.05)
    tries: list[int] = []

    def check() -> None:
        tries.append(1)
        if len(tries) == 3:
            sshd.start()

    try:
        push = partial(ssh.push_files, endpoint, {str(tmp_path / "file"): b"x"}, sudo=False)
        with_first_login(push, 20, check)
    finally:
        sshd.stop()
    assert len(tries) == 3
    assert (tmp_path / "file").read_bytes() == b"x"


def test_waiting_for_a_login_ends_with_the_last_reason(head: SshEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_client, "LOGIN_EVERY_S", 0.2)
    push = partial(ssh.push_files, replace(head, port=free_port()), {})
    with pytest.raises(ssh.UnreachableError, match="Connection refused"):
        with_first_login(push, 0.5)


def test_waiting_for_a_login_stops_at_once_at_another_host_key(head: SshEndpoint, tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    pin_host_key(head.known_hosts, ALIAS, (tmp_path / "other.pub").read_text())
    began = time.monotonic()
    with pytest.raises(ssh.HostKeyDiffersError):
        with_first_login(partial(ssh.push_files, head, {}), 30)
    assert time.monotonic() - began < 10


# The pinned key


def test_pinning_replaces_only_its_own_line(server: OwnSshd, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    make_key(tmp_path / "other")
    other = (tmp_path / "other.pub").read_text()
    pin_host_key(known, "dh-a-head", other)
    pin_host_key(known, "dh-a-head2", other)
    pin_host_key(known, "dh-a-head", server.host_key)
    told = [line.split() for line in known.read_text().splitlines()]
    assert told == [["dh-a-head2", *other.split()[:2]], ["dh-a-head", *server.host_key.split()[:2]]]
    assert known.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "key",
    ["", "ssh-ed25519", "ssh-ed25519 AAAA", "ssh-ed25519 !!!", "ssh-dss AAAAB3NzaC1kc3M=", "ssh-rsa {ed25519}"],
)
def test_what_is_no_host_key_is_not_pinned(key: str, server: OwnSshd, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no usable SSH host key"):
        pin_host_key(tmp_path / "known_hosts", ALIAS, key.format(ed25519=server.host_key.split()[1]))
    assert not (tmp_path / "known_hosts").exists()


# A bastion


def test_a_bastion_is_passed_with_the_users_own_settings(
    server: OwnSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bastion = OwnSshd(tmp_path / "bastion").start()
    own_ssh = tmp_path / "bin" / "ssh"
    own_ssh.parent.mkdir()
    own = f"-o IdentityFile={bastion.folder}/user -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    hop = f'echo "$@" >> {tmp_path}/hops; exec {ssh.ssh_program()} {own} "$@"'
    own_ssh.write_text(f'#!/bin/sh\n[ "$1" = -F ] && exec {ssh.ssh_program()} "$@"\n{hop}\n')
    own_ssh.chmod(0o755)
    endpoint = server.endpoint(tmp_path / "known_hosts", f"{getpass.getuser()}@127.0.0.1:{bastion.port}")
    try:
        with pytest.raises(ssh.UnreachableError, match=r"by way of .*does `ssh .*@127.0.0.1:\d+` work"):
            run(endpoint, ["true"])  # the user's own ssh knows neither key nor host
        monkeypatch.setenv("PATH", f"{own_ssh.parent}:{os.environ['PATH']}")
        direct = replace(endpoint, bastion=None)
        seen = [run(e, ["sh", "-c", "echo $SSH_CONNECTION"]).stdout.split()[3] for e in (endpoint, direct)]
        assert seen == [str(server.port).encode()] * 2
        assert f"Accepted publickey for {getpass.getuser()}" in (bastion.folder / "log").read_text()
    finally:
        bastion.stop()
    hop = f"-o BatchMode=yes -p {bastion.port} -W [127.0.0.1]:{server.port} -- {getpass.getuser()}@127.0.0.1\n"
    assert (tmp_path / "hops").read_text() == hop


# The verb


@pytest.fixture
def verb(head: SshEndpoint, monkeypatch: pytest.MonkeyPatch, record: RunRecord) -> Callable[..., list[str]]:
    """What `dhctl ssh RUN ...` would become, for a run whose head is the server."""

    class OnTheServer:
        def endpoint(self, run: RunRecord) -> SshEndpoint:
            assert run.run_id == record.run_id
            return head

    became: list[list[str]] = []
    monkeypatch.setattr(factory, "target_of", lambda run: OnTheServer())
    monkeypatch.setattr(os, "execv", lambda path, line: became.append([path, *line[1:]]))

    def calling(*words: str) -> list[str]:
        result = CliRunner().invoke(ssh_verb, [record.run_id, *words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return became.pop()

    return calling


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (["--", "printf", "%s.", "a  b", "$HOME"], b"a  b.$HOME."),
        (["printf", "%s", "-n", "--json"], b"-n--json"),
        (["--", "echo one two | wc -w"], b"2\n"),
    ],
)
def test_the_verb_runs_a_command_and_takes_its_status(
    verb: Callable[..., list[str]], words: list[str], out: bytes
) -> None:
    done = subprocess.run(verb(*words), capture_output=True, timeout=30, check=False)
    assert (done.stdout, done.returncode) == (out, 0)
    assert subprocess.run(verb("--", "exit 5"), timeout=30, check=False).returncode == 5


def test_the_verb_opens_a_shell(verb: Callable[..., list[str]]) -> None:
    done = subprocess.run(verb(), input=b"echo in $((40 + 2))\n", capture_output=True, timeout=30, check=False)
    assert b"in 42\n" in done.stdout


def test_at_a_terminal_the_way_may_ask_and_a_terminal_is_there(head: SshEndpoint) -> None:
    line = login_line(replace(head, bastion="me@jump:2222"), ["htop", "-d", "5"], terminal=True)
    assert line[-4:] == ["-t", "--", "127.0.0.1", "htop -d 5"]
    assert "ProxyCommand=ssh -p 2222 -W '[%h]:%p' -- me@jump" in line


def test_a_run_on_this_machine_has_no_other_shell(record: RunRecord) -> None:
    result = CliRunner().invoke(ssh_verb, [record.run_id])
    assert isinstance(result.exception, RefusedError)
    assert not isinstance(result.exception, click.ClickException)
    assert "lives on this machine" in str(result.exception)
