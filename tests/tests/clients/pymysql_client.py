"""What agents do with MySQL, by PyMySQL; each part prints what it saw."""

import os
import sys

import pymysql


def connect(**where):
    return pymysql.connect(user="whoever", password="the-agents-own", database="shop", **where)


def refused(cursor, text):
    try:
        cursor.execute(text)
        return f"got {cursor.fetchall()!r}"
    except pymysql.MySQLError as error:
        return f"{error.args[0]} {error.args[1]}"


def session(label, connection):
    cursor = connection.cursor()
    cursor.execute("SELECT name FROM goods WHERE id = %s", (1,))
    print(f"{label} read:", cursor.fetchall())
    print(f"{label} write refused:", refused(cursor, "UPDATE goods SET name = 'spoilt' WHERE id = 1"))
    print(f"{label} view refused:", refused(cursor, "SELECT * FROM seen"))
    print(f"{label} drop refused:", refused(cursor, "DROP TABLE goods"))
    cursor.execute("SELECT name FROM goods WHERE id = 1")
    print(f"{label} goes on:", cursor.fetchall())
    connection.begin()
    cursor.execute("INSERT INTO notes (text) VALUES (%s)", (f"kept by {label}",))
    connection.commit()
    connection.begin()
    cursor.execute("INSERT INTO notes (text) VALUES (%s)", (f"undone by {label}",))
    connection.rollback()
    cursor.execute("SELECT text FROM notes WHERE text LIKE %s", (f"%{label}",))
    print(f"{label} transaction:", cursor.fetchall())
    print(f"{label} wrong:", refused(cursor, "SELECT nothing FROM goods").split(" ")[0])
    cursor.execute("SELECT id, text FROM many")
    rows = cursor.fetchall()
    print(f"{label} many:", len(rows), sum(row[0] for row in rows))
    # With which the server would show nothing to who does not say how much it wants.
    cursor.execute("SET sql_select_limit = 0")
    print(f"{label} limited view refused:", refused(cursor, "SELECT id FROM shop.seen"))
    cursor.execute("SELECT name FROM goods LIMIT 1")
    print(f"{label} limited:", cursor.fetchall())
    connection.close()


session("tcp", connect(host="shop.internal"))
session("tls", connect(host="shop.internal", ssl={"ca": os.environ["SSL_CERT_FILE"]}))
session("socket", connect(unix_socket="/run/mysqld/mysqld.sock"))
sys.stdout.flush()
