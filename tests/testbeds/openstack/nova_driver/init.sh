# The instance's pid 1: an address by DHCP, cloud-init's four stages with sshd between them, then it reaps.
t0=$(date +%s)
ip link set lo up
echo "[ostb] boot $(cat /proc/sys/kernel/hostname)"
rm -f /etc/resolv.conf; : >/etc/resolv.conf
for d in /sys/class/net/eth*; do
  i=${d##*/}; ip link set $i up
  dhclient -1 -v -pf /run/dhclient.$i.pid -lf /run/dhclient.$i.leases $i 2>&1 | grep -E 'bound|DHCPACK|No '
done
ip -4 -br addr; ip route
echo "[ostb] network after $(( $(date +%s) - t0 ))s"
rm -rf /var/lib/cloud /etc/cloud/cloud.cfg.d/99-installer.cfg
mkdir -p /etc/cloud/cloud.cfg.d
cat >/etc/cloud/cloud.cfg.d/99-ostb.cfg <<C
datasource_list: [ OpenStack ]
datasource: {OpenStack: {max_wait: 60, timeout: 10, retries: 5, apply_network_config: false}}
network: {config: disabled}
manage_etc_hosts: true
growpart: {mode: 'off'}
resize_rootfs: false
apt_preserve_sources_list: true
ssh_deletekeys: true
ssh_genkeytypes: [ed25519]
C
touch /etc/cloud/cloud-init.enabled
(
  cloud-init init --local; cloud-init init
  [ -x /usr/sbin/sshd ] && /usr/sbin/sshd
  cloud-init modules --mode=config; cloud-init modules --mode=final
  echo "[ostb] cloud-init done after $(( $(date +%s) - t0 ))s: $(cat /run/cloud-init/result.json | tr -d '\n')"
) 2>&1
exec /usr/bin/python3 -c '
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *a: sys.exit(0))
while True:
    try: os.waitpid(-1, 0)
    except ChildProcessError: time.sleep(1)
'
