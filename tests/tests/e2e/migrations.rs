//! Migration tools under the policy that is written for them.

use interceptor_tests::{
    Bed, Finished, Installation, Job, RunningBed, Setup, installation::orders, places, process::PATIENCE,
};

/// A bed behind the policy for migrations, with the tool's agent.
fn stage() -> (RunningBed, Installation) {
    let bed = Bed::start();
    let installation = Setup::empty()
        .agent("[agent.migrator]\nowner = \"alice\"\n")
        .resource(&orders(&bed, "app", "scram-sha-256"))
        .credential("orders", bed.secret())
        .policy("10-migrations.cedar", include_str!("../../../policies/migrations/10-migrations.cedar"))
        .policy("20-guardrails.cedar", include_str!("../../../policies/migrations/20-guardrails.cedar"))
        .start();
    (bed, installation)
}

/// The invoices have so many columns and rows, and nobody was granted anything.
fn left(bed: &RunningBed, installation: Installation, columns: &str, grant: &str) {
    let all = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'invoices'";
    assert_eq!(bed.admin("orders", all), columns);
    assert_eq!(bed.admin("orders", "SELECT count(*) FROM invoices"), "3");
    let granted = "SELECT count(*) FROM information_schema.role_table_grants WHERE table_name = 'invoices' AND grantee = 'PUBLIC'";
    assert_eq!(bed.admin("orders", granted), "0");
    let ended = installation.ended(grant);
    // Some prepare it first, and get no further.
    let granted = ended.with(grant);
    assert!(granted.len() == 1 && granted[0].status() == "refused", "{granted:?}");
    installation.finish();
}

/// The tool says these lines, and is told of its grant what policy says.
fn says(finished: &Finished, lines: &[&str]) {
    for line in lines.iter().chain(&["Roles and grants are changed by people"]) {
        assert!(finished.stdout.contains(line), "no {line:?} in {finished}");
    }
}

#[test]
fn alembic() {
    let (bed, installation) = stage();
    let script = installation.script("alembic_run.py", include_str!("../clients/alembic_run.py"));
    let python = places::python().display().to_string();
    let finished = installation.run("migrator", &[&python, &script]).succeeded();
    says(&finished, &["up: done", "compared: done", "again: done", "refused: 42501", "at: two", "rows: 3"]);
    // The refused migration took its first half with it.
    left(&bed, installation, "4", "GRANT ALL ON invoices");
}

#[test]
fn rails() {
    let (bed, installation) = stage();
    let script = installation.script("rails_run.rb", include_str!("../clients/rails_run.rb"));
    let finished = installation.run("migrator", &["/usr/bin/ruby", &script]).succeeded();
    says(&finished, &["up: 2", "back: 1", "again: 2", "refused: 42501", "at: 2, rows: 3, columns: 6"]);
    left(&bed, installation, "6", "GRANT ALL ON invoices");
}

#[test]
fn prisma() {
    let (bed, installation) = stage();
    let script = installation.script("prisma_run.cjs", include_str!("../clients/prisma_run.cjs"));
    let mut command = installation.captured("migrator", &["node", &script]);
    command.env("NODE_MODULES", places::prisma());
    // It starts a large program five times.
    let finished = Job::start(command, "").finish(3 * PATIENCE).succeeded();
    says(&finished, &["baseline: 0", "deployed: 0", "again: 0 true", "status: 0 true", "refused: 1"]);
    // Its adapter sends a migration statement by statement, without a transaction: what stood before is done.
    left(&bed, installation, "5", "GRANT ALL ON");
}

/// The tool itself cannot be installed here: what it was seen to send is sent again.
#[test]
fn flyway() {
    let (bed, installation) = stage();
    let script = installation.script("FlywayRun.java", include_str!("../clients/FlywayRun.java"));
    let driver = places::jdbc().display().to_string();
    let command = installation.captured("migrator", &["java", "-cp", &driver, &script]);
    let finished = Job::start(command, "").finish(2 * PATIENCE).succeeded();
    says(&finished, &["cloud: 42501", "up: 2", "again: 0", "refused: 42501", "at: 2", "rows: 3"]);
    left(&bed, installation, "4", "GRANT ALL ON invoices");
}
