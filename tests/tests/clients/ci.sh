# What a CI job does with a container engine, and what it may not. $1 is the client's program. Each line says what came of a thing.
CLIENT="$1"
docker() { "$CLIENT" "$@" </dev/null 2>&1; }
fetch() {
    /usr/bin/python3 -c 'import urllib.request as u; print(u.urlopen("http://127.0.0.1:8123/page").read().decode())'
}
say() { name="$1"; shift; printf '%s: %s\n' "$name" "$("$@" | tr '\n' ' ')"; }
DSN="host=db.internal user=whoever password=whatever dbname=orders sslmode=require"

say query docker run --rm base psql -X -A -t -d "$DSN" -c "SELECT count(*) FROM users"

# One that stays: by name, joined, its port in the run's network, its Unix sockets its own.
say started docker run -d --name web -p 8123 -v "$PWD:/work" base httpd -f -p 8123 -h /work
echo hello > page
for _ in $(seq 100); do fetch >/dev/null 2>&1 && break; sleep 0.05; done
say port docker port web
say served fetch
say joined docker exec web sh -c 'echo $(id -u) $(cat /work/page)'
say elsewhere docker exec web nc -w 5 192.0.2.1 81
say unix docker exec web perl -e '
    sub at { pack("Sa108", 1, $_[0]) }
    socket(L, 1, 1, 0) && bind(L, at("/tmp/own")) && listen(L, 1) || die "bind: $!";
    socket(C, 1, 1, 0) && connect(C, at("/tmp/own")) || die "connect: $!";
    socket(O, 1, 1, 0) && print connect(O, at("/work/outside")) ? "outside: connected " : "outside: $! ";
    print "own: connected";'
say capabilities docker exec web grep -E 'CapBnd|Seccomp:' /proc/self/status
say inside docker exec web sh -c 'ping -c 1 127.0.0.1; unshare -n true; mount -t tmpfs none /tmp; mknod /tmp/sda b 8 0
    for f in $(find /sys/fs/cgroup -name cgroup.procs); do echo 1 2>/dev/null >$f && echo moved; done; echo tried'
say listed docker ps --all --format '{{.Names}}'
say copied docker cp page web:/work/copied
say another docker rm -f outsider
say removed docker rm -f web

# Not for a run.
say privileged docker run --rm --privileged base true
say host-file docker run --rm -v /etc:/x base ls /x
ln -sfn /etc out
say link docker run --rm -v "$PWD/out:/x" base ls /x
say unconfined docker run --rm --security-opt seccomp=unconfined base true
say pull docker pull busybox
mkdir -p context && echo FROM base > context/Dockerfile
say build docker build context

# Where nothing can be recorded, nothing is done.
say left docker run -d --name left base httpd -f -p 8124
touch ready
while [ ! -e gone ]; do sleep 0.05; done
say unrecorded docker run --rm base true
