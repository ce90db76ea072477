"""A real Kubernetes of two nodes on this machine.

Without systemd, as root. A node is a network namespace and a mount namespace with a containerd, a kubelet and a
kube-proxy of its own; the control plane is in a third network namespace, the fabric. This machine's own network, mounts
and settings stay as they are, but for a cable to the fabric.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from dhctl.infra.processes import ProcessMark, wait_until
from testbeds import apt
from testbeds.errors import TestbedError
from testbeds.kubernetes import cluster, image, kernel, packages, programs, services, simulator
from testbeds.kubernetes.kuberay import CRDS_ENV, OPERATOR_ENV, Operator
from testbeds.kubernetes.layout import NODES, Layout, Node
from testbeds.kubernetes.pki import make_pki
from testbeds.services import Service, states
from testbeds.sharing import alone, is_held

INSTALL = "make k8s-testbed-install"
HOLDER_LIMIT_S = 30
KILL_LIMIT_S = 30
_MADE = "made-folders"


class Testbed:
    """The testbed of one state folder. `up` always begins with an empty cluster; `down` leaves the logs."""

    __test__ = False  # no test class, in spite of its name

    def __init__(self, layout: Layout, say: Callable[[str], None]) -> None:
        self.layout = layout
        self.services = services.services_of(layout)
        self._say = say

    def install(self) -> None:
        """Packages, programs and the image, as far as they are missing. Raises TestbedError."""
        installed = apt.install(packages.PACKAGES, INSTALL)
        self._say(f"installed {len(installed)} packages")
        if os.geteuid() != 0:
            raise TestbedError(f"the image is made as root; run {INSTALL} as root")
        cache = self.layout.cache
        self._say("programs built" if programs.build(cache, self._say) else "programs are there")
        self._say("image made" if image.make_store(cache, self._say) else "image is there")

    def obstacle(self) -> str:
        """Why this machine cannot run it: a sentence with a next step, empty when it can."""
        if os.geteuid() != 0:
            return "the Kubernetes testbed needs root (network namespaces, mounts, cgroups); run the tests as root"
        if missing := apt.missing(packages.PACKAGES):
            return f"packages are missing ({', '.join(missing)}); install them: {INSTALL}"
        cache = self.layout.cache
        builds = [path for path in (programs.programs(cache), image.store(cache)) if not path.exists()]
        return f"not built yet: {', '.join(map(str, builds))}; build: {INSTALL}" if builds else ""

    def is_up(self) -> bool:
        """Whether it was brought up and every service lives, but for those that a test is holding down just now."""
        marks = self.services.marks()
        fit = (mark.alive() or is_held(self.layout.held_down(name)) for name, mark in marks.items())
        return self.layout.ready_file.exists() and bool(marks) and all(fit)

    def up(self) -> bool:
        """Brings it up, unless it is; whether it was brought up now.

        Raises TestbedError; what was started is stopped then.
        """
        if obstacle := self.obstacle():
            raise TestbedError(obstacle)
        with alone(self.layout.state):
            if self.is_up():
                return False
            self._refuse_neighbours()
            self._stop_all()
            kernel.refuse_others()
            self._forget(keep=())
            try:
                self._bring_up()
            except BaseException:
                self._stop_all()
                raise
            return True

    def down(self) -> None:
        """Stops everything and removes it from the kernel. Already down is as good."""
        with alone(self.layout.state):
            self._refuse_neighbours()
            self._stop_all()
            self._forget(keep=(self.layout.log,))
        self._say("down")

    def start(self, name: str) -> None:
        """Starts one of its services that was killed: the API server, or one of a node's. Raises TestbedError."""
        layout = self.layout
        makers = (services.kubelet, services.kube_proxy, services.containerd)
        on_nodes = [make(layout, node, self.holder(node)) for node in NODES for make in makers]
        known = {service.name: service for service in (services.api_server(layout), *on_nodes)}
        if name not in known:
            raise TestbedError(f"there is no {name} to start; there are {', '.join(known)}")
        self.services.start(known[name])

    def simulate(self) -> None:
        """Starts kwok, unless it runs; built first where it is missing. Ends with the testbed. Raises TestbedError."""
        simulator.build(self.layout.cache, self._say)
        with alone(self.layout.state):
            self._start_unless_it_runs(services.kwok(self.layout))

    def operate(self) -> None:
        """Starts the operator of KubeRay that the environment names, unless it runs. Raises TestbedError."""
        operator = Operator.given()
        if operator is None:
            raise TestbedError(f"no operator is named; set {OPERATOR_ENV} and {CRDS_ENV}")
        with alone(self.layout.state), cluster.connect(self.layout.admin_kubeconfig) as admin:
            operator.define(admin)
            self._start_unless_it_runs(operator.service(self.layout))

    def _start_unless_it_runs(self, service: Service) -> None:
        mark = self.services.marks().get(service.name)
        if mark is None or not mark.alive():
            self.services.start(service)

    def remains(self) -> list[str]:
        """What is on this machine of a testbed that should be gone: processes, namespaces, a link, cgroups, mounts.

        Nothing while it is up: then they are in use.
        """
        if self.is_up():
            return []
        pids = sorted({mark.pid for mark in self._processes()})
        mounts = [f"mount {point}" for point in kernel.mounts_below(self.layout.state)]
        folders = [f"folder {path}" for path in self._made_folders() if path.exists()]
        in_kernel = [] if self._neighbours() else kernel.remains()
        return [f"process {pid}" for pid in pids] + in_kernel + mounts + folders

    def holder(self, node: Node) -> ProcessMark:
        """The process by which the node's mount namespace is entered."""
        return self.services.marks()[services.holder(self.layout, node).name]

    def _bring_up(self) -> None:
        layout, start = self.layout, self.services.start
        layout.log.mkdir()
        make_pki(layout)
        services.write_configuration(layout, NODES, _machine_memory_kib())
        self._make_folders()
        kernel.make_cgroups()
        kernel.make_network()
        start(services.etcd(layout))
        start(services.api_server(layout))
        self._say("configured")
        for node in NODES:
            start(services.holder(layout, node))
            image.link_store(layout.cache, layout.node(node) / "containerd")
        for node in NODES:
            self._wait_holder(node)
            start(services.containerd(layout, node, self.holder(node)))
        self._say("containerd runs")
        admin = cluster.connect(layout.admin_kubeconfig)
        cluster.wait_api(admin)
        self._say("the API server is ready")
        for service in services.control_plane(layout):
            start(service)
        for node in NODES:
            start(services.kubelet(layout, node, self.holder(node)))
            start(services.kube_proxy(layout, node, self.holder(node)))
        cluster.make_dns_service(admin)
        cluster.make_storage_classes(admin)
        cluster.wait_nodes(admin)
        self._say("all nodes are Ready")
        cluster.wait_dns()
        cluster.wait_accounts(admin)
        self._say_who_ended()
        layout.ready_file.touch()
        self._say(f"ready: KUBECONFIG={layout.admin_kubeconfig} {programs.programs(layout.cache)}/kubectl get nodes")

    def _wait_holder(self, node: Node) -> None:
        holder = self.holder(node)
        entered = self.layout.node(node) / "entered"
        wait_until(lambda: entered.exists() or not holder.alive(), HOLDER_LIMIT_S)
        if not entered.exists():
            name = services.holder(self.layout, node).name
            raise TestbedError(f"{node.name} has no mount namespace:\n{self.services.tail(name)}")

    def _say_who_ended(self) -> None:
        ended = [name for name, mark in self.services.marks().items() if not mark.alive()]
        if ended:
            raise TestbedError(f"{ended[0]} ended:\n{self.services.tail(ended[0])}")

    def _neighbours(self) -> dict[Path, int]:
        """Kubernetes testbeds of other state folders, and a process of each: they would have the same names."""
        others = (pair for pair in states().items() if pair[0] != self.layout.state)
        return {state: pid for state, pid in others if Layout(state, self.layout.cache).admin_kubeconfig.exists()}

    def _refuse_neighbours(self) -> None:
        for state, pid in self._neighbours().items():
            raise TestbedError(f"a Kubernetes testbed runs in {state} (process {pid}, say); stop that one first")

    def _processes(self) -> list[ProcessMark]:
        """All that live: services, what strayed from them (shims), and what runs in pods."""
        living = [mark for mark in self.services.marks().values() if mark.alive()]
        in_pods = [] if self._neighbours() else kernel.pods_processes()
        return [*living, *self.services.strays(), *in_pods]

    def _stop_all(self) -> None:
        """Kills all at once: nothing is worth a goodbye, and an API server waits for ever for an etcd that ended."""
        self.layout.ready_file.unlink(missing_ok=True)

        def none_left() -> bool:
            left = self._processes()
            for mark in left:
                mark.signal(signal.SIGKILL)
            return not left

        if not wait_until(none_left, KILL_LIMIT_S, 0.1):
            pids = ", ".join(str(mark.pid) for mark in self._processes())
            raise TestbedError(f"processes {pids} outlived SIGKILL; look what holds them (a mount?) and run down again")
        self.services.stop([])  # waits for those that this very process started
        self.services.file.unlink(missing_ok=True)
        kernel.remove_remains()
        for path in self._made_folders():
            if path.exists():
                path.rmdir()

    def _make_folders(self) -> None:
        """The mount points that the machine lacks; only those are removed again."""
        wanted = [path for path in kernel.EMPTY_FOLDERS if not path.exists()]
        (self.layout.state / _MADE).write_text("".join(f"{path}\n" for path in wanted))
        for path in wanted:
            path.mkdir(parents=True)

    def _made_folders(self) -> list[Path]:
        note = self.layout.state / _MADE
        return [Path(line) for line in note.read_text().splitlines()] if note.exists() else []

    def _forget(self, keep: tuple[Path, ...]) -> None:
        """Empties the state folder, of which nothing may be a mount any more. Raises TestbedError."""
        if mounts := kernel.mounts_below(self.layout.state):
            raise TestbedError(f"{mounts[0]} is still mounted; unmount it and run down again")
        for path in self.layout.state.iterdir():
            if path in keep:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _machine_memory_kib() -> int:
    [line] = [line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:")]
    return int(line.split()[1])
