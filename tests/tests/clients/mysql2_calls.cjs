// Calls of procedures with several results, files and pools, by Node's usual driver for MySQL; each part prints what it saw.

const { Readable } = require("stream");
const mysql = require("mysql2/promise");

const refused = (done) => done.then(
  ([rows]) => `got ${JSON.stringify(rows)}`,
  (error) => `${error.errno} ${error.sqlState} ${error.sqlMessage}`,
);
const tables = (results) => JSON.stringify(results.filter(Array.isArray));

(async () => {
  const own = { host: "shop.internal", user: "whoever", password: "the-agents-own", database: "shop" };
  const connection = await mysql.createConnection(own);
  const [texts] = await connection.query("CALL report(?)", [1]);
  console.log("results:", tables(texts));
  const [prepared] = await connection.execute("CALL report(?)", [1]);
  console.log("prepared results:", tables(prepared));
  console.log("broken:", await refused(connection.query("CALL broken()")));
  const file = { sql: "LOAD DATA LOCAL INFILE 'x' INTO TABLE notes (text)", infileStreamFactory: () => Readable.from(["mine"]) };
  console.log("file refused:", await refused(connection.query(file)));
  const [rest] = await connection.query("SELECT name FROM goods");
  console.log("goes on:", JSON.stringify(rest));
  await connection.end();

  const pool = mysql.createPool({ ...own, connectionLimit: 1 });
  const all = await Promise.all([1, 2, 3].map((id) => pool.query("SELECT name FROM goods WHERE id = ?", [id])));
  console.log("pool:", JSON.stringify(all.map(([rows]) => rows)));
  const one = await pool.getConnection();
  console.log("change user refused:", await refused(one.changeUser({ user: "root" }).then(() => [["changed"]])));
  one.release();
  await pool.end();
})();
