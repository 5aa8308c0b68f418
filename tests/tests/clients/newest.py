"""What libpq 18 speaks and older ones do not: TLS at once, and protocol 3.2."""
import threading

import psycopg

DSN = "host=db.internal port=5432 dbname=orders user=whoever password=whatever sslmode=verify-full"
SEVEN = "SELECT name FROM users WHERE id = %s"

with psycopg.connect(f"{DSN} sslnegotiation=direct", autocommit=True) as session:
    print("direct:", session.pgconn.ssl_in_use, session.execute(SEVEN, [7]).fetchone()[0])

for version in ("3.2", "3.0"):
    options = f"min_protocol_version={version} max_protocol_version={version}"
    with psycopg.connect(f"{DSN} {options}", autocommit=True) as session:
        print(f"{version}:", session.execute(SEVEN, [7]).fetchone()[0])
        if version == "3.0":
            continue
        over = threading.Event()

        def cancel():
            # One that comes before there is anything to cancel does nothing.
            while not over.wait(1):
                session.cancel()

        cancelling = threading.Thread(target=cancel)
        cancelling.start()
        try:
            session.execute("SELECT count(*) FROM generate_series(1, 2000000000)")
        except psycopg.errors.QueryCanceled as error:
            print("cancelled:", error.sqlstate)
        over.set()
        cancelling.join()
