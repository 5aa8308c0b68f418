"""Unix sockets in a folder that a run and others work in: `unix_sockets.py PART`, with the folder as the current one.

`outside` is somebody else: it listens by every kind of socket, and answers each line with how many came. `own` does with
sockets of its own what programs do, and says `ok` to each. `reach` wants to get to what is outside, and says what it
reached. `race` wants the same, by changing what it asks for while it is looked at; it goes on until it is killed.
"""
import ctypes
import os
import socket
import struct
import sys
import threading
import time

KINDS = {"stream": socket.SOCK_STREAM, "packet": socket.SOCK_SEQPACKET, "datagram": socket.SOCK_DGRAM}
came = 0


def unix(kind=socket.SOCK_STREAM):
    return socket.socket(socket.AF_UNIX, kind)


def listener(path, kind=socket.SOCK_STREAM):
    s = unix(kind)
    s.bind(path)
    if kind != socket.SOCK_DGRAM:
        s.listen()
    return s


def count(s, take):
    def loop():
        global came
        while True:
            take(s)
            came += 1

    threading.Thread(target=loop, daemon=True).start()


def outside():
    for name, kind in KINDS.items():
        s = listener(f"out.{name}", kind)
        os.chmod(f"out.{name}", 0o777)
        count(s, (lambda s: s.recv(100)) if name == "datagram" else (lambda s: s.accept()[0].close()))
    short = listener("out")
    os.chmod("out", 0o777)
    count(short, lambda s: s.accept()[0].close())
    print("ready", flush=True)
    for _ in sys.stdin:
        print(came, flush=True)


def child(doing):
    pid = os.fork()
    if pid == 0:
        try:
            doing()
        except BaseException as error:
            print("failed", error, flush=True)
            os._exit(1)
        os._exit(0)
    return pid


def own():
    os.umask(0o027)
    folder = os.getcwd()
    os.mkdir("below")
    kept = []
    for name in ("stream", "packet"):
        kept.append(s := listener(f"{folder}/own.{name}", KINDS[name]))
        os.symlink(f"../own.{name}", f"below/{name}")

        def dial():
            c = unix(KINDS[name])
            os.chdir("below")
            c.connect(name)
            c.sendall(b"hello")

        pid = child(dial)
        peer, _ = s.accept()
        assert peer.recv(10) == b"hello"
        assert os.waitpid(pid, 0)[1] == 0
        _, uid, gid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        assert (uid, gid) == (os.getuid(), os.getgid()), (uid, gid)
        made = os.stat(f"own.{name}")
        assert (made.st_mode & 0o777, made.st_uid) == (0o750, os.getuid()), made
        assert s.getsockname() == f"{folder}/own.{name}"
        print("ok", name)
    s = listener("own.datagram", socket.SOCK_DGRAM)
    c = unix(socket.SOCK_DGRAM)
    assert c.sendto(b"by name", f"{folder}/own.datagram") == 7
    c.connect("own.datagram")
    c.send(b"connected")
    c.sendmsg([b"message"])
    assert [s.recv(100) for _ in range(3)] == [b"by name", b"connected", b"message"]
    print("ok datagram")
    s = unix()
    s.bind("\0own")
    s.listen()
    unix().connect("\0own")
    print("ok abstract")
    s = unix()
    s.bind("full")
    s.listen(0)
    first, second = unix(), unix()
    first.connect("full")
    second.setblocking(False)
    try:
        second.connect("full")
        print("a full listener took one more")
    except BlockingIOError:
        print("ok full")
    # One that waits for its turn holds nobody up, and gets it.
    third = unix()
    waiting = threading.Thread(target=third.connect, args=("full",))
    waiting.start()
    unix().connect("own.stream")
    s.accept()
    waiting.join()
    print("ok busy")
    for path, wanted in (("none", FileNotFoundError), ("below", ConnectionRefusedError), ("own.stream/x", NotADirectoryError)):
        try:
            unix().connect(path)
            print("connected to", path)
        except wanted:
            pass
    print("ok nothing there")
    os.rename("own.stream", "moved")
    unix().connect("moved")
    print("ok moved", flush=True)


def reach():
    me = os.getpid()

    def attempt(what, doing):
        try:
            doing()
            print("reached", what, flush=True)
        except OSError as error:
            print("not", what, error, flush=True)

    here = os.open(".", os.O_RDONLY)
    os.symlink("out.stream", "link")
    for name, kind in KINDS.items():
        for path in (f"out.{name}", f"{os.getcwd()}/out.{name}", f"/proc/self/cwd/out.{name}", f"/proc/{me}/fd/{here}/out.{name}"):
            attempt(f"{name} at {path}", lambda: unix(kind).connect(path))
    attempt("a link", lambda: unix().connect("link"))
    attempt("by name", lambda: unix(socket.SOCK_DGRAM).sendto(b"x", "out.datagram"))
    attempt("by a message's name", lambda: unix(socket.SOCK_DGRAM).sendmsg([b"x"], [], 0, "out.datagram"))
    pair, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    attempt("by name, connected elsewhere", lambda: pair.sendto(b"x", "out.datagram"))
    attempt("by a message's name, connected elsewhere", lambda: pair.sendmsg([b"x"], [], 0, "out.datagram"))
    s = listener("mine")
    os.rename("out.stream", "mine")
    attempt("under the name of one's own", lambda: unix().connect("mine"))
    attempt("once more", lambda: unix().connect("mine"))
    print("done", flush=True)


def race():
    libc = ctypes.CDLL(None, use_errno=True)
    s = listener("own")
    threading.Thread(target=lambda: [s.accept()[0].close() for _ in iter(int, 1)], daemon=True).start()
    address = ctypes.create_string_buffer(struct.pack("H", socket.AF_UNIX) + b"out\0", 16)
    target = os.dup(0)

    def change(what):
        while True:
            what()

    def names():
        address[2:6] = b"own\0"
        address[2:6] = b"out\0"

    def sockets():
        # What is no Unix socket goes on by itself.
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as other, unix() as mine:
            os.dup2(other.fileno(), target)
            os.dup2(mine.fileno(), target)

    sys.setswitchinterval(1e-5)
    for what in (names, sockets):
        threading.Thread(target=change, args=(what,), daemon=True).start()
    print("ready", flush=True)
    while True:
        libc.connect(target, address, 6)


globals()[sys.argv[1]]()
