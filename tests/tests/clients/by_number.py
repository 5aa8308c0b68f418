"""Functions that are called by their number: large objects by psycopg2, and a user's function by hand."""
import hashlib
import os
import struct

import psycopg2

from wire import Session, fields, message

DSN = "host=db.internal port=5432 dbname=orders user=whoever password=whatever sslmode=verify-full"

session = psycopg2.connect(DSN)
content = bytes(range(256)) * 1000
one = session.lobject(0, "wb")
assert one.write(content) == len(content)
assert one.seek(-6, os.SEEK_END) == len(content) - 6 == one.tell()
one.close()
session.commit()
again = session.lobject(one.oid, "rwb")
assert hashlib.md5(again.read()).digest() == hashlib.md5(content).digest()
again.truncate(1000)
again.seek(0)
assert again.read() == content[:1000]
again.export("exported")
with open("exported", "rb") as file:
    assert file.read() == content[:1000]
imported = session.lobject(0, "r", 0, "exported")
assert session.lobject(imported.oid, "rb").read() == content[:1000]
for oid in (one.oid, imported.oid):
    session.lobject(oid, "n").unlink()
session.commit()
try:
    session.lobject(one.oid, "rb")
    raise AssertionError("it is gone")
except psycopg2.OperationalError as error:
    assert "does not exist" in str(error), error
session.rollback()
session.close()
print("large object: done", flush=True)

s = Session()


def number(name):
    return int(s.rows(f"SELECT '{name}'::regproc::oid")[0])


def call(function, value):
    s.send(message(b"F", struct.pack(">IHHHIiH", function, 1, 1, 1, 4, value, 1)))
    return s.until(b"Z")


twice, thrice = number("twice"), number("thrice")
for value in (21, 4):
    assert call(twice, value) == [(b"V", struct.pack(">Ii", 4, 2 * value)), (b"Z", b"I")]
refused = call(thrice, 21)
assert fields(refused[0][1])["C"] == "42501" and refused[-1] == (b"Z", b"I"), refused
s.query("BEGIN")
assert call(twice, 5)[0][0] == b"V"
assert call(thrice, 5)[-1] == (b"Z", b"E")
s.query("ROLLBACK")
assert call(twice, 6)[0][0] == b"V"
s.close()
print("by number: done", flush=True)
