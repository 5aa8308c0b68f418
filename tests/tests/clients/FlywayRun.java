// What Flyway 11.20 was seen to send, in its order and over its driver: it is in none of the registries that these tests
// install from. Two migrations up, again with nothing left to do, then one that policy refuses.
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Types;
import java.util.ArrayList;
import java.util.List;

public class FlywayRun {
    static final String HISTORY = "\"public\".\"flyway_schema_history\"";
    static final String COLUMNS = "\"installed_rank\", \"version\", \"description\", \"type\", \"script\", \"checksum\", "
        + "\"installed_by\", \"execution_time\", \"success\"";
    static final long LOCK = 77433833903597L;

    record Migration(String version, String description, List<String> statements) {}

    static final List<Migration> FIRST = List.of(
        new Migration("1", "make invoices", List.of(
            "CREATE TABLE invoices (id SERIAL PRIMARY KEY, user_id INT NOT NULL REFERENCES users (id), "
                + "total NUMERIC(10, 2) NOT NULL)")),
        new Migration("2", "note invoices", List.of(
            "ALTER TABLE invoices ADD COLUMN note VARCHAR(50)",
            "CREATE INDEX invoices_note ON invoices (note)",
            "INSERT INTO invoices (user_id, total) SELECT id, 10 FROM users WHERE id <= 3")));
    static final Migration REFUSED = new Migration("3", "give invoices away", List.of(
        "ALTER TABLE invoices ADD COLUMN never INT", "GRANT ALL ON invoices TO PUBLIC"));

    public static void main(String[] arguments) throws Exception {
        try (Flyway flyway = new Flyway()) {
            System.out.println("cloud: " + flyway.isOfACloud());
            System.out.println("up: " + flyway.migrate(FIRST));
        }
        try (Flyway flyway = new Flyway()) {
            System.out.println("again: " + flyway.migrate(FIRST));
        }
        try (Flyway flyway = new Flyway()) {
            List<Migration> all = new ArrayList<>(FIRST);
            all.add(REFUSED);
            System.out.println("up: " + flyway.migrate(all));
        } catch (SQLException refusal) {
            System.out.println("refused: " + refusal.getSQLState() + " " + refusal.getMessage());
        }
        try (Flyway flyway = new Flyway()) {
            List<String> applied = flyway.applied();
            System.out.println("at: " + applied.get(applied.size() - 1));
            System.out.println("rows: " + flyway.one("SELECT count(*) FROM invoices"));
        }
    }

    static class Flyway implements AutoCloseable {
        final Connection connection;
        final String user;
        final String path;

        Flyway() throws SQLException {
            connection = DriverManager.getConnection(
                "jdbc:postgresql://db.internal/orders?sslmode=verify-full&sslrootcert=" + System.getenv("PGSSLROOTCERT"),
                "whoever", "whatever");
            one("SELECT version()");
            path = one("SHOW search_path");
            user = one("SELECT CURRENT_USER");
            one("SELECT current_schema");
        }

        /** Asked at each start; it goes on without an answer. */
        String isOfACloud() {
            try {
                return one("SELECT rolname FROM pg_roles WHERE rolname ILIKE 'rds_superuser'");
            } catch (SQLException refusal) {
                return refusal.getSQLState();
            }
        }

        int migrate(List<Migration> migrations) throws SQLException {
            one("SELECT COUNT(*) FROM pg_namespace WHERE nspname=?", "public");
            if (!has("flyway_schema_history")) {
                isEmpty();
                begin();
                say("CREATE TABLE " + HISTORY + " (\n    \"installed_rank\" INT NOT NULL,\n    \"version\" VARCHAR(50),\n"
                    + "    \"description\" VARCHAR(200) NOT NULL,\n    \"type\" VARCHAR(20) NOT NULL,\n"
                    + "    \"script\" VARCHAR(1000) NOT NULL,\n    \"checksum\" INTEGER,\n"
                    + "    \"installed_by\" VARCHAR(100) NOT NULL,\n    \"installed_on\" TIMESTAMP NOT NULL DEFAULT now(),\n"
                    + "    \"execution_time\" INTEGER NOT NULL,\n    \"success\" BOOLEAN NOT NULL\n)");
                say("INSERT INTO " + HISTORY + " (" + COLUMNS + ") VALUES (1, '0', '<< Flyway Baseline >>', 'BASELINE', "
                    + "'<< Flyway Baseline >>', NULL, '" + user + "', 0, TRUE)");
                say("ALTER TABLE " + HISTORY
                    + " ADD CONSTRAINT \"flyway_schema_history_pk\" PRIMARY KEY (\"installed_rank\")");
                say("CREATE INDEX \"flyway_schema_history_s_idx\" ON " + HISTORY + " (\"success\")");
                connection.commit();
                connection.setAutoCommit(true);
                restore();
            }
            int done = 0;
            for (Migration migration : migrations) {
                List<String> applied = applied();
                if (applied.contains(migration.version())) continue;
                begin();
                try {
                    for (String statement : migration.statements()) say(statement);
                    note(applied.size() + 1, migration);
                    connection.commit();
                } catch (SQLException failed) {
                    connection.rollback();
                    throw failed;
                } finally {
                    connection.setAutoCommit(true);
                    restore();
                }
                done++;
            }
            return done;
        }

        /** A transaction that nobody else migrates in. */
        void begin() throws SQLException {
            connection.setAutoCommit(false);
            one("SELECT pg_try_advisory_xact_lock(" + LOCK + ")");
            one("SELECT set_config('search_path', ?, false)", path);
        }

        /** Whatever a migration changed: the role is set to what it was, by its name. */
        void restore() throws SQLException {
            say("SET ROLE '" + user + "'");
            one("SELECT set_config('search_path', ?, false)", path);
        }

        boolean has(String table) throws SQLException {
            return one("SELECT EXISTS (\n  SELECT 1\n  FROM   pg_catalog.pg_class c\n"
                + "  JOIN   pg_catalog.pg_namespace n ON n.oid = c.relnamespace\n  WHERE  n.nspname = ?\n"
                + "  AND    c.relname = ?\n  AND    c.relkind = 'r'\n)", "public", table).equals("t");
        }

        boolean isEmpty() throws SQLException {
            return one("SELECT EXISTS (\n    SELECT c.oid FROM pg_catalog.pg_class c\n"
                + "    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace\n"
                + "    LEFT JOIN pg_catalog.pg_depend d ON d.objid = c.oid AND d.deptype = 'e'\n"
                + "    WHERE  n.nspname = ? AND d.objid IS NULL AND c.relkind IN ('r', 'v', 'S', 't')\n"
                + "  UNION ALL\n    SELECT t.oid FROM pg_catalog.pg_type t\n"
                + "    JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace\n"
                + "    LEFT JOIN pg_catalog.pg_depend d ON d.objid = t.oid AND d.deptype = 'e'\n"
                + "    WHERE n.nspname = ? AND d.objid IS NULL AND t.typcategory NOT IN ('A', 'C')\n"
                + "  UNION ALL\n    SELECT p.oid FROM pg_catalog.pg_proc p\n"
                + "    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace\n"
                + "    LEFT JOIN pg_catalog.pg_depend d ON d.objid = p.oid AND d.deptype = 'e'\n"
                + "    WHERE n.nspname = ? AND d.objid IS NULL\n)", "public", "public", "public").equals("f");
        }

        List<String> applied() throws SQLException {
            List<String> versions = new ArrayList<>();
            try (PreparedStatement asked = connection.prepareStatement(
                    "/*NO LOAD BALANCE*/\nSELECT \"installed_rank\",\"version\",\"description\",\"type\",\"script\",\"checksum\","
                        + "\"installed_on\",\"installed_by\",\"execution_time\",\"success\" FROM " + HISTORY
                        + " WHERE \"installed_rank\" > ? ORDER BY \"installed_rank\"")) {
                asked.setInt(1, -1);
                try (var rows = asked.executeQuery()) {
                    while (rows.next()) versions.add(rows.getString("version"));
                }
            }
            return versions;
        }

        void note(int rank, Migration migration) throws SQLException {
            try (PreparedStatement noted = connection.prepareStatement(
                    "INSERT INTO " + HISTORY + " (" + COLUMNS + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")) {
                noted.setInt(1, rank);
                noted.setString(2, migration.version());
                noted.setString(3, migration.description());
                noted.setString(4, "SQL");
                noted.setString(5, "V" + migration.version() + ".sql");
                noted.setObject(6, migration.hashCode(), Types.INTEGER);
                noted.setString(7, user);
                noted.setInt(8, 3);
                noted.setBoolean(9, true);
                noted.executeUpdate();
            }
        }

        void say(String text) throws SQLException {
            try (Statement statement = connection.createStatement()) {
                statement.execute(text);
            }
        }

        String one(String text, String... values) throws SQLException {
            try (PreparedStatement asked = connection.prepareStatement(text)) {
                for (int place = 0; place < values.length; place++) asked.setString(place + 1, values[place]);
                try (var rows = asked.executeQuery()) {
                    return rows.next() ? rows.getString(1) : null;
                }
            }
        }

        public void close() throws SQLException {
            connection.close();
        }
    }
}
