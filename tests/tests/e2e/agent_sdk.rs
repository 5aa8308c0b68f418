//! A real coding agent with a scripted model: its tool calls reach the database captured, and it reads why one of
//! them was refused.

use interceptor_tests::{
    Bed, Job, Setup, installation::DSN, leaks, model_api::ModelApi, places, process::PATIENCE,
};

/// The agent's own program, as its package brings it.
fn program() -> std::path::PathBuf {
    let folder = places::node_modules().join("@anthropic-ai");
    let packages = std::fs::read_dir(&folder).expect("the agent's packages");
    let mut found: Vec<_> = packages
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("claude-agent-sdk-linux-"))
        .filter(|entry| !entry.file_name().to_string_lossy().ends_with("-musl"))
        .map(|entry| entry.path().join("claude"))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found.pop().expect("the agent's native program is part of its platform package: run `cargo xtask setup`")
}

/// The SDK, asked once.
const ASK: &str = r#"
import { query } from "SDK";
for await (const message of query({
  prompt: "How many users are there?",
  options: { permissionMode: "bypassPermissions", allowDangerouslySkipPermissions: true, maxTurns: 6,
             pathToClaudeCodeExecutable: process.argv[2], cwd: process.cwd(),
             stderr: (text) => process.stderr.write(text) },
})) {
  if (message.type === "result") console.log("result:", message.subtype, message.result);
}
"#;

#[test]
fn the_agent_reads_why_it_was_refused() {
    let bed = Bed::start();
    let psql = |sql: &str| format!("psql -X -A -t -d '{DSN}' -c \"{sql}\" 2>&1");
    let look = "grep -c ANTHROPIC /proc/self/environ; env | sort | head -100".to_owned();
    let model =
        ModelApi::start(&[psql("SELECT name FROM users WHERE id = 42"), psql("DROP TABLE users"), look]);
    let installation = Setup::of(&bed)
        .resource(&format!(
            "[resource.model]\nhosts = [\"model.internal\"]\nports = [8080]\nupstream = \"127.0.0.1:{}\"\n\
             dial = \"host\"\nkeeps = [\"ANTHROPIC_API_KEY\"]\n",
            model.port()
        ))
        .policy(
            "20-model.cedar",
            "@id(\"model\")\npermit (principal, action == Action::\"pass\", resource == Resource::\"model\");\n",
        )
        .start();
    let sdk = places::node_modules().join("@anthropic-ai/claude-agent-sdk/sdk.mjs");
    let script = installation.script("ask.mjs", &ASK.replace("SDK", &sdk.display().to_string()));
    let agent = program().display().to_string();
    let home = installation.work().display().to_string();
    // `run` gives the agent the home of its user; this user has none.
    let settings = [
        format!("HOME={home}"),
        "ANTHROPIC_BASE_URL=http://model.internal:8080".to_owned(),
        "IS_SANDBOX=1".to_owned(),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1".to_owned(),
    ];
    let mut words = vec!["env"];
    words.extend(settings.iter().map(String::as_str));
    words.extend(["node", &script, &agent]);
    let mut command = installation.captured("release-bot", &words);
    command.env("ANTHROPIC_API_KEY", "sk-ant-for-the-script");
    let mut job = Job::start(command, "");
    let secret = bed.secret().as_bytes().to_vec();
    let slice = installation.places().slice();
    let mut searched = 0;
    while job.is_running() {
        for process in leaks::processes().into_iter().filter(|process| process.cgroup.contains(&slice)) {
            let environment = std::fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
            assert!(!environment.windows(secret.len()).any(|window| window == secret), "in {process:?}");
            // The agent's memory is large; that of the database client is what matters most.
            if process.command.starts_with("psql") || searched < 3 {
                assert_ne!(leaks::memory_contains(process.pid, &secret), Some(true), "in {process:?}");
                searched += 1;
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let finished = job.finish(PATIENCE);
    let results = model.results();
    assert_eq!(results.len(), 3, "three tool results: {results:#?}\n{finished}");
    assert!(results[0].contains("user42"), "{results:#?}");
    assert!(
        results[1].contains("tables are dropped by migrations only"),
        "the agent reads why: {results:#?}"
    );
    assert!(results[1].contains("HINT"), "and what to do next: {results:#?}");
    assert!(finished.stdout.contains("result: success"), "{finished}");

    let records = installation.ended("DROP TABLE users");
    let (select, drop) = (records.one("WHERE id = 42"), records.one("DROP TABLE users"));
    assert!(select.allowed() && select.status() == "completed" && select.at("/outcome/rows") == 1);
    assert!(!drop.allowed() && drop.status() == "refused");
    for exchange in [select, drop] {
        let process = exchange.at("/request/process").to_string();
        assert!(process.contains("psql"), "the process: {process}");
        let ancestry = exchange.at("/request/process/ancestry").to_string();
        assert!(ancestry.contains("claude") && ancestry.contains("node"), "the ancestry: {ancestry}");
        assert!(ancestry.contains("eval"), "the tool call stands in the ancestry, word for word: {ancestry}");
    }
    let passes: Vec<_> = records.agents().filter(|exchange| exchange.phase() == "pass").collect();
    assert!(!passes.is_empty(), "the model API is passed, and recorded as such");
    assert_eq!(bed.admin("orders", "SELECT count(*) FROM users"), "100");
    installation.finish();
}
