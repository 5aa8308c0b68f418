"""Writes rows for as long as it is let, over one session after the other; each statement has a number of its own."""
import sys
import time

import psycopg

DSN, name = sys.argv[1], sys.argv[2]
number = 0
while True:
    try:
        with psycopg.connect(DSN + " connect_timeout=5", autocommit=True) as session:
            while True:
                number += 1
                if number % 3 == 0:
                    session.execute(f"INSERT /* {name}-{number} */ INTO notes (body) VALUES (%s)", ["x"])
                else:
                    psycopg.ClientCursor(session).execute(f"INSERT /* {name}-{number} */ INTO notes (body) VALUES ('x')")
    except psycopg.OperationalError:
        time.sleep(0.05)
    except psycopg.Error as error:
        print(error, file=sys.stderr, flush=True)
