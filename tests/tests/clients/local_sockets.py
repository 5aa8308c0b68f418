"""Unix sockets that stand for a resource: `local_sockets.py PART PATH...`.

`driver` does with psycopg what an agent would, at the server whose socket is in the folder PATH. `shape` asks the kernel what
such a connection looks like. `own` makes sockets of its own in the place of PATH. `talk` tries PATH for each line that it is
told. `race` tries PATH while another thread puts OTHER in its place, once that is there.
"""
import ctypes
import errno
import os
import select
import socket
import struct
import sys
import threading
import time

SSL_REQUEST = struct.pack("!II", 8, 80877103)


def unix(kind=socket.SOCK_STREAM):
    return socket.socket(socket.AF_UNIX, kind)


def answers(s):
    """Who answers: the interceptor offers TLS, whatever the socket."""
    s.settimeout(20)
    s.sendall(SSL_REQUEST)
    return {b"S": "served", b"o": "own", b"": "closed"}[s.recv(1)]


def attempt(path, kind=socket.SOCK_STREAM):
    with unix(kind) as s:
        try:
            s.connect(path)
            return answers(s)
        except OSError as error:
            return errno.errorcode[error.errno]


def driver(folder):
    import psycopg
    from cancelled import cancelled

    # Who is at the other end is root, as the launcher is.
    dsn = f"host={folder} port=5432 dbname=orders user=whoever password=whatever requirepeer=root"
    with psycopg.connect(dsn, autocommit=True) as session:
        print("tls:", session.pgconn.ssl_in_use)
        print("extended:", session.execute("SELECT name FROM users WHERE id = %s", [7]).fetchone()[0])
        print("masked:", session.execute("SELECT email FROM users WHERE id = %s", [7]).fetchone()[0])
        try:
            session.execute("DELETE FROM secrets WHERE id = %s", [1])
        except psycopg.errors.InsufficientPrivilege as error:
            print("refused:", error.sqlstate)
        print("cancelled:", cancelled(session))


def shape(path):
    with unix() as s:
        # Registered before it is connected, and connected without waiting.
        ready = select.epoll()
        ready.register(s, select.EPOLLIN)
        s.setblocking(False)
        s.connect(path)
        copy = s.dup()
        s.sendall(SSL_REQUEST)
        print("ready:", ready.poll(20)[0][1] == select.EPOLLIN)
        print("answer:", copy.recv(1) == b"S")
        try:
            s.connect(path)
        except OSError as error:
            print("again:", errno.errorcode[error.errno])
        print("peer:", struct.unpack("3i", s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))
    print("packets:", attempt(path, socket.SOCK_SEQPACKET))
    with unix(socket.SOCK_DGRAM) as s:
        try:
            s.sendto(b"x", path)
        except OSError as error:
            print("datagram:", errno.errorcode[error.errno])
    folder, name = os.path.split(path)
    print("written otherwise:", attempt(f"{folder}//./{name}"))
    os.chdir(folder)
    print("relative:", attempt(name))
    print("upwards:", attempt(f"{folder}/../{os.path.basename(folder)}/{name}"))


def own(path):
    print("before:", attempt(path))
    with unix() as s:
        s.bind(path)
        s.listen()

        def answer():
            for _ in range(2):
                with s.accept()[0] as caller:
                    caller.recv(len(SSL_REQUEST))
                    caller.sendall(b"o")

        answering = threading.Thread(target=answer)
        answering.start()
        print("own:", attempt(path))
        os.rename(path, "moved")
        os.symlink("moved", path)
        print("linked:", attempt(path))
        answering.join()
    print("left behind:", attempt(path))
    os.unlink(path)
    print("after:", attempt(path))
    os.symlink(path, "link")
    print("a link to it:", attempt("link"), attempt(f"{os.getcwd()}/link"))


def talk(path):
    print("ready", flush=True)
    for _ in sys.stdin:
        print(attempt(path), flush=True)


def race(path, other):
    libc = ctypes.CDLL(None, use_errno=True)
    names = [struct.pack("H", socket.AF_UNIX) + name.encode() + b"\0" for name in (path, other)]
    address = ctypes.create_string_buffer(names[0], len(names[0]))
    places = [place for place in range(len(path)) if path[place] != other[place]]
    assert len(path) == len(other) and len(places) == 1, "what is torn is one of them all the same"
    while not os.path.exists(other):
        time.sleep(0.02)

    def change():
        while True:
            for name in names:
                address[2 + places[0]] = name[2 + places[0]]

    sys.setswitchinterval(1e-5)
    threading.Thread(target=change, daemon=True).start()
    served = refused = 0
    # Both are seen, so that the race was one.
    while served < 50 or refused < 50:
        with unix() as s:
            if libc.connect(s.fileno(), address, len(names[0])) == 0:
                assert answers(s) == "served"
                served += 1
            else:
                assert ctypes.get_errno() == errno.ECONNREFUSED, ctypes.get_errno()
                refused += 1
    print("raced:", served, flush=True)


globals()[sys.argv[1]](*sys.argv[2:])
