// Prisma's migrations as they are used: two deployed, looked at, and found done; then one that policy refuses. Its
// schema engine runs inside of Node, over the adapter for `pg`; the other one is a program that no registry has.
const { spawnSync } = require("node:child_process");
const { mkdirSync, symlinkSync, writeFileSync } = require("node:fs");
const { join } = require("node:path");

const modules = process.env.NODE_MODULES;
const URL = "postgresql://whoever:whatever@db.internal/orders";

function write(path, text) {
  mkdirSync(join(path, ".."), { recursive: true });
  writeFileSync(path, text);
}

function prisma(...words) {
  const ran = spawnSync(process.execPath, [join(modules, "prisma/build/index.js"), ...words], {
    encoding: "utf8",
    // Told where its programs would be, it does not want to fetch them.
    env: { ...process.env, PRISMA_SCHEMA_ENGINE_BINARY: process.execPath, PRISMA_QUERY_ENGINE_LIBRARY: process.execPath, CHECKPOINT_DISABLE: "1", PRISMA_HIDE_UPDATE_MESSAGE: "1", NO_COLOR: "1" },
  });
  return { code: ran.status, text: ran.stdout + ran.stderr };
}

function migration(name, sql) {
  write(`prisma/migrations/${name}/migration.sql`, sql);
}

symlinkSync(modules, "node_modules");
write("prisma/schema.prisma", `
datasource db {
  provider = "postgresql"
  url      = "${URL}"
}
`);
write("prisma/migrations/migration_lock.toml", 'provider = "postgresql"\n');
write("prisma.config.ts", `
import { readFileSync } from "node:fs";
import pg from "pg";
import { PrismaPg } from "@prisma/adapter-pg";
import { defineConfig } from "prisma/config";
const ssl = { ca: readFileSync(process.env.PGSSLROOTCERT!) };
// The adapter does not know the catalogue's type \`name\`, which Prisma's own questions ask for: it is told text.
function told(answer: any) {
  for (const field of answer?.fields ?? []) if (field.dataTypeID === 19) field.dataTypeID = 25;
  return answer;
}
class Client extends pg.Client {
  query(...words: any[]): any {
    const then = words.at(-1);
    if (typeof then !== "function") return (super.query as any)(...words).then(told);
    return (super.query as any)(...words.slice(0, -1), (error: any, answer: any) => then(error, told(answer)));
  }
}
export default defineConfig({
  experimental: { adapter: true },
  schema: "prisma/schema.prisma",
  engine: "js",
  adapter: async () => new PrismaPg({ connectionString: "${URL}", ssl, Client } as any, { schema: "public" }),
});
`);
migration("20250101000000_what_was_there", "-- The tables that there were before Prisma was.\n");
migration("20260101000000_make_invoices", `
CREATE TABLE "invoices" (
  "id" SERIAL NOT NULL,
  "user_id" INTEGER,
  "total" DECIMAL(10,2) NOT NULL,
  CONSTRAINT "invoices_pkey" PRIMARY KEY ("id")
);
ALTER TABLE "invoices" ADD CONSTRAINT "invoices_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id")
  ON DELETE SET NULL ON UPDATE CASCADE;
`);
migration("20260102000000_note_invoices", `
ALTER TABLE "invoices" ADD COLUMN "note" VARCHAR(50);
CREATE INDEX "invoices_note_idx" ON "invoices"("note");
INSERT INTO "invoices" ("user_id", "total") SELECT "id", 10 FROM "users" WHERE "id" <= 3;
`);

const baseline = prisma("migrate", "resolve", "--applied", "20250101000000_what_was_there");
console.log(`baseline: ${baseline.code}\n${baseline.text}`);
const deployed = prisma("migrate", "deploy");
console.log(`deployed: ${deployed.code}\n${deployed.text}`);
const again = prisma("migrate", "deploy");
console.log(`again: ${again.code} ${again.text.includes("No pending migrations")}`);
const status = prisma("migrate", "status");
console.log(`status: ${status.code} ${status.text.includes("up to date")}\n${status.text}`);
migration("20260103000000_give_invoices_away", `
ALTER TABLE "invoices" ADD COLUMN "never" INTEGER;
GRANT ALL ON "invoices" TO PUBLIC;
`);
const refused = prisma("migrate", "deploy");
console.log(`refused: ${refused.code}\n${refused.text}`);
