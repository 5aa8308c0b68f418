"""A statement that would not end, cancelled by another thread of its client's."""
import threading

import psycopg


def cancelled(session):
    """What the server says of it."""
    over = threading.Event()

    def cancel():
        # One that comes before there is anything to cancel does nothing.
        while not over.wait(0.2):
            session.cancel()

    cancelling = threading.Thread(target=cancel)
    cancelling.start()
    try:
        session.execute("SELECT count(*) FROM generate_series(1, 2000000000)")
        return "it ended"
    except psycopg.errors.QueryCanceled as error:
        return error.sqlstate
    finally:
        over.set()
        cancelling.join()
