"""Calls of procedures with several results, transactions, pools and files, by both of Python's usual drivers for MySQL;
each part prints what it saw."""

import mysql.connector
import mysql.connector.pooling
import pymysql

OWN = {"host": "shop.internal", "user": "whoever", "password": "the-agents-own", "database": "shop"}


def refused(cursor, text):
    try:
        cursor.execute(text)
        return f"got {cursor.fetchall()!r}"
    except pymysql.MySQLError as error:
        return f"{error.args[0]} {error.args[1]}"


connection = pymysql.connect(local_infile=True, **OWN)
cursor = connection.cursor()
cursor.execute("CALL report(1)")
results = [cursor.fetchall()]
while cursor.nextset():
    results.append(cursor.fetchall())
print("pymysql results:", results)
cursor.execute("SELECT name FROM goods")
print("pymysql goes on:", cursor.fetchall())
try:
    cursor.execute("CALL broken()")
    seen = [cursor.fetchall()]
    while cursor.nextset():
        seen.append(cursor.fetchall())
except pymysql.MySQLError as error:
    print("pymysql broken:", seen, error.args)
print("pymysql not called:", refused(cursor, "CALL unkind()"))
print("file refused:", refused(cursor, f"LOAD DATA LOCAL INFILE '{__file__}' INTO TABLE notes (text)"))

# Each statement is in a transaction, and one of them fails.
connection.autocommit(False)
cursor.execute("INSERT INTO notes (text) VALUES ('before')")
print("in the middle:", refused(cursor, "INSERT INTO notes (id, text) VALUES ('x', 'wrong', 1)").split(" ")[0])
print("refused in it:", "interceptor: " in refused(cursor, "DELETE FROM goods"))
cursor.execute("INSERT INTO notes (text) VALUES ('behind')")
connection.commit()
cursor.execute("INSERT INTO notes (text) VALUES ('undone')")
connection.rollback()
cursor.execute("SELECT text FROM notes ORDER BY id")
print("transaction:", cursor.fetchall())
print("number:", connection.thread_id())
connection.close()
connection.ping(reconnect=True)
cursor = connection.cursor()
cursor.execute("SELECT name FROM goods")
print("again:", cursor.fetchall())
connection.close()

other = mysql.connector.connect(use_pure=True, allow_local_infile=True, **OWN)
cursor = other.cursor()
cursor.callproc("report", (1,))
print("connector results:", [result.fetchall() for result in cursor.stored_results()])
cursor.execute("SELECT name FROM goods")
print("connector goes on:", cursor.fetchall())
try:
    cursor.execute(f"LOAD DATA LOCAL INFILE '{__file__}' INTO TABLE notes (text)")
except mysql.connector.Error as error:
    print("connector file refused:", error.errno, error.msg)
other.close()

pool = mysql.connector.pooling.MySQLConnectionPool(pool_size=1, use_pure=True, pool_reset_session=True, **OWN)
for turn in range(3):
    one = pool.get_connection()
    cursor = one.cursor()
    cursor.execute("SELECT @kept")
    kept = cursor.fetchall()
    cursor.execute("SET @kept = 5")
    cursor.execute("SELECT name FROM goods WHERE id = 1")
    print(f"pool {turn}:", kept, cursor.fetchall())
    cursor.close()
    one.close()
