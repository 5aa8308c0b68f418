//! What the record is good for: rules from it, candidates judged by it, sessions, events for others, and checkpoints.

use interceptor_tests::{Bed, Installation, RunningBed, Setup, installation::POLICY};
use serde_json::Value;

/// An installation in which psql has read, written and been refused; everything is in the record.
fn lived(bed: &RunningBed) -> Installation {
    let installation = Setup::of(bed).start();
    installation
        .psql(
            "SELECT count(*) FROM users;\nBEGIN;\nINSERT INTO notes (body) VALUES ('one');\nCOMMIT;\n\
             DROP TABLE users;\nDO 'BEGIN END';\nSELECT count(*) FROM notes;\n",
        )
        .says("42501");
    installation.ended("count(*) FROM notes");
    installation
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// A folder with the installation's inventory and these rules.
fn candidate(installation: &Installation, rules: &[(&str, &str)]) -> String {
    let folder = installation.root().join("candidate");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).expect("own folder");
    for name in ["resources.toml", "agents.toml"] {
        std::fs::copy(installation.places().configuration().join(name), folder.join(name)).expect("own file");
    }
    for (name, text) in rules {
        std::fs::write(folder.join(name), text).expect("own file");
    }
    folder.display().to_string()
}

#[test]
fn what_was_done_becomes_rules_under_which_it_could_be_done_again() {
    let bed = Bed::start();
    let installation = lived(&bed);
    let folder = candidate(&installation, &[]);
    let file = format!("{folder}/10-suggested.cedar");
    let said =
        installation.interceptor(&["policy", "suggest", "--dir", &folder, "--write", &file]).succeeded();
    assert!(said.stdout.contains("not understood") || said.stdout.contains("refused at the time"), "{said}");
    installation.interceptor(&["policy", "check", "--dir", &folder]).succeeded();
    installation.interceptor(&["policy", "test", "--dir", &folder]).succeeded().says(" 0 not");
    let rules = std::fs::read_to_string(&file).expect("written");
    assert!(rules.contains("\"data.insert\"") && !rules.contains("unknown\""), "{rules}");
    assert!(!rules.contains("schema.drop"), "what was refused is not proposed unasked: {rules}");
    // Under these rules nothing that was allowed is refused, and nothing else is allowed.
    installation.interceptor(&["policy", "replay", &folder]).succeeded().says("nothing changes");
    let folder = candidate(&installation, &[]);
    std::fs::write(&file, "// mine\n").expect("own file");
    installation
        .interceptor(&["policy", "suggest", "--dir", &folder, "--write", &file])
        .failed()
        .says("exists already");
    assert_eq!(std::fs::read_to_string(&file).expect("own file"), "// mine\n");
    let refused = ["policy", "suggest", "--dir", &folder, "--refused"];
    installation.interceptor(&refused).succeeded().says("schema.drop").says("Left out");
    installation.finish();
}

#[test]
fn a_candidate_is_judged_by_the_past() {
    let bed = Bed::start();
    let installation = lived(&bed);
    let stricter = "@id(\"no-notes\")\nforbid (principal, action in Action::\"data\", resource is Table)\n\
                    when { resource.name == \"notes\" };\n";
    let folder = candidate(&installation, &[("10-test.cedar", POLICY), ("20-more.cedar", stricter)]);
    let replay = installation.interceptor(&["policy", "replay", &folder, "--since", "1h"]);
    assert_eq!(replay.code(), 1, "{replay}");
    assert!(
        replay.stdout.contains("no-notes") && replay.stdout.contains("2 allowed then, refused now"),
        "{replay}"
    );
    let replay = installation.interceptor(&["--json", "policy", "replay", &folder, "--resource", "orders"]);
    let found = lines(&replay.stdout);
    let changes: Vec<_> = found.iter().filter(|line| line.get("record").is_some()).collect();
    assert_eq!(changes.len(), 2, "{replay}");
    for change in changes {
        assert_eq!((&change["before"], &change["after"]), (&"allowed".into(), &"refused".into()));
        assert!(change["statement"].as_str().is_some_and(|text| text.contains("notes")));
    }
    let same = candidate(&installation, &[("10-test.cedar", POLICY)]);
    installation.interceptor(&["policy", "replay", &same]).succeeded().says("nothing changes");
    // A budget is judged by what the record says was spent.
    let budget =
        "@id(\"few\")\nforbid (principal, action, resource) when { context.spent.statements >= 3 };\n";
    let folder = candidate(&installation, &[("10-test.cedar", POLICY), ("20-more.cedar", budget)]);
    let replay = installation.interceptor(&["policy", "replay", &folder]);
    assert!(replay.stdout.contains("few:"), "{replay}");
    installation.finish();
}

#[test]
fn a_session_is_shown_from_its_beginning() {
    let bed = Bed::start();
    let installation = lived(&bed);
    let records = installation.records();
    let id = records.one("DROP TABLE users").id().to_string();
    let shown = installation.interceptor(&["audit", "replay", &id]).succeeded();
    let at = |part: &str| shown.stdout.find(part).unwrap_or_else(|| panic!("no {part:?} in {shown}"));
    assert!(at("+0.000") < at("[connect") && at("[connect") < at("count(*) FROM users"), "{shown}");
    assert!(at("INSERT INTO notes") < at("DROP TABLE users") && shown.stdout.contains("no-drops"), "{shown}");
    assert!(!shown.stdout.contains("look-up"), "{shown}");
    let all = installation.interceptor(&["audit", "replay", &id, "--all"]).succeeded();
    assert!(all.stdout.contains("(gate) look-up"), "{all}");
    let connection = records.one("DROP TABLE users").at("/request/connection").to_string();
    let json =
        installation.interceptor(&["--json", "audit", "replay", &format!("c{connection}")]).succeeded();
    let lines = lines(&json.stdout);
    assert_eq!(lines.len(), shown.stdout.lines().filter(|line| line.starts_with('+')).count());
    assert!(lines.is_sorted_by_key(|line| line["after_us"].as_i64()), "{json}");
    installation.interceptor(&["audit", "replay", "c1"]).failed().says("no record belongs");
    installation.finish();
}

#[test]
fn records_leave_as_ocsf_events() {
    let bed = Bed::start();
    let installation = lived(&bed);
    let events =
        lines(&installation.interceptor(&["audit", "export", "--format", "ocsf"]).succeeded().stdout);
    assert_eq!(events.len(), installation.records().0.len());
    let find = |part: &str| {
        events
            .iter()
            .find(|event| event.to_string().contains(part))
            .unwrap_or_else(|| panic!("no event with {part:?}"))
    };
    let drop = find("DROP TABLE users");
    assert_eq!((drop["class_uid"].as_u64(), drop["disposition_id"].as_u64()), (Some(6005), Some(2)));
    assert_eq!(drop["actor"]["user"]["name"], "release-bot");
    assert!(drop["policy"]["name"].as_str().is_some_and(|rule| rule.starts_with("no-drops")), "{drop:#}");
    assert_eq!(find("INSERT INTO notes")["activity_name"], "Create");
    let logon = events.iter().find(|event| event["class_uid"] == 3002).expect("a log-in");
    assert_eq!((logon["user"]["name"].as_str(), logon["status_id"].as_u64()), (Some("app"), Some(1)));
    assert!(events.iter().any(|event| event["class_uid"] == 4003), "the name was looked up");
    installation.finish();
}

#[test]
fn a_checkpoint_that_was_kept_proves_what_came_since() {
    let bed = Bed::start();
    let mut installation = lived(&bed);
    // What is left is signed when the daemon stops.
    installation.stop();
    let kept = installation.root().join("kept").display().to_string();
    let exported = installation.interceptor(&["audit", "checkpoint", "export", &kept]).succeeded();
    let note =
        exported.stdout.split_whitespace().find(|word| word.ends_with(".note")).expect("a note").to_owned();
    let key = format!("{kept}/log.pub");
    installation.interceptor(&["audit", "checkpoint", "export", &kept]).succeeded();
    installation.start();
    installation.psql("SELECT 'since', count(*) FROM users;\n").says("since|100");
    installation.ended("'since'");
    installation.stop();
    let since = ["audit", "verify", "--key", &key, "--since", &note];
    installation.interceptor(&since).succeeded().says("the record is whole").says("since");
    let segment = installation.places().audit().join("segments/0000000001.jsonl");
    let whole = std::fs::read_to_string(&segment).expect("a segment");
    std::fs::write(&segment, whole.replace("'since'", "'never'")).expect("own file");
    installation.interceptor(&since).failed().says("not the whole record");
    std::fs::write(&segment, &whole).expect("own file");
    installation.interceptor(&since).succeeded();
    installation.finish();
}
