//! Launching is policy's to permit: by program, user, capabilities, and whether anything is carried out.

use interceptor_tests::{
    Setup,
    process::{PATIENCE, wait_until},
};

const RULES: &str = r#"
@id("shells")
permit (principal == Agent::"release-bot", action == Action::"launch", resource == Program::"/usr/bin/true")
when { resource.capabilities.isEmpty() && resource.profile == "" && context.mode == Mode::"enforce" && context.launcher_user == "root" };

@id("no-root")
@say("agents are not root")
forbid (principal, action == Action::"launch", resource is Program)
when { resource.user == "root" };
"#;

#[test]
fn what_no_rule_permits_is_not_launched() {
    let installation = Setup::empty().policy("10-launch.cedar", RULES).start();
    let run = |options: &[&str], program: &str| {
        let mut options = options.to_vec();
        options.extend(["--agent", "release-bot"]);
        interceptor_tests::process::run(installation.captured_with(&options, &[program]))
    };
    run(&[], "/usr/bin/true").succeeded();
    run(&[], "/usr/bin/id").failed().says("policy does not permit the launch").says("no rule permits it");
    run(&["--capability", "net_raw"], "/usr/bin/true").failed().says("with net_raw");
    run(&["--observe", "--reason", "to see"], "/usr/bin/true").failed().says("no rule permits it");
    installation
        .interceptor(&["run", "--user", "root", "--agent", "release-bot", "--", "/usr/bin/true"])
        .failed()
        .says("forbidden by `no-root`");
    installation
        .interceptor(&["run", "--user", "nobody", "--", "/usr/bin/true"])
        .failed()
        .says("policy does not permit the launch");
    let tail = || installation.interceptor(&["audit", "tail", "--all"]).succeeded();
    wait_until("the record of the last", PATIENCE, || tail().stdout.contains("as unknown, by root: "));
    let told = tail();
    assert_eq!(told.stdout.matches("as release-bot, by root: ").count(), 4, "{told}");
    assert_eq!(told.stdout.matches("as unknown, by root: ").count(), 1, "{told}");
    installation.finish();
}
