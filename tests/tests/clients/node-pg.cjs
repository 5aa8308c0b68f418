// node-postgres, as an agent would use it: one line for each kind of work.
const { Client } = require("pg");

const settings = { host: "db.internal", database: "orders", user: "whoever", password: "whatever", ssl: true };

async function main() {
  const client = new Client(settings);
  await client.connect();
  console.log("connect: ok");
  console.log("simple:", (await client.query("SELECT name FROM users WHERE id = 1")).rows[0].name);
  console.log("extended:", (await client.query("SELECT name FROM users WHERE id = $1", [7])).rows[0].name);
  const named = { name: "by-id", text: "SELECT name FROM users WHERE id = $1" };
  const asked = [11, 12, 13].map((id) => client.query({ ...named, values: [id] }));
  console.log("queued:", (await Promise.all(asked)).map((one) => one.rows[0].name).join(" "));
  const sleeping = client.query("SELECT count(*) FROM generate_series(1, 2000000000)");
  const cancelling = setInterval(() => {
    const other = new Client(settings);
    // The driver's own way to cancel: a connection of its own with the key of the first. One that comes before there is
    // anything to cancel does nothing.
    other.cancel(client, client._activeQuery || client.activeQuery);
  }, 1000);
  try {
    await sleeping;
  } catch (error) {
    console.log("cancelled:", error.code);
  }
  clearInterval(cancelling);
  try {
    await client.query("DROP TABLE users");
  } catch (error) {
    console.log("refused:", error.code, error.message, "/", error.hint);
  }
  try {
    await client.query("SELECT * FROM secrets WHERE id = $1", [1]);
  } catch (error) {
    console.log("refused-extended:", error.code);
  }
  console.log("after:", (await client.query("SELECT count(*) FROM users")).rows[0].count);
  await client.end();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
