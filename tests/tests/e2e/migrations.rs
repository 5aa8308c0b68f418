//! Migration tools under the policy that is written for them.

use interceptor_tests::{Bed, Setup, installation::orders, places};

#[test]
fn alembic() {
    let bed = Bed::start();
    let installation = Setup::empty()
        .agent("[agent.migrator]\nowner = \"alice\"\n")
        .resource(&orders(&bed, "app", "scram-sha-256"))
        .credential("orders", bed.secret())
        .policy("10-migrations.cedar", include_str!("../../../policies/migrations/10-migrations.cedar"))
        .policy("20-guardrails.cedar", include_str!("../../../policies/migrations/20-guardrails.cedar"))
        .start();
    let script = installation.script("alembic_run.py", include_str!("../clients/alembic_run.py"));
    let python = places::python().display().to_string();
    let finished = installation.run("migrator", &[&python, &script]).succeeded();
    for line in ["up: done", "compared: done", "again: done", "refused: 42501", "at: two", "rows: 3"] {
        assert!(finished.stdout.contains(line), "no {line:?} in {finished}");
    }
    assert!(finished.stdout.contains("Roles and grants are changed by people"), "{finished}");
    // The refused migration took its first half with it.
    let columns = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'invoices'";
    assert_eq!(bed.admin("orders", columns), "4");
    let records = installation.ended("GRANT ALL ON invoices");
    assert_eq!(records.one("GRANT ALL ON invoices").status(), "refused");
    installation.finish();
}
