"""pg8000, as an agent would use it: one line for each kind of work."""
import ssl
import sys

sys.path.pop(0)
import pg8000.native  # noqa: E402

session = pg8000.native.Connection(
    "whoever", host="db.internal", database="orders", password="whatever", ssl_context=ssl.create_default_context()
)
print("connect: ok")
print("simple:", session.run("SELECT name FROM users WHERE id = 1")[0][0])
print("extended:", session.run("SELECT name FROM users WHERE id = :id", id=7)[0][0])
prepared = session.prepare("SELECT name FROM users WHERE id = :id")
print("prepared:", *[prepared.run(id=n)[0][0] for n in (11, 12, 13)])
prepared.close()
try:
    session.run("DROP TABLE users")
except pg8000.native.DatabaseError as error:
    print("refused:", error.args[0]["C"], error.args[0]["M"], "/", error.args[0].get("H"))
try:
    session.run("SELECT * FROM secrets WHERE id = :id", id=1)
except pg8000.native.DatabaseError as error:
    print("refused-extended:", error.args[0]["C"])
print("after:", session.run("SELECT count(*) FROM users")[0][0])
session.close()
