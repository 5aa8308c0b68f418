#!/bin/bash
# The first process of a machine of `cargo xtask vm`: makes an ordinary host of what the kernel unpacked, runs /task and
# says on its serial lines what that said (1, 2) and how it ended (3). Line 0 is the kernel's own.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
# The distribution's psql is a script in Perl, which is left out: the programs themselves lie elsewhere.
for programs in /usr/lib/postgresql/*/bin; do PATH=$PATH:$programs; done

if [ "$1" != again ]; then
    # What the kernel unpacks into has nothing above it, so that no root can be pivoted away from it.
    mount --bind / /host && cd /host && mount --move . / && exec chroot . /init again
    exit 1
fi

cd /
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts -o gid=5,mode=620,ptmxmode=666
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run -o mode=755
mount -t tmpfs tmp /tmp -o mode=1777
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t securityfs securityfs /sys/kernel/security
for line in 1 2 3; do stty -F /dev/ttyS$line raw -echo; done
ip link set lo up
hostname machine

/bin/bash /task > /dev/ttyS1 2> /dev/ttyS2
echo $? > /dev/ttyS3
echo o > /proc/sysrq-trigger
# Powering off takes a moment, and without its first process a kernel panics.
sleep 60
