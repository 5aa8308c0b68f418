# What a job does with sudo, and what it may not. $1 is a folder that lies in the host's own; $2 is a resource that is not permitted.
say() { name="$1"; shift; printf '%s: %s\n' "$name" "$("$@" 2>&1 | tr '\n' ' ')"; }
root() { sudo -n "$@"; }
say user id -u
say root root id -u
say capabilities root grep -E 'CapBnd|CapEff|Seccomp:|NoNewPrivs' /proc/self/status

# Software is installed by the distribution's own tools, from a server that policy permits.
echo 'deb [trusted=yes] http://mirror.internal/ ./' > mirror.list
root rm -rf /etc/apt/sources.list /etc/apt/sources.list.d /var/lib/apt/lists
root cp mirror.list /etc/apt/sources.list
say update root apt-get --quiet update
say install root env DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes install interceptor-tried
say installed cat /usr/share/interceptor-tried/note /etc/interceptor-tried
say own sh -c 'sudo -n touch roots && stat -c "%U %a" roots'

# Not for a run, whoever it is.
say elsewhere root /usr/bin/python3 -c '
import socket
try: print("got", socket.create_connection(("192.0.2.1", 443), 5).recv(1))
except ConnectionResetError: print("got", bytes())'
say top root touch /top-level
say mount root mount -t tmpfs none /mnt
say namespace root unshare --net true
say module root dmesg
say secret root ls "$1"
say control root sh -c 'ls /sys/fs/cgroup/cgroup.procs && echo 1 > /sys/fs/cgroup/cgroup.procs'
root sh -c 'echo "* * * * * root true" > /etc/cron.d/interceptor-tried; echo changed > /usr/bin/interceptor-tried'
say changed cat /usr/bin/interceptor-tried
