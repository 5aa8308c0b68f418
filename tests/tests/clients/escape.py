"""Tries one way around after the other and prints a line for each: what it is, and what came of it.

`escape.py PROXY_PORT`: each attempt aims at 192.0.2.1 or 2001:db8::1, where a sniffer listens. A line that begins with
`OPEN` is a way that the kernel took; the sniffer has the last word.
"""
import ctypes
import os
import socket
import struct
import sys

V4, V6, MARK = "192.0.2.1", "2001:db8::1", b"interceptor-escape"
libc = ctypes.CDLL(None, use_errno=True)


def attempt(row, what, do):
    try:
        said = do()
        print(f"DONE {row} {what}: {said}", flush=True)
    except OSError as error:
        print(f"REFUSED {row} {what}: {error.strerror or error}", flush=True)
    except Exception as error:  # a name this Python does not know
        print(f"REFUSED {row} {what}: {error!r}", flush=True)


def tcp(family, protocol=0):
    s = socket.socket(family, socket.SOCK_STREAM, protocol)
    s.settimeout(3)
    return s


def udp(family, protocol=0):
    return socket.socket(family, socket.SOCK_DGRAM, protocol)


def fast_open():
    return tcp(socket.AF_INET).sendto(MARK, 0x20000000, (V4, 443))


def fast_open_connect():
    s = tcp(socket.AF_INET)
    s.setsockopt(socket.IPPROTO_TCP, 30, 1)
    s.connect((V4, 443))
    s.send(MARK)
    return s.recv(100) or "closed at once"


def mptcp():
    s = tcp(socket.AF_INET, 262)
    s.connect((V4, 443))


def other_protocol(kind, protocol):
    def do():
        s = socket.socket(socket.AF_INET, kind, protocol)
        s.settimeout(3)
        s.connect((V4, 9))
        return s.send(MARK)

    return do


def ping(family, protocol):
    def do():
        s = udp(family, protocol)
        kind = 8 if family == socket.AF_INET else 128
        return s.sendto(struct.pack(">BBHHH", kind, 0, 0, 1, 1) + MARK, (V4 if kind == 8 else V6, 0))

    return do


def packet():
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.bind(("out0", 0))
    return s.send(b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x08\0" + MARK)


def routing_header():
    s = udp(socket.AF_INET6)
    segments = socket.inet_pton(socket.AF_INET6, V6)
    s.setsockopt(socket.IPPROTO_IPV6, 57, struct.pack("BBBBI", 0, 2, 4, 0, 0) + segments)
    return s.sendto(MARK, (V6, 9))


def source_route():
    s = udp(socket.AF_INET)
    s.setsockopt(socket.IPPROTO_IP, 4, b"\x83\x07\x04" + socket.inet_aton(V4) + b"\0")
    return s.sendto(MARK, (V4, 9))


def source_route_message():
    s = udp(socket.AF_INET)
    return s.sendmsg([MARK], [(socket.IPPROTO_IP, 7, b"\x83\x07\x04" + socket.inet_aton(V4) + b"\0")], 0, (V4, 9))


def bind_device(name):
    def do():
        s = udp(socket.AF_INET)
        s.setsockopt(socket.SOL_SOCKET, 25, name)
        return s.sendto(MARK, (V4, 9))

    return do


def packet_info(index):
    def do():
        s = udp(socket.AF_INET)
        return s.sendmsg([MARK], [(0, 8, struct.pack("iII", index, 0, 0))], 0, (V4, 9))

    return do


def packet_info6(index):
    def do():
        s = udp(socket.AF_INET6)
        return s.sendmsg([MARK], [(41, 50, bytes(16) + struct.pack("I", index))], 0, (V6, 9))

    return do


def dial(host, port=443, family=socket.AF_INET6):
    def do():
        s = tcp(family)
        s.connect((host, port))
        s.send(MARK)
        return s.recv(100) or "closed at once"

    return do


def odd_family():
    """An AF_INET address on an IPv6 socket, and an AF_UNSPEC one on an IPv4 socket."""
    address = struct.pack("<H", socket.AF_INET) + struct.pack(">H", 9) + socket.inet_aton(V4) + bytes(8)
    s = udp(socket.AF_INET6)
    sent = libc.sendto(s.fileno(), MARK, len(MARK), 0, address, len(address))
    error = os.strerror(ctypes.get_errno())
    address = b"\0\0" + address[2:]
    t = udp(socket.AF_INET)
    other = libc.sendto(t.fileno(), MARK, len(MARK), 0, address, len(address))
    if sent < 0 and other < 0:
        raise OSError(0, error)
    return sent, other


def datagram(family, host):
    return lambda: udp(family).sendto(MARK, (host, 9))


def connected_datagram():
    s = udp(socket.AF_INET)
    s.connect((V4, 443))
    return s.send(MARK)


def repair():
    s = tcp(socket.AF_INET)
    s.setsockopt(socket.IPPROTO_TCP, 19, 1)
    s.connect((V4, 443))
    return s.send(MARK)


def inherited():
    """Every descriptor beyond the standard three, and sockets among those three."""
    found = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:
            continue
        if target.startswith("socket:") or (int(entry) > 2 and not target.startswith("/proc/")):
            found.append(f"{entry}={target}")
    if not found:
        raise OSError(0, "none")
    return found


def io_uring():
    number = 425
    parameters = ctypes.create_string_buffer(120)
    ring = libc.syscall(number, 4, parameters)
    if ring < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    # A ring alone sends nothing; what it sends meets the same hooks. The sniffer decides.
    os.close(ring)
    raise OSError(0, "a ring exists; its connects meet the same hooks")


def move_out():
    for base in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        path = os.path.join(base, "cgroup.procs")
        if os.path.exists(path):
            with open(path, "w") as file:
                file.write(str(os.getpid()))
            return path
    raise OSError(0, "no cgroup folder to write to")


def local_socket():
    found = []
    for folder in sys.argv[2:] + ["/var/run/postgresql", "/run/postgresql", "/var/run/mysqld", "/var/run/redis"]:
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            s = socket.socket(socket.AF_UNIX)
            try:
                s.connect(os.path.join(folder, name))
                found.append(os.path.join(folder, name))
            except OSError:
                pass
    if not found:
        raise OSError(0, "no local socket answers")
    return found


def deputies():
    found = []
    for path in ("/run/docker.sock", "/var/run/docker.sock", "/run/dbus/system_bus_socket", "/run/systemd/private",
                 "/run/systemd/resolve/io.systemd.Resolve", "/run/containerd/containerd.sock"):
        s = socket.socket(socket.AF_UNIX)
        try:
            s.connect(path)
            found.append(path)
        except OSError:
            pass
    if not found:
        raise OSError(0, "none answers")
    return found


def take_port():
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind(("127.0.0.1", int(sys.argv[1])))
    s.listen()
    return "bound"


def bpf():
    # BPF_PROG_GET_NEXT_ID and BPF_OBJ_GET.
    for command in (11, 7):
        attributes = ctypes.create_string_buffer(128)
        if libc.syscall(321, command, attributes, 128) >= 0:
            return f"command {command}"
    if os.path.isdir("/sys/fs/bpf") and os.listdir("/sys/fs/bpf"):
        return os.listdir("/sys/fs/bpf")
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def remove_cgroup():
    for folder, _, _ in os.walk("/sys/fs/cgroup"):
        if "interceptor" in folder:
            os.rmdir(folder)
            return folder
    raise OSError(0, "no cgroup to remove")


def user_namespace():
    if libc.unshare(0x10000000 | 0x40000000) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return udp(socket.AF_INET).sendto(MARK, (V4, 9))


def host_namespace():
    file = os.open("/proc/1/ns/net", os.O_RDONLY)
    if libc.setns(file, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return udp(socket.AF_INET).sendto(MARK, (V4, 9))


def family(number, kind=socket.SOCK_STREAM):
    def do():
        socket.socket(number, kind)
        return "a socket"

    return do


ROWS = [
    (1, "fast open", fast_open),
    (1, "fast open by connect", fast_open_connect),
    (2, "MPTCP", mptcp),
    (3, "SCTP stream", other_protocol(socket.SOCK_STREAM, 132)),
    (3, "SCTP seqpacket", other_protocol(socket.SOCK_SEQPACKET, 132)),
    (4, "DCCP", other_protocol(6, 33)),
    (5, "UDP-Lite", other_protocol(socket.SOCK_DGRAM, 136)),
    (6, "ping", ping(socket.AF_INET, 1)),
    (6, "ping of IPv6", ping(socket.AF_INET6, 58)),
    (7, "raw", other_protocol(socket.SOCK_RAW, 253)),
    (7, "raw with its own header", other_protocol(socket.SOCK_RAW, 255)),
    (8, "packet", packet),
    (8, "XDP", family(44, socket.SOCK_RAW)),
    (9, "routing header", routing_header),
    (10, "source route", source_route),
    (10, "source route by message", source_route_message),
    (11, "bound to a device", bind_device(b"out0\0")),
    (11, "bound to another device", bind_device(b"eth0\0")),
    *[(11, f"packet info {n}", packet_info(n)) for n in (1, 2, 3)],
    *[(11, f"packet info of IPv6 {n}", packet_info6(n)) for n in (1, 2, 3)],
    (12, "mapped", dial(f"::ffff:{V4}")),
    (12, "mapped loopback", dial("::ffff:127.0.0.1")),
    (12, "NAT64", dial("64:ff9b::c000:201")),
    (12, "6to4", dial("2002:c000:201::1")),
    (12, "IPv6", dial(V6)),
    (12, "IPv4", dial(V4, family=socket.AF_INET)),
    (13, "odd families", odd_family),
    (14, "the zero address", dial("0.0.0.0", 80, socket.AF_INET)),
    (14, "the zero address of IPv6", dial("::", 80)),
    (15, "multicast", datagram(socket.AF_INET, "224.0.0.1")),
    (15, "broadcast", datagram(socket.AF_INET, "255.255.255.255")),
    (16, "repair", repair),
    (0, "datagram", datagram(socket.AF_INET, V4)),
    (0, "datagram of IPv6", datagram(socket.AF_INET6, V6)),
    (0, "connected datagram", connected_datagram),
    (23, "sockets from before", inherited),
    (28, "io_uring", io_uring),
    (30, "another cgroup", move_out),
    (35, "a user namespace", user_namespace),
    (36, "the first process's namespace", host_namespace),
    (38, "deputies", deputies),
    (43, "local sockets", local_socket),
    (52, "the proxy's port", take_port),
    (53, "bpf()", bpf),
    (55, "removing the cgroup", remove_cgroup),
    (57, "the proxy itself", dial("127.0.0.1", int(sys.argv[1]), socket.AF_INET)),
]

for row in ROWS:
    attempt(*row)
print("all rows tried")
