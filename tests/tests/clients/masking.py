"""Sends each statement of a JSON list on standard input, and prints all that comes back, rows and errors alike.

    masking.py DSN psycopg-text | psycopg-binary | asyncpg
"""

import asyncio
import json
import sys


def errors(error):
    """Every field of a server's error that a client can see."""
    diag = getattr(error, "diag", None)
    if diag is None:
        return repr(error) + " " + repr(getattr(error, "__dict__", {}))
    names = [name for name in dir(diag) if not name.startswith("_")]
    return repr({name: getattr(diag, name) for name in names if not callable(getattr(diag, name))})


def psycopg(dsn, statements, binary):
    import psycopg

    connection = psycopg.connect(dsn, autocommit=True)
    connection.add_notice_handler(lambda notice: print("notice:", errors(type("E", (), {"diag": notice}))))
    for number, statement in enumerate(statements):
        try:
            # Parameters make psycopg use the extended protocol.
            cursor = connection.cursor(binary=binary)
            if statement.startswith("COPY"):
                with cursor.copy(statement) as copy:
                    print(number, "copied:", b"".join(bytes(block) for block in copy))
                continue
            cursor.execute(statement, () if binary else None, prepare=binary)
            print(number, "rows:", cursor.fetchall() if cursor.description else cursor.statusmessage)
        except Exception as error:
            print(number, "error:", errors(error))
    for notification in connection.notifies(timeout=0.1):
        print("notification:", notification)
    connection.close()


async def asyncpg_(dsn, statements):
    import asyncpg
    import os
    import ssl

    context = ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])
    connection = await asyncpg.connect(
        host="db.internal", port=5432, database="orders", user="whoever", password="whatever", ssl=context
    )
    connection.add_log_listener(lambda _, message: print("notice:", repr(message.as_dict())))
    for number, statement in enumerate(statements):
        if statement.startswith("COPY"):
            continue
        # Twice: the second time the statement is known, and not described again.
        for again in range(2):
            try:
                print(number, "rows:", [tuple(row) for row in await connection.fetch(statement)])
            except Exception as error:
                print(number, "error:", errors(error), getattr(error, "as_dict", dict)())
    await connection.close()


def main():
    dsn, way = sys.argv[1:3]
    statements = json.load(sys.stdin)
    if way == "asyncpg":
        asyncio.run(asyncpg_(dsn, statements))
    else:
        psycopg(dsn, statements, way == "psycopg-binary")
    print("done")


main()
