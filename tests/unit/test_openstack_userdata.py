"""What a server is given at its boot, and the code that is pushed: run here with real interpreters."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from dhctl.infra.node.layout import write_json
from dhctl.infra.node.stop import STOP_MODULE
from dhctl.infra.openstack import userdata
from dhctl.infra.openstack.node.settings import NodeSettings
from dhctl.infra.openstack.requirements import requirements_for
from dhctl.infra.openstack.userdata import boot_archive, code_tar, head_user_data, worker_user_data
from unit.fakes import make_spec
from unit.node_fakes import make_node_folder, make_node_settings

NODE_MODULES = ("agent", "boot", "enrolment", "lease_guard", "node_provider", "compute", "ray_worker")


def test_it_is_cloud_config_that_writes_and_runs_the_boot() -> None:
    text = head_user_data(make_node_settings())
    assert text.startswith("#cloud-config\n")
    body = yaml.safe_load(text)
    archive, node = body["write_files"]
    assert base64.b64decode(archive["content"]) == boot_archive()
    assert (node["path"], node["permissions"], node["encoding"]) == ("/var/lib/dhctl/node.json", "0600", "b64")
    assert NodeSettings.from_dict(json.loads(base64.b64decode(node["content"]))) == make_node_settings()
    assert body["runcmd"] == [["python3", "-u", archive["path"]]]


def test_it_fits_into_what_nova_takes() -> None:
    requirements = [f"some-package-{n}==1.2.3" for n in range(100)]
    worker = make_node_settings(requirements=requirements).for_worker("w", "10.77.0.5", "0" * 64, ["--num-cpus", "1"])
    assert len(base64.b64encode(worker_user_data(worker).encode())) < userdata.LIMIT_BYTES
    with pytest.raises(ValueError, match="too many for nova"):
        head_user_data(make_node_settings(requirements=[os.urandom(500).hex() for _ in range(50)]))


def test_equal_settings_give_equal_user_data() -> None:
    """Else Pulumi would make the head anew at each `up`."""
    assert head_user_data(make_node_settings()) == head_user_data(make_node_settings())
    assert code_tar() != b""


def test_settings_survive_an_engine_that_turns_numbers_into_floats() -> None:
    settings = make_node_settings(boot_volume_gib=40, requirements=("a==1",))
    floats = {k: float(v) if type(v) is int else v for k, v in settings.to_dict().items()}
    read = NodeSettings.from_dict(json.loads(json.dumps(floats)))
    assert read == settings
    assert type(read.boot_volume_gib) is int
    with pytest.raises(TypeError, match="unknown"):
        NodeSettings.from_dict({**settings.to_dict(), "unknown": 1})


def test_the_archive_runs_with_the_systems_python(tmp_path: Path) -> None:
    """Without site-packages, as on a bare image; the autoscaler's end can be asked for before there is one."""
    archive = tmp_path / "boot.pyz"
    archive.write_bytes(boot_archive())
    env = {"DHCTL_NODE_HOME": str(tmp_path / "node"), "PATH": os.defpath, "PYTHONPATH": str(archive)}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-S", "-m", STOP_MODULE],
            env=env,
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "node" / "stopping").exists()


def test_the_archive_has_what_the_boot_loads_and_nothing_more(tmp_path: Path) -> None:
    """User data is short of room."""
    archive = tmp_path / "boot.pyz"
    archive.write_bytes(boot_archive())
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import dhctl.infra.openstack.node.boot, dhctl.infra.node.stop; "
    )
    code += "print(*sorted(n for n in sys.modules if n.startswith('dhctl')))"
    command = [sys.executable, "-I", "-S", "-c", code, str(archive)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    with zipfile.ZipFile(archive) as packed:
        names = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in packed.namelist()}
    assert set(done.stdout.split()) == names - {"__main__"}


def test_the_archive_boots_and_says_what_is_wrong(tmp_path: Path) -> None:
    archive = tmp_path / "boot.pyz"
    archive.write_bytes(boot_archive())
    folder = make_node_folder(tmp_path / "node")
    write_json(folder.settings, make_node_settings(python="/nowhere/python").to_dict())
    env = {"DHCTL_NODE_HOME": str(folder.path), "PATH": os.defpath}
    code = "import sys, runpy; sys.argv = [sys.argv[1]]; sys.path.insert(0, sys.argv[0]); "
    code += "from dhctl.infra.openstack.node import boot; from pathlib import Path; "
    code += f"boot.HOST_KEY = Path({str(folder.token)!r}); sys.exit(boot.main())"
    command = [sys.executable, "-S", "-c", code, str(archive)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1, done.stderr
    last = userdata.console_events(done.stdout)[-1]
    assert last["reason"].startswith("openstack.python does not fit: /nowhere/python: cannot be run")


def test_the_pushed_code_is_whole(tmp_path: Path) -> None:
    """Every module that runs on a node is imported from the unpacked tar file and takes nothing of dhctl elsewhere."""
    with tarfile.open(fileobj=io.BytesIO(code_tar())) as packed:
        packed.extractall(tmp_path, filter="data")
    code = "import sys, importlib\n"
    code += "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in str(f).lower()]\n"
    code += f"[importlib.import_module('dhctl.infra.openstack.node.' + m) for m in {NODE_MODULES!r}]\n"
    code += "import dhctl.infra.openstack.quota\n"
    code += (
        "heavy = [m for m in ('pydantic', 'tenacity', 'pulumi', 'click', 'cryptography.x509') if m in sys.modules]\n"
    )
    code += "files = [m.__file__ for n, m in sys.modules.items() if n.startswith('dhctl.') and m.__file__]\n"
    code += f"print([f for f in files if not f.startswith({str(tmp_path)!r})], len(files) > 15, heavy)"
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.startswith("[] True"), done.stdout + done.stderr
    assert "tenacity" not in done.stdout  # no image has it for Ray's sake
    assert "pulumi" not in done.stdout


def test_sleeping_processes_load_only_the_standard_library(tmp_path: Path) -> None:
    """Agent, enrolment and lease guard take their memory away from jobs."""
    code = "import sys, dhctl.infra.openstack.node.agent, dhctl.infra.openstack.node.enrolment\n"
    code += "import dhctl.infra.openstack.node.lease_guard\n"
    code += "print([m for m in ('ray', 'openstack', 'keystoneauth1', 'pydantic', 'psutil') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"


def test_requirements_are_pinned_and_those_of_the_job() -> None:
    own = requirements_for(make_spec())
    assert all("==" in requirement for requirement in own)
    names = {r.partition("==")[0].partition("[")[0] for r in own}
    assert {"ray", "openstacksdk", "boto3", "psutil", "pyarrow"} == names
    assert any(r.startswith("ray[default,train]==") for r in own)
    prostate = requirements_for(make_spec(job={"name": "prostate"}))
    assert {"torch", "monai"} <= {r.partition("==")[0] for r in prostate}
    assert "pulumi" not in " ".join(prostate)
