#!/bin/sh
# Runs in the instance's new mount, pid, uts and ipc namespaces and in its netns; $1 is the instance's folder.
set -e
cd "$1"; . ./vars
mkdir -p lower rw root
if [ "$LOWER" = host ]; then mount --bind / lower; else mount -o loop,ro "$LOWER" lower; fi
mount -o loop disk.ext4 rw
mkdir -p rw/upper rw/work
mount -t overlay overlay -o lowerdir=lower,upperdir=rw/upper,workdir=rw/work root
R=$PWD/root
mount -t proc proc $R/proc
mount -t sysfs sysfs $R/sys
mount -t tmpfs -o mode=755 dev $R/dev
mkdir $R/dev/pts $R/dev/shm
for n in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
  mknod -m 666 $R/dev/${n%%:*} c $(echo ${n#*:} | tr : ' ')
done
ln -s /proc/self/fd $R/dev/fd; ln -s /proc/self/fd/0 $R/dev/stdin
ln -s /proc/self/fd/1 $R/dev/stdout; ln -s /proc/self/fd/2 $R/dev/stderr
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts $R/dev/pts; ln -s pts/ptmx $R/dev/ptmx
mount -t tmpfs -o mode=1777,size=${MEMORY_MIB}m shm $R/dev/shm
mount -t tmpfs -o mode=755 run $R/run; mkdir -p $R/run/lock $R/run/sshd
mount -t tmpfs -o mode=1777 tmp $R/tmp
hostname "$NAME"
cp init.sh $R/run/ostb-init
exec env -i product_name="OpenStack Nova" container=ostb HOME=/root LANG=C.UTF-8 TERM=linux \
  PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin chroot $R /bin/sh /run/ostb-init
