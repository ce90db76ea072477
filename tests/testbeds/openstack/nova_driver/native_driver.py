"""A nova virt driver whose instances are processes in mount, pid, uts, ipc and network namespaces of their own.

No emulation, no libvirt, no cgroups. The image is a squashfs or ext4 root file system in glance (disk_format raw); an
image with the property os_distro=ostb-host stands for the host's own root file system (its bytes are ignored): what is
installed there is in the instance, at no cost. Writes go to an overlay on a sparse ext4 disk of the flavor's size.
Each neutron port becomes a veth pair; the host end carries the tap name that the linuxbridge agent looks for, so DHCP,
metadata, security groups and floating IPs are neutron's own. The instance's pid 1 is init.sh beside this file.

A flavor with the extra spec `dhctl-testbed:spawn` makes servers that never come up: `fail` raises (the server is
in ERROR, with a fault), `hang` stays in BUILD until the server is deleted or HANG_LIMIT_S is over.

Runs in Debian's nova 26 on /usr/bin/python3, under eventlet.
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import ClassVar

import nova.conf
from eventlet import timeout
from nova import exception, utils
from nova.compute import power_state
from nova.virt import fake, hardware, images
from oslo_log import log as logging

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)
HERE = Path(__file__).parent
SPAWN_KEY = "dhctl-testbed:spawn"
HANG_LIMIT_S = 900
STOP_LIMIT_S = 5


def sh(*command, check=True):
    """Runs a command; raises CalledProcessError unless told otherwise."""
    return subprocess.run(command, check=check, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


def folder(uuid):
    """What the instance is made of, on the host."""
    return Path(CONF.instances_path) / uuid


def namespace(uuid):
    """The name of the instance's network namespace."""
    return f"ostb-{uuid[:8]}"


class NativeDriver(fake.FakeDriver):
    """See the module. What is not here (snapshot, resize, volumes) is the fake driver's, and does nothing."""

    capabilities: ClassVar = dict(fake.FakeDriver.capabilities, supports_attach_interface=False)
    vcpus = 16
    memory_mb = int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20)
    local_gb = 64

    # -- what is there

    def init_host(self, host):
        super().init_host(host)
        Path(CONF.instances_path).mkdir(parents=True, exist_ok=True)

    def _pid(self, uuid):
        """The pid of the instance's `unshare`, None when it does not run."""
        try:
            pid = int((folder(uuid) / "pid").read_text())
            return pid if uuid in Path(f"/proc/{pid}/cmdline").read_text() else None
        except (OSError, ValueError):
            return None

    def list_instance_uuids(self):
        return [path.parent.name for path in Path(CONF.instances_path).glob("*/pid")]

    def list_instances(self):
        return [(folder(uuid) / "name").read_text() for uuid in self.list_instance_uuids()]

    def get_num_instances(self):
        return len(self.list_instance_uuids())

    def instance_exists(self, instance):
        return folder(instance.uuid).is_dir()

    def get_info(self, instance, use_cache=True):
        if not self.instance_exists(instance):
            raise exception.InstanceNotFound(instance_id=instance.uuid)
        running = self._pid(instance.uuid)
        return hardware.InstanceInfo(state=power_state.RUNNING if running else power_state.SHUTDOWN)

    def get_available_resource(self, nodename):
        return {**super().get_available_resource(nodename), "hypervisor_hostname": nodename}

    def get_console_output(self, context, instance):
        return (folder(instance.uuid) / "console.log").read_bytes()[-102400:]

    # -- network

    def plug_vifs(self, instance, network_info):
        ns = namespace(instance.uuid)
        if not Path("/run/netns", ns).exists():
            sh("ip", "netns", "add", ns)
        for number, vif in enumerate(network_info):
            tap, bridge = vif["devname"], vif["network"]["bridge"]
            if Path("/sys/class/net", tap).exists():
                continue
            mtu = str(vif["network"].get_meta("mtu") or 1500)
            peer = ("peer", "name", f"eth{number}", "address", vif["address"], "mtu", mtu, "netns", ns)
            sh("ip", "link", "add", tap, "mtu", mtu, "type", "veth", *peer)
            # The agent leaves the bridge of compute's ports to nova, where os-vif puts them for libvirt.
            if not Path("/sys/class/net", bridge).exists():
                sh("ip", "link", "add", bridge, "type", "bridge", check=False)  # the agent may have been quicker
                sh("ip", "link", "set", bridge, "up")
            sh("ip", "link", "set", tap, "master", bridge, "up")

    def unplug_vifs(self, instance, network_info):
        for vif in network_info or []:
            sh("ip", "link", "del", vif["devname"], check=False)
        sh("ip", "netns", "del", namespace(instance.uuid), check=False)

    # -- life

    def spawn(  # noqa: PLR0917
        self,
        context,
        instance,
        image_meta,
        injected_files,
        admin_password,
        allocations,
        network_info=None,
        block_device_info=None,
        power_on=True,
        accel_info=None,
    ):
        self._obey_spawn_key(instance)
        started = time.monotonic()
        self._write_folder(instance, self._lower_layer(context, image_meta))
        events = [("network-vif-plugged", vif["id"]) for vif in network_info or [] if vif.get("active") is False]
        try:
            with self.virtapi.wait_for_instance_event(instance, events, deadline=CONF.vif_plugging_timeout):
                self.plug_vifs(instance, network_info or [])
        except (timeout.Timeout, exception.NovaException) as trouble:
            # A port that neutron is slow to wire is wired later, so the instance starts all the same.
            LOG.warning("vif plugging: %r", trouble, instance=instance)
            if CONF.vif_plugging_is_fatal:
                raise exception.VirtualInterfaceCreateException from trouble
        super().spawn(
            context,
            instance,
            image_meta,
            injected_files,
            admin_password,
            allocations,
            network_info,
            block_device_info,
            power_on,
            accel_info,
        )
        if power_on:
            self._start(instance)
        LOG.info("spawned in %.1f s", time.monotonic() - started, instance=instance)

    def _obey_spawn_key(self, instance):
        told = instance.flavor.extra_specs.get(SPAWN_KEY, "")
        if told == "fail":
            raise exception.BuildAbortException(instance_uuid=instance.uuid, reason="the testbed was told to fail it")
        end = time.monotonic() + HANG_LIMIT_S
        while told == "hang":
            # A delete waits for this instance's lock, which the spawn holds: only the spawn itself can notice it.
            instance.refresh()
            if instance.task_state == "deleting":
                raise exception.UnexpectedDeletingTaskStateError(instance_uuid=instance.uuid, expected={}, actual={})
            if time.monotonic() > end:
                reason = f"the testbed let it hang for {HANG_LIMIT_S} s"
                raise exception.BuildAbortException(instance_uuid=instance.uuid, reason=reason)
            time.sleep(1)

    def _lower_layer(self, context, image_meta):
        if image_meta.properties.get("os_distro") == "ostb-host":
            return "host"
        base = Path(CONF.instances_path) / "_base"
        base.mkdir(parents=True, exist_ok=True)
        image = base / image_meta.id

        @utils.synchronized("ostb-image-" + image_meta.id)
        def fetch():
            if not image.exists():
                images.fetch(context, image_meta.id, f"{image}.part")
                Path(f"{image}.part").rename(image)

        fetch()
        return image

    def _write_folder(self, instance, lower):
        here, flavor = folder(instance.uuid), instance.flavor
        here.mkdir(parents=True)
        disk = here / "disk.ext4"
        with disk.open("w") as file:
            file.truncate(max(flavor.root_gb, 1) << 30)
        sh("mkfs.ext4", "-q", "-O", "^has_journal", "-E", "lazy_itable_init=1", str(disk))
        (here / "vars").write_text(f"LOWER={lower}\nMEMORY_MIB={flavor.memory_mb}\nNAME={instance.hostname}\n")
        (here / "name").write_text(instance.name)
        for script in ("launch.sh", "init.sh"):
            shutil.copy(HERE / script, here / script)

    def _start(self, instance):
        here, ns = folder(instance.uuid), namespace(instance.uuid)
        unshare = (
            "unshare",
            "--mount",
            "--pid",
            "--uts",
            "--ipc",
            "--fork",
            "--kill-child",
            "--propagation",
            "private",
        )
        with (here / "console.log").open("ab") as console:
            process = subprocess.Popen(
                ("nsenter", f"--net=/run/netns/{ns}", *unshare, "/bin/sh", str(here / "launch.sh"), str(here)),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,  # an instance outlives a restart of nova-compute
            )
        (here / "pid").write_text(str(process.pid))

    def _stop(self, uuid):
        pid = self._pid(uuid)
        if pid is None:
            return
        os.kill(pid, signal.SIGKILL)  # --kill-child takes the whole pid namespace with it
        end = time.monotonic() + STOP_LIMIT_S
        while time.monotonic() < end:
            try:
                if os.waitpid(pid, os.WNOHANG)[0]:
                    return
            except ChildProcessError:  # started by an earlier nova-compute
                if self._pid(uuid) is None:
                    return
            time.sleep(0.1)
        LOG.warning("instance still runs %s s after SIGKILL", STOP_LIMIT_S)

    def destroy(
        self, context, instance, network_info, block_device_info=None, destroy_disks=True, destroy_secrets=True
    ):
        self._stop(instance.uuid)
        self.unplug_vifs(instance, network_info)
        if instance.uuid in self.instances:
            super().destroy(context, instance, network_info, block_device_info, destroy_disks, destroy_secrets)
        if destroy_disks:
            self._remove_folder(instance)

    def cleanup(  # noqa: PLR0917
        self,
        context,
        instance,
        network_info,
        block_device_info=None,
        destroy_disks=True,
        migrate_data=None,
        destroy_vifs=True,
        destroy_secrets=True,
    ):
        if destroy_disks:
            self._remove_folder(instance)

    def _remove_folder(self, instance):
        try:
            shutil.rmtree(folder(instance.uuid))
        except FileNotFoundError:
            return
        except OSError as trouble:
            LOG.warning("the instance's folder stays: %s", trouble, instance=instance)

    def power_off(self, instance, timeout=0, retry_interval=0):
        self._stop(instance.uuid)

    def power_on(self, context, instance, network_info, block_device_info=None, accel_info=None):
        self.plug_vifs(instance, network_info)
        self._start(instance)

    def reboot(  # noqa: PLR0917
        self,
        context,
        instance,
        network_info,
        reboot_type,
        block_device_info=None,
        bad_volumes_callback=None,
        accel_info=None,
    ):
        self._stop(instance.uuid)
        self.power_on(context, instance, network_info)
