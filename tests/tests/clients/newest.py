"""What libpq 18 speaks and older ones do not: TLS at once, and protocol 3.2."""
import psycopg

from cancelled import cancelled

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
        print("cancelled:", cancelled(session))
