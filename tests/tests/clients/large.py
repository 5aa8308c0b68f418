"""A value that is larger than anything that is kept of it, both ways."""
import sys

import psycopg

DSN = "host=db.internal port=5432 dbname=orders user=whoever password=whatever sslmode=verify-full"
SIZE = int(sys.argv[1])

with psycopg.connect(DSN, autocommit=True) as session:
    value = b"x" * SIZE
    print("bound:", session.execute("SELECT length(%b::bytea)", [value]).fetchone()[0])
    print("returned:", len(session.execute("SELECT repeat('y', %s)", [SIZE]).fetchone()[0]))
    with session.cursor() as cursor:
        with cursor.copy("COPY notes (body) FROM STDIN") as copy:
            copy.write(value + b"\n")
        print("copied in:", cursor.rowcount)
        with cursor.copy("COPY (SELECT body FROM notes) TO STDOUT") as copy:
            print("copied out:", sum(len(part) for part in copy))
