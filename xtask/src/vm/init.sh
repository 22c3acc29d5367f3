#!/bin/sh
# PID 1 of a guest: makes it habitable, runs the task, tells its status, powers off.
#
# ttyS0 is the kernel's console, ttyS1 takes what the task prints, ttyS2 its exit status.
export PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin:/busybox
export HOME=/root TERM=dumb
/bin/busybox mkdir -p /busybox
/bin/busybox --install -s /busybox
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/net /run/lock
# Where there is udev, it makes what loads the module.
mknod /dev/net/tun c 10 200
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mkdir -p /run/netns /run/lock
ln -sf /proc/self/fd /dev/fd
chmod 1777 /tmp
for port in /dev/ttyS1 /dev/ttyS2; do
    stty -F $port raw -echo 2>/dev/null
done
hostname guest
ip link set lo up
for module in veth bridge br_netfilter nf_conntrack nf_conntrack_netlink iptable_nat; do
    modprobe $module || echo "init: no module $module" >/dev/ttyS1
done
# Connection tracking of the first namespace, which hosts commonly have.
sysctl -q -w net.core.bpf_jit_kallsyms=1

cd /project
/task </dev/null >/dev/ttyS1 2>&1
status=$?
echo "status $status" >/dev/ttyS2
sync
poweroff -f
