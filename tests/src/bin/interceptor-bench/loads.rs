//! What else a database is asked for: transactions that write, pipelines, and rows by the hundred thousand, out and in.

use std::time::Duration;

use anyhow::{Context, Result};
use interceptor_tests::places;

use crate::{
    Extent,
    large::{client, seconds},
    measured::{Measured, Place},
    pgbench::{Amount, Load, Mode, file},
    stage::{Layout, Stage, Transport},
};

const PART: &str = "loads";

/// The transaction of TPC-B, on the one branch that there is: five statements between BEGIN and COMMIT.
const TPC_B: &str = "\\set aid random(1, 100000)\n\\set tid random(1, 10)\n\\set delta random(-5000, 5000)\nBEGIN;\n\
    UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;\n\
    SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n\
    UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;\n\
    INSERT INTO pgbench_history (tid, aid, delta, mtime) VALUES (:tid, :aid, :delta, CURRENT_TIMESTAMP);\n\
    COMMIT;\n";

/// How many statements a pipeline has.
const PIPELINED: usize = 500;

/// How many rows are copied in at once.
const ROWS: &str = "100000";

/// All of it, everything on one core, the targets in turn.
pub(crate) fn part(_: Extent, measured: &mut Measured) -> Result<()> {
    const ROUNDS: usize = 7;
    let mut stage = Stage::start(Layout::OneCore, Transport::Clear)?;
    let script = stage.file("tpc-b.sql", TPC_B);
    let select = "SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n".repeat(PIPELINED);
    let pipeline = stage.file(
        "pipeline.sql",
        &format!("\\set aid random(1, 100000)\n\\startpipeline\n{select}\\endpipeline\n"),
    );
    for round in 0..=ROUNDS {
        for target in 0..stage.targets.len() {
            let known = stage.targets.get(target).context("no such target")?;
            let (name, host, port, kind) = (known.name, known.host, known.port, known.client);
            // The first round only warms up.
            let mut kept = (round > 0).then_some(&mut *measured);
            for clients in [1, 8] {
                let load = format!("TPC-B, {clients} {}", if clients == 1 { "client" } else { "clients" });
                let amount = Amount::For(Duration::from_secs(1));
                let call = Load { script: &script, mode: Mode::Simple, clients, amount, more: "" };
                file(&call, (&mut stage, target), (PART, &load), kept.as_deref_mut())?;
            }
            let amount = Amount::For(Duration::from_secs(1));
            let call = Load { script: &pipeline, mode: Mode::Prepared, clients: 1, amount, more: "" };
            let load = format!("pipelines of {PIPELINED}, prepared");
            file(&call, (&mut stage, target), (PART, &load), kept.as_deref_mut())?;
            let copied_in = {
                let program = places::interceptor().with_file_name("bench-client");
                format!("{} {host} {port} copy-in copied {ROWS}", program.display())
            };
            for (load, line) in [
                ("COPY of 100 000 rows, out", client(host, port, "rows", "COPY pgbench_accounts TO STDOUT")),
                ("COPY of 100 000 rows, in", copied_in),
                (
                    "1 000 000 rows",
                    client(host, port, "rows", "SELECT n, n, n FROM generate_series(1, 1000000) AS n"),
                ),
            ] {
                let said = stage.client(kind).tell(&line)?;
                if let Some(measured) = &mut kept {
                    measured.add(
                        Place { part: PART, load, target: name },
                        "rate",
                        "1/s",
                        1.0 / seconds(&said)?,
                    );
                }
            }
        }
    }
    stage.finish();
    Ok(())
}
