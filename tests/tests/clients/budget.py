"""psycopg against a budget of rows: how many come, what ends them, and what the session is good for afterwards."""
import sys

import psycopg

DSN, ROWS = sys.argv[1], "SELECT a.id FROM users AS a, users AS b"


def stream(cursor, text):
    count = 0
    try:
        for _ in cursor.stream(text):
            count += 1
        return f"{count} rows"
    except psycopg.Error as error:
        return f"{count} rows, then {error.sqlstate} {error.diag.message_primary}"


if sys.argv[2] == "stream":
    kind = {"simple": psycopg.ClientCursor, "extended": psycopg.Cursor}[sys.argv[3]]
    with psycopg.connect(DSN, autocommit=True) as session:
        print("first:", stream(kind(session), ROWS))
        print("status:", session.info.transaction_status.name)
        session.execute("BEGIN")
        session.execute("ROLLBACK")
        print("usable: yes")
        print("next:", stream(kind(session), ROWS))

if sys.argv[2] == "transaction":
    with psycopg.connect(DSN) as session:
        print("first:", stream(session.cursor(), ROWS))
        print("status:", session.info.transaction_status.name)
        try:
            session.execute("SAVEPOINT a")
        except psycopg.Error as error:
            print("inside:", error.sqlstate)
        session.rollback()
        print("usable:", session.info.transaction_status.name)

if sys.argv[2] == "wait":
    with psycopg.connect(DSN, autocommit=True) as session:
        print("first:", stream(session.cursor(), ROWS + " LIMIT 900"), flush=True)
    sys.stdin.readline()
    for _ in range(200):
        try:
            session = psycopg.connect(DSN, autocommit=True)
            break
        except psycopg.OperationalError:
            import time
            time.sleep(0.1)
    print("second:", stream(session.cursor(), ROWS), flush=True)
