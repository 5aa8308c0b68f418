"""What MySQL's own connector does by prepared statements; each part prints what it saw."""

import datetime
import decimal

import mysql.connector


def refused(cursor, text, values=()):
    try:
        cursor.execute(text, values)
        return f"got {cursor.fetchall()!r}"
    except mysql.connector.Error as error:
        return f"{error.errno} {error.sqlstate} {error.msg}"


connection = mysql.connector.connect(
    host="shop.internal", user="whoever", password="the-agents-own", database="shop", use_pure=True
)
cursor = connection.cursor(prepared=True)
cursor.execute("SELECT name FROM goods WHERE id = %s", (1,))
print("read:", cursor.fetchall())
cursor.execute("SELECT name FROM goods WHERE id = %s", (2,))
print("again:", cursor.fetchall())
row = ("a note", 2**40, decimal.Decimal("12.50"), datetime.datetime(2026, 1, 2, 3, 4, 5), None, 1.5)
cursor.execute("INSERT INTO kinds (note, number, price, moment, nothing, ratio) VALUES (%s, %s, %s, %s, %s, %s)", row)
connection.commit()
cursor.execute("SELECT note, number, price, moment, nothing, ratio FROM kinds WHERE number = %s", (2**40,))
print("kinds:", cursor.fetchall() == [row])
print("write refused:", refused(cursor, "UPDATE goods SET name = %s WHERE id = %s", ("spoilt", 1)))
print("view refused:", refused(cursor, "SELECT * FROM seen WHERE id = %s", (1,)))
cursor.execute("SELECT COUNT(*) FROM many WHERE id <= %s", (1000,))
print("goes on:", cursor.fetchall())
cursor.close()
connection.close()
