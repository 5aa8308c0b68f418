// Statements that may be held, by either of Node's drivers: one line for each, and whether the session lives on.
//
//     hold.cjs DRIVER once:SQL ... retry:SQL ...
const where = { host: 'db.internal', database: 'orders', user: 'whoever', password: 'whatever' };
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function pg() {
  const { Client } = require('pg');
  const client = new Client({ ...where, ssl: { rejectUnauthorized: true } });
  client.on('error', () => {});
  await client.connect();
  return { run: async (sql, values) => (await client.query(sql, values)).rowCount, end: () => client.end() };
}

async function postgres() {
  const sql = require('postgres')({ ...where, ssl: 'verify-full', max: 1, onnotice: () => {}, connect_timeout: 10 });
  await sql`SELECT 1`;
  return { run: async (text, values) => (await sql.unsafe(text, values)).count, end: () => sql.end({ timeout: 1 }) };
}

async function main() {
  const connect = { pg, postgres }[process.argv[2]];
  let session = null;
  for (const step of process.argv.slice(3)) {
    const at = step.indexOf(':');
    const [how, statement] = [step.slice(0, at), step.slice(at + 1)];
    const [sql, ...values] = statement.split(' -- ');
    for (;;) {
      try {
        while (!session) session = await connect().catch(() => sleep(300));
        console.log(`${sql}: done ${await session.run(sql, values.map(Number))}`);
        break;
      } catch (error) {
        if (error.code === '42501') {
          console.log(`${sql}: 42501 ${error.message} / ${error.hint}`);
          if (how === 'once' || /denied by|was used for/.test(error.message)) break;
        } else {
          console.log(`${sql}: gone ${error.code || error.message}`);
          if (session) await session.end().catch(() => {});
          session = null;
          if (how === 'once') break;
        }
      }
      await sleep(300);
    }
  }
  if (session) {
    await session.run('SELECT 1', []);
    console.log('after: alive');
    await session.end();
  }
}

main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
