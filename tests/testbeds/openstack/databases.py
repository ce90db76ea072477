"""The services' databases: made by the packages' own tools once for each set of versions, then restored from a dump."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from testbeds.apt import versions
from testbeds.errors import TestbedError
from testbeds.openstack.configuration import argument
from testbeds.openstack.layout import ENDPOINTS, HERE, IDENTITY_URL, PASSWORD, Layout
from testbeds.openstack.packages import PACKAGES
from testbeds.services import clean_env

DATABASES = ("keystone", "glance", "placement", "nova_api", "nova", "nova_cell0", "neutron")
COMMAND_LIMIT_S = 300


class Databases:
    """Those of one testbed. MariaDB must run for all but `make_data_folder`."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._client = ("--no-defaults", f"--socket={layout.mysql_socket}", "-uroot")

    def make_data_folder(self) -> None:
        """An empty MariaDB, before its first start."""
        options = ("--no-defaults", "--user=mysql", "--skip-test-db", "--auth-root-authentication-method=normal")
        self._run("mysql-install", ("mariadb-install-db", *options, f"--datadir={self.layout.state}/mysql"))

    def dump_file(self) -> Path:
        """Where the dump of these packages' fresh databases lies in the user's cache, if it does."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dhctl-testbed"
        # What is in a dump is made by the packages and by these two files.
        parts = [
            repr((sorted(versions(PACKAGES).items()), ENDPOINTS)),
            *((HERE / name).read_text() for name in ("databases.py", "cloud_setup.py")),
        ]
        return cache / f"openstack-{hashlib.sha256(''.join(parts).encode()).hexdigest()[:16]}.sql.zz"

    def create(self) -> None:
        """The databases, empty, and the account of the services."""
        statements = [f"CREATE DATABASE {name} CHARACTER SET utf8mb3;" for name in DATABASES]
        statements.append(f"CREATE USER 'ostb'@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO 'ostb'@'%';")
        self._sql("\n".join(statements).encode())

    def restore(self) -> bool:
        """Fills them from the dump; False when there is none, or none that can be read."""
        try:
            content = zlib.decompress(self.dump_file().read_bytes())
        except FileNotFoundError:
            return False
        except zlib.error:
            self.dump_file().unlink()
            return False
        # One log flush at the end instead of one a statement.
        self._sql(b"SET autocommit=0; SET unique_checks=0; SET foreign_key_checks=0;\n" + content + b"\nCOMMIT;\n")
        return True

    def make(self) -> None:
        """Fills them by the packages' own tools, side by side, and makes keystone's first account."""
        etc = self.layout.etc
        neutron = (*argument(etc / "neutron.conf"), *argument(etc / "ml2_conf.ini"))
        placement = ("placement-manage", *argument(etc / "placement" / "placement.conf"))
        syncs: dict[str, tuple[tuple[str, ...], ...]] = {
            "nova": self._nova_steps(),
            "neutron": (("neutron-db-manage", *neutron, "upgrade", "heads"),),
            "keystone": (self._keystone("db_sync"), self._bootstrap()),
            "glance": (("glance-manage", *argument(etc / "glance-api.conf"), "db_sync"),),
            "placement": ((*placement, "db", "sync"),),
        }
        with ThreadPoolExecutor(len(syncs)) as pool:
            running = [pool.submit(self._run_all, f"sync-{name}", steps) for name, steps in syncs.items()]
        for done in running:
            done.result()

    def make_keys(self) -> None:
        """Keystone's keys, which are files: those of tokens, and those of credentials (EC2)."""
        owner = ("--keystone-user", "root", "--keystone-group", "root")
        with ThreadPoolExecutor(2) as pool:
            verbs = ("fernet_setup", "credential_setup")
            running = [pool.submit(self._run, f"keys-{verb}", (*self._keystone(verb), *owner)) for verb in verbs]
        for done in running:
            done.result()

    def save(self) -> None:
        """Keeps the databases as they are now for the next testbed of the same packages."""
        dump = subprocess.run(
            ("mariadb-dump", *self._client, "--databases", *DATABASES),
            env=clean_env(self.layout.state),
            capture_output=True,
            timeout=COMMAND_LIMIT_S,
            check=True,
        ).stdout
        target = self.dump_file()
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as draft:
            draft.write(zlib.compress(dump))
        Path(draft.name).rename(target)

    def _keystone(self, verb: str) -> tuple[str, ...]:
        return ("keystone-manage", *argument(self.layout.etc / "keystone.conf"), verb)

    def _bootstrap(self) -> tuple[str, ...]:
        urls = [
            word for kind in ("admin", "internal", "public") for word in (f"--bootstrap-{kind}-url", f"{IDENTITY_URL}/")
        ]
        return (
            *self._keystone("bootstrap"),
            "--bootstrap-password",
            PASSWORD,
            "--bootstrap-region-id",
            "RegionOne",
            *urls,
        )

    def _nova_steps(self) -> tuple[tuple[str, ...], ...]:
        nova = ("nova-manage", *argument(self.layout.etc / "nova.conf"))
        cell0 = f"mysql+pymysql://ostb:{PASSWORD}@127.0.0.1:3306/nova_cell0"
        map_cell0 = (*nova, "cell_v2", "map_cell0", "--database_connection", cell0)
        create_cell = (*nova, "cell_v2", "create_cell", "--name", "cell1")
        return ((*nova, "api_db", "sync"), map_cell0, (*nova, "db", "sync"), create_cell)

    def _sql(self, statements: bytes) -> None:
        client = ("mariadb", *self._client)
        env = clean_env(self.layout.state)
        done = subprocess.run(
            client, env=env, input=statements, capture_output=True, timeout=COMMAND_LIMIT_S, check=False
        )
        if done.returncode:
            raise TestbedError(f"MariaDB refused: {done.stderr.decode(errors='replace')[-500:]}")

    def _run_all(self, log_name: str, commands: tuple[tuple[str, ...], ...]) -> None:
        for command in commands:
            self._run(log_name, command)

    def _run(self, log_name: str, command: tuple[str, ...]) -> None:
        log = self.layout.log / f"{log_name}.log"
        program = shutil.which(command[0], path=clean_env(self.layout.state)["PATH"])
        if program is None:
            raise TestbedError(f"{command[0]} is missing; install the packages: make testbed-install")
        with log.open("ab") as output:
            done = subprocess.run(
                (program, *command[1:]),
                env=clean_env(self.layout.state),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=COMMAND_LIMIT_S,
                check=False,
            )
        if done.returncode:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise TestbedError(f"{command[0]} {command[-1]} failed (exit {done.returncode}):\n{tail}")
