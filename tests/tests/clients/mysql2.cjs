// What Node's usual driver does with MySQL; each part prints what it saw.

const fs = require("fs");
const mysql = require("mysql2/promise");

const refused = (done) => done.then(
  ([rows]) => `got ${JSON.stringify(rows)}`,
  (error) => `${error.errno} ${error.sqlState} ${error.sqlMessage}`,
);

(async () => {
  const own = { host: "shop.internal", user: "whoever", password: "the-agents-own", database: "shop" };
  const connection = await mysql.createConnection(own);
  const [texts] = await connection.query("SELECT name FROM goods WHERE id = ?", [1]);
  console.log("text:", JSON.stringify(texts));
  const [prepared] = await connection.execute("SELECT name FROM goods WHERE id = ?", [1]);
  console.log("prepared:", JSON.stringify(prepared));
  console.log("write refused:", await refused(connection.execute("UPDATE goods SET name = ? WHERE id = ?", ["spoilt", 1])));
  // Both are sent before either is answered.
  const [first, second] = await Promise.all([
    connection.query("SELECT COUNT(*) AS n FROM many"),
    refused(connection.query("DELETE FROM goods")),
  ]);
  console.log("at once:", JSON.stringify(first[0]), second.includes("interceptor: "));
  await connection.end();

  const ca = fs.readFileSync(process.env.NODE_EXTRA_CA_CERTS);
  const encrypted = await mysql.createConnection({ ...own, ssl: { ca, rejectUnauthorized: true } });
  const [over] = await encrypted.execute("SELECT name FROM goods WHERE id = ?", [1]);
  console.log("tls:", JSON.stringify(over), encrypted.connection.stream.encrypted === true);
  await encrypted.end();
})();
