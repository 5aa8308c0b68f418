"""psycopg 3, as an agent would use it: one line for each kind of work."""
import time

import psycopg

from cancelled import cancelled

DSN = "host=db.internal port=5432 dbname=orders user=whoever password=whatever sslmode=verify-full"

with psycopg.connect(DSN, autocommit=True) as session:
    print("connect: ok")
    print("tls:", session.pgconn.ssl_in_use)
    print("simple:", psycopg.ClientCursor(session).execute("SELECT name FROM users WHERE id = 1").fetchone()[0])
    print("extended:", session.execute("SELECT name FROM users WHERE id = %s", [7]).fetchone()[0])
    for _ in range(8):  # from the sixth on the driver prepares it by name
        session.execute("SELECT email FROM users WHERE id = %s", [3], prepare=True)
    with session.pipeline():
        asked = [session.execute("SELECT name FROM users WHERE id = %s", [n]) for n in (11, 12, 13)]
    print("pipelined:", *[one.fetchone()[0] for one in asked])

    print("cancelled:", cancelled(session))

    try:
        session.execute("DROP TABLE users")
    except psycopg.errors.InsufficientPrivilege as error:
        print("refused:", error.sqlstate, error.diag.message_primary, "/", error.diag.message_hint)
    try:
        session.execute("DELETE FROM secrets WHERE id = %s", [1])
    except psycopg.errors.InsufficientPrivilege as error:
        print("refused-extended:", error.sqlstate)

    session.autocommit = False
    try:
        session.execute("INSERT INTO notes (body) VALUES ('to be undone')")
        session.execute("DROP TABLE users")
    except psycopg.errors.InsufficientPrivilege:
        try:
            session.execute("SELECT 1")
        except psycopg.errors.InFailedSqlTransaction as error:
            print("transaction:", error.sqlstate)
    session.rollback()
    print("after:", session.execute("SELECT count(*) FROM users").fetchone()[0])
