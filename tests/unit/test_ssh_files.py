"""Files over SSH, against a real sshd."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dhctl.infra import ssh_client, ssh_files
from dhctl.infra.errors import ClusterError
from dhctl.infra.ssh import SshEndpoint, fetch, push_files, run
from unit.own_sshd import OwnSshd


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnSshd]:
    sshd = OwnSshd(tmp_path_factory.mktemp("sshd")).start()
    yield sshd
    sshd.stop()


@pytest.fixture
def head(server: OwnSshd, tmp_path: Path) -> SshEndpoint:
    return server.endpoint(tmp_path / "known_hosts")


def test_a_file_is_stored_whole_with_its_mode(head: SshEndpoint, tmp_path: Path) -> None:
    there = tmp_path / "new folder" / "it's secret.json"
    content = bytes(range(256)) * 4096
    push_files(head, {str(there): content}, sudo=False)
    assert there.read_bytes() == content
    assert there.stat().st_mode & 0o777 == 0o600
    push_files(head, {str(there): b""}, 0o755, sudo=False)
    assert (there.read_bytes(), there.stat().st_mode & 0o777) == (b"", 0o755)
    assert [path.name for path in there.parent.iterdir()] == [there.name]


def test_several_files_come_over_one_connection(head: SshEndpoint, tmp_path: Path) -> None:
    contents = {str(tmp_path / "a" / name): os.urandom(size) for name, size in (("1", 70_000), ("2", 0), ("it's 3", 5))}
    push_files(head, contents, sudo=False)
    assert {path: Path(path).read_bytes() for path in contents} == contents


def test_a_part_of_a_file_is_not_stored(head: SshEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "file"
    push_files(head, {str(there): b"before"}, sudo=False)
    monkeypatch.setattr(ssh_files, "run", lambda e, words, content, t: run(e, words, content[:-1], t))
    with pytest.raises(ClusterError, match="only a part of the file arrived"):
        push_files(head, {str(there): b"afterwards"}, sudo=False)
    assert there.read_bytes() == b"before"
    assert [path.name for path in tmp_path.glob("file*")] == ["file"]


def test_the_content_stands_in_no_command_line(head: SshEndpoint, tmp_path: Path) -> None:
    seen: list[str] = []
    spawn = ssh_client.spawn

    def watching(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        seen.extend(command)
        return spawn(command, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssh_client, "spawn", watching)
        push_files(head, {str(tmp_path / "file"): b"s3cret-token"}, sudo=False)
    assert seen
    assert not any("s3cret" in word for word in seen)


def test_a_place_that_cannot_be_written_is_told_in_the_nodes_words(head: SshEndpoint) -> None:
    with pytest.raises(ClusterError, match=r"storing /proc/dhctl/x on .* failed \(.*/proc/dhctl"):
        push_files(head, {"/proc/dhctl/x": b"x"}, sudo=False)


def test_a_folder_is_fetched_and_only_what_stays_inside(head: SshEndpoint, tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    (there / "logs").mkdir(parents=True)
    (there / "logs" / "a.out").write_text("a")
    (there / "latest").symlink_to("logs/a.out")
    (there / "passwd").symlink_to("/etc/passwd")
    (there / "up").symlink_to("../../up")
    os.mkfifo(there / "pipe")
    for _ in range(2):
        assert sorted(fetch(head, [str(there)], here, sudo=False)) == ["./passwd", "./pipe", "./up"]
    assert (here / "logs" / "a.out").read_text() == (here / "latest").read_text() == "a"
    assert sorted(path.name for path in here.iterdir()) == ["latest", "logs"]


def test_folders_are_read_after_a_first_command_and_those_that_are_not_there_are_left_out(
    head: SshEndpoint, tmp_path: Path
) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b").write_text("b")
    first = f"echo a > '{there}/a'; echo chatter"
    fetch(head, [str(there), "/no/such/folder", str(tmp_path / "more")], here, first=first, sudo=False)
    assert sorted(path.name for path in here.iterdir()) == ["a", "b"]


def test_a_first_command_that_fails_is_a_sentence(head: SshEndpoint, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"reading .* failed \(no autoscaler\)"):
        fetch(head, [str(tmp_path)], tmp_path / "here", first="echo no autoscaler >&2; exit 3", sudo=False)


def test_a_folder_that_is_not_there_is_a_sentence(head: SshEndpoint, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"reading /no/such/folder on .* failed"):
        fetch(head, ["/no/such/folder"], tmp_path / "here", sudo=False)
    assert list((tmp_path / "here").iterdir()) == []


def test_a_torn_archive_is_a_sentence(head: SshEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "big").write_bytes(b"x" * 100_000)
    exchange = ssh_files.exchange

    def cut(endpoint: SshEndpoint, words: list[str], *rest: object) -> object:
        return exchange(endpoint, ["sh", "-c", f"{shlex.join(words)} | head -c 50000"], *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(ssh_files, "exchange", cut)
    with pytest.raises(ClusterError, match=r"only a part of .*there came"):
        fetch(head, [str(tmp_path / "there")], tmp_path / "here", sudo=False)


def test_root_stores_and_reads_where_the_login_may_not(head: SshEndpoint, tmp_path: Path) -> None:
    if subprocess.run(["sh", "-c", "sudo -n true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs sudo without a password")
    there = tmp_path / "root" / "secrets.json"
    push_files(head, {str(there): b"{}"})
    assert (there.stat().st_uid, there.stat().st_mode & 0o777) == (0, 0o600)
    assert fetch(head, [str(there.parent)], tmp_path / "here") == ()
    assert (tmp_path / "here" / "secrets.json").read_bytes() == b"{}"
