"""Sends each statement of a JSON list of lists on standard input, and prints a JSON line of all that came back for it.

    masking.py DSN psycopg-simple | psycopg-text | psycopg-binary | asyncpg  [undone]

`undone` wraps each of the lists in a transaction that is rolled back.
"""

import asyncio
import json
import sys
import tempfile


def errors(diag):
    """Every field of a server's error or notice that a client can see."""
    names = [name for name in dir(diag) if not name.startswith("_")]
    return repr({name: getattr(diag, name) for name in names if not callable(getattr(diag, name))})


def tell(case, step, ended, *said):
    print(json.dumps({"case": case, "step": step, "ended": ended, "said": " ".join(map(str, said))}))


def how(code, detail):
    return "refused" if code == "42501" and (detail or "").startswith("Rule ") else f"failed {code}"


def psycopg(dsn, cases, way, undone):
    import psycopg
    from psycopg.pq import Trace

    binary, heard = way == "psycopg-binary", []
    connection = psycopg.connect(dsn, autocommit=True)
    connection.add_notice_handler(lambda notice: heard.append(errors(notice)))
    # Whatever reached this process, also what the driver keeps for itself: libpq says it message by message.
    wire = tempfile.NamedTemporaryFile()
    trace = open(wire.name, errors="replace")

    def run(statement):
        if statement.startswith("COPY"):
            with connection.cursor().copy(statement) as copy:
                return b"".join(bytes(block) for block in copy)
        if way == "psycopg-simple":
            cursor = connection.execute(statement)
        else:
            # Parameters, even none, make psycopg use the extended protocol.
            cursor = connection.cursor(binary=binary)
            cursor.execute(statement.replace("%", "%%"), (), prepare=binary)
        shown = []
        while True:
            shown.append(cursor.fetchall() if cursor.description else cursor.statusmessage)
            if not cursor.nextset():
                return shown

    for number, statements in enumerate(cases):
        if undone:
            connection.execute("BEGIN")
        for step, statement in enumerate(statements):
            connection.pgconn.trace(wire.fileno())
            # The digits of a time may be those of a value that is looked for.
            connection.pgconn.set_trace_flags(Trace.SUPPRESS_TIMESTAMPS)
            try:
                shown, ended = run(statement), "answered"
            except psycopg.Error as error:
                shown, ended = errors(error.diag), how(error.sqlstate, error.diag.message_detail)
            except Exception as error:
                shown, ended = repr(error), "unread"
            # What waits to be written is written now.
            connection.pgconn.untrace()
            said = [line for line in trace if line.startswith("B\t")]
            assert said, f"nothing came of {statement}: {shown}"
            tell(number, step, ended, shown, heard, "".join(said))
            heard.clear()
        if undone:
            connection.execute("ROLLBACK")
    for notification in connection.notifies(timeout=0.1):
        tell(len(cases), 0, "heard", notification)
    connection.close()


async def asyncpg_(dsn, cases, undone):
    import asyncpg
    import os
    import ssl

    heard = []
    context = ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])
    connection = await asyncpg.connect(
        host="db.internal", port=5432, database="orders", user="whoever", password="whatever", ssl=context
    )
    connection.add_log_listener(lambda _, message: heard.append(repr(message.as_dict())))

    async def run(statement):
        if not statement.startswith("COPY"):
            return [tuple(row) for row in await connection.fetch(statement)]
        copied = bytearray()

        async def more(data):
            copied.extend(data)

        await connection._copy_out(statement, more, None)
        return bytes(copied)

    for number, statements in enumerate(cases):
        # Twice: the second time the statements are known, and not described again.
        for again in range(1 if undone else 2):
            if undone:
                await connection.execute("BEGIN")
            for step, statement in enumerate(statements):
                try:
                    said, ended = await run(statement), "answered"
                except asyncpg.PostgresError as error:
                    # It has the statement too, which is the client's own.
                    said, ended = error.as_dict(), how(error.sqlstate, error.detail)
                except Exception as error:
                    said, ended = repr(error), "unread"
                tell(number, step, "again" if again else ended, said, heard)
                heard.clear()
            if undone:
                await connection.execute("ROLLBACK")
    await connection.close()


def main():
    dsn, way = sys.argv[1:3]
    undone = sys.argv[3:] == ["undone"]
    cases = json.load(sys.stdin)
    if way == "asyncpg":
        asyncio.run(asyncpg_(dsn, cases, undone))
    else:
        psycopg(dsn, cases, way, undone)
    print("done")


main()
