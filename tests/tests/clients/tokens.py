"""Reads a token, and sends it back in each statement of a JSON list on standard input.

    tokens.py DSN psycopg-text | psycopg-binary | asyncpg

The list has the query that reads the token, and then statements with their values. `{token}` in either is the token.
"""

import asyncio
import json
import os
import ssl
import sys


def told(number, what):
    print(number, what)


def psycopg(dsn, reads, steps, binary):
    import psycopg

    connection = psycopg.connect(dsn, autocommit=True)
    notice = lambda diag: print("notice:", diag.message_primary, diag.message_detail, diag.context)
    connection.add_notice_handler(notice)
    token = connection.execute(reads).fetchone()[0]
    print("token:", token)
    for number, (statement, values) in enumerate(steps):
        statement = statement.replace("{token}", token).replace("%", "%%").replace("$1", "%s")
        values = [value.replace("{token}", token) for value in values]
        for again in range(2):
            try:
                # Parameters make psycopg use the extended protocol.
                given = values if values else (() if binary else None)
                cursor = connection.cursor(binary=binary)
                if given is None:
                    statement = statement.replace("%%", "%")
                cursor.execute(statement, given, prepare=binary or bool(values))
                told(number, ["rows:", cursor.fetchall() if cursor.description else cursor.statusmessage])
            except psycopg.Error as error:
                diag = error.diag
                told(number, ["error:", diag.sqlstate, diag.message_primary, diag.message_detail, diag.context])
    connection.close()


async def asyncpg_(reads, steps):
    import asyncpg

    context = ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])
    connection = await asyncpg.connect(
        host="db.internal", port=5432, database="orders", user="whoever", password="whatever", ssl=context
    )
    connection.add_log_listener(lambda _, message: print("notice:", repr(message.as_dict())))
    token = await connection.fetchval(reads)
    print("token:", token)
    for number, (statement, values) in enumerate(steps):
        statement = statement.replace("{token}", token)
        values = [value.replace("{token}", token) for value in values]
        # Twice: the second time the statement is known, and not prepared again.
        for again in range(2):
            try:
                told(number, ["rows:", [tuple(row) for row in await connection.fetch(statement, *values)]])
            except asyncpg.PostgresError as error:
                told(number, ["error:", error.as_dict()])
    await connection.close()


def main():
    dsn, way = sys.argv[1:3]
    reads, *steps = json.load(sys.stdin)
    if way == "asyncpg":
        asyncio.run(asyncpg_(reads, steps))
    else:
        psycopg(dsn, reads, steps, way == "psycopg-binary")
    print("done")


main()
