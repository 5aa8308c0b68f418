"""Statements that may be held, by any of Python's drivers: one line for each, and whether the session lives on.

    hold.py DRIVER once:SQL ... retry:SQL ...
"""
import asyncio
import ssl
import sys
import time

sys.path.pop(0)
WHERE = {"host": "db.internal", "database": "orders", "user": "whoever", "password": "whatever"}


class Refused(Exception):
    """The server, or whoever speaks for it, said no."""


class Gone(Exception):
    """The session is over."""


def psycopg():
    import psycopg as driver

    dsn = "host=db.internal dbname=orders user=whoever password=whatever sslmode=verify-full connect_timeout=5"
    try:
        session = driver.connect(dsn, autocommit=True)
    except driver.OperationalError as error:
        raise Gone(error) from None

    def do(sql, *values):
        try:
            return session.execute(sql.replace("$1", "%s"), values or None).rowcount
        except driver.errors.InsufficientPrivilege as error:
            raise Refused(error.diag.message_primary, error.diag.message_hint) from None
        except driver.OperationalError as error:
            raise Gone(error) from None

    return do


def asyncpg():
    import asyncpg as driver

    loop = asyncio.new_event_loop()
    lost = (OSError, driver.PostgresConnectionError, driver.InterfaceError, asyncio.TimeoutError,
            driver.exceptions.AdminShutdownError)
    try:
        session = loop.run_until_complete(driver.connect(**WHERE, ssl=ssl.create_default_context(), timeout=10))
    except lost as error:
        raise Gone(error) from None

    def do(sql, *values):
        try:
            return loop.run_until_complete(session.execute(sql, *values))
        except driver.InsufficientPrivilegeError as error:
            raise Refused(error.args[0], error.hint) from None
        except lost as error:
            raise Gone(error) from None

    return do


def pg8000():
    import pg8000.native as driver

    lost = (OSError, driver.InterfaceError)
    try:
        session = driver.Connection(**WHERE, ssl_context=ssl.create_default_context())
    except lost as error:
        raise Gone(error) from None

    def do(sql, *values):
        try:
            session.run(sql.replace("$1", ":id"), **({"id": values[0]} if values else {}))
            return session.row_count
        except driver.DatabaseError as error:
            said = error.args[0]
            if said.get("C") == "42501":
                raise Refused(said["M"], said.get("H")) from None
            raise Gone(said) from None
        except lost as error:
            raise Gone(error) from None

    return do


connect = {"psycopg": psycopg, "asyncpg": asyncpg, "pg8000": pg8000}[sys.argv[1]]
session = None
for step in sys.argv[2:]:
    how, _, statement = step.partition(":")
    sql, *values = statement.split(" -- ")
    values = [int(value) for value in values]
    while True:
        try:
            while not session:
                try:
                    session = connect()
                except Gone:
                    time.sleep(0.3)
            print(f"{sql}: done {session(sql, *values)}", flush=True)
            break
        except Refused as refusal:
            message, hint = refusal.args
            print(f"{sql}: 42501 {message} / {hint}", flush=True)
            if how == "once" or "denied by" in message or "was used for" in message:
                break
        except Gone as error:
            print(f"{sql}: gone {str(error).splitlines()[:1]}", flush=True)
            session = None
            if how == "once":
                break
        time.sleep(0.3)
if session:
    session("SELECT 1")
    print("after: alive", flush=True)
