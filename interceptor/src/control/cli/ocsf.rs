//! Records as events of the Open Cybersecurity Schema Framework, for whoever reads many products' events in one place.
//!
//! A statement is Datastore Activity, a log-in Authentication, a look-up of a name DNS Activity, and what never became a
//! session Network Activity. Each event names its record; what OCSF has no field for is under `unmapped`. Bind values
//! are left out: the record has them.

use interceptor_core::model::{
    AgentIdentity, ExecutableDigest, OriginalDestination, OutcomeStatus, Phase, ProcessFacts, RequestRecord,
    Target, Verb, WouldBe,
};
use serde_json::{Map, Value, json};

use crate::store::FullRecord;

/// The version of the schema that the events follow.
const VERSION: &str = "1.3.0";

/// What OCSF calls `Other` and `Unknown` in each of its lists.
const OTHER: u16 = 99;
const UNKNOWN: u16 = 0;

/// A class of events, with its category.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Class {
    uid: u32,
    category: u32,
    /// The attributes `actor` and `device` come with a profile there.
    host: bool,
}

const AUTHENTICATION: Class = Class { uid: 3002, category: 3, host: false };
const NETWORK: Class = Class { uid: 4001, category: 4, host: true };
const DNS: Class = Class { uid: 4003, category: 4, host: true };
const DATASTORE: Class = Class { uid: 6005, category: 6, host: false };

/// One record as one event.
pub(super) fn event(record: &FullRecord) -> Value {
    let request = &record.request;
    let class = class(request);
    let (activity, name) = activity(class, request);
    let mut event = json!({
        "activity_id": activity,
        "activity_name": name,
        "category_uid": class.category,
        "class_uid": class.uid,
        "type_uid": class.uid * 100 + u32::from(activity),
        "time": request.at / 1000,
        "severity_id": if request.verdict.allowed { 1 } else { 3 },
        "metadata": metadata(record, class),
        "actor": actor(request),
        "src_endpoint": source(request),
        "dst_endpoint": destination(request),
        "policy": { "uid": request.verdict.policy, "name": request.verdict.rules.first() },
        "unmapped": unmapped(record),
    });
    if let Value::Object(fields) = &mut event {
        specific(class, record, fields);
        verdict(record, fields);
    }
    without_nothing(event)
}

fn class(request: &RequestRecord) -> Class {
    match request.action.phase {
        Phase::Connect if request.resource.is_some() => AUTHENTICATION,
        Phase::Connect | Phase::Pass | Phase::Launch | Phase::Pull => NETWORK,
        Phase::Resolve => DNS,
        Phase::Query | Phase::Prepare | Phase::Execute | Phase::Cancel => DATASTORE,
    }
}

/// What is done, by the class's own list: of a statement, the gravest of its effects.
fn activity(class: Class, request: &RequestRecord) -> (u16, &'static str) {
    match (class, request.verdict.allowed) {
        (AUTHENTICATION, _) => return (1, "Logon"),
        (NETWORK, true) => return (1, "Open"),
        (NETWORK, false) => return (5, "Refuse"),
        (DNS, _) => return (1, "Query"),
        _ => {}
    }
    let facts = &request.action.facts;
    let each = facts.effects.iter().map(|effect| match effect.verb {
        Verb::Unknown => (0, UNKNOWN, "Unknown"),
        Verb::DataDelete | Verb::DataTruncate => (1, 7, "Delete"),
        Verb::DataUpdate => (2, 2, "Update"),
        Verb::DataInsert => (3, 6, "Create"),
        Verb::DataRead => (5, 4, "Query"),
        other => (4, OTHER, other.as_str()),
    });
    each.min().map_or((UNKNOWN, "Unknown"), |(_, id, name)| (id, name))
}

fn metadata(record: &FullRecord, class: Class) -> Value {
    let profiles: &[&str] = if class.host { &["security_control", "host"] } else { &["security_control"] };
    json!({
        "version": VERSION,
        "product": {
            "name": "interceptor", "vendor_name": "interceptor", "version": env!("CARGO_PKG_VERSION"),
        },
        "profiles": profiles,
        "log_name": "audit",
        "uid": record.id.to_string(),
        "sequence": record.id,
        "correlation_uid": record.request.run.to_string(),
    })
}

fn user(agent: &AgentIdentity) -> Value {
    let groups: Vec<_> = agent.groups.iter().map(|group| json!({ "name": group })).collect();
    json!({
        "name": agent.name, "uid": agent.name, "type_id": OTHER, "type": "AI agent",
        "groups": Some(groups).filter(|groups| !groups.is_empty()),
    })
}

fn actor(request: &RequestRecord) -> Value {
    let session = request.connection.map(|connection| json!({ "uid": connection.to_string() }));
    json!({
        "user": user(&request.agent),
        "session": session,
        "process": request.process.as_deref().map(process),
    })
}

fn process(process: &ProcessFacts) -> Value {
    let file = process.executable.as_deref().map(|path| {
        let name = path.rsplit('/').next().unwrap_or(path);
        // SHA-256 is 3 in OCSF's list of algorithms; a regular file is 1 in that of files.
        let hash = |digest: ExecutableDigest| json!([{ "algorithm_id": 3, "value": digest }]);
        json!({ "name": name, "path": path, "type_id": 1, "hashes": process.digest.map(hash) })
    });
    let parent = process
        .ancestry
        .first()
        .map(|parent| json!({ "pid": parent.pid, "cmd_line": parent.argv.join(" ") }));
    json!({
        "pid": process.pid,
        "cmd_line": process.argv.join(" "),
        "file": file,
        "user": { "uid": process.uid.to_string() },
        "parent_process": parent,
    })
}

fn source(request: &RequestRecord) -> Value {
    // Without an address, such as of a datagram, the run is what is known.
    json!({
        "ip": request.client.map(|client| client.0.ip()),
        "port": request.client.map(|client| client.0.port()),
        "uid": request.run.to_string(),
    })
}

fn destination(request: &RequestRecord) -> Value {
    let resource = request.resource.as_ref().map(|name| name.as_str());
    let resolver = (request.action.phase == Phase::Resolve).then_some("interceptor-resolver");
    let address = request.destination.as_ref().and_then(OriginalDestination::address);
    let path = request.destination.as_ref().and_then(OriginalDestination::path);
    json!({
        "ip": address.map(|address| address.ip()),
        "port": address.map(|address| address.port()),
        "name": path,
        "svc_name": resource.or(resolver).unwrap_or("unknown"),
    })
}

/// What only this class has.
fn specific(class: Class, record: &FullRecord, event: &mut Map<String, Value>) {
    let request = &record.request;
    let principal = &request.principal;
    let mut set = |name: &str, value: Value| drop(event.insert(name.to_owned(), value));
    match class {
        AUTHENTICATION => {
            let user = if principal.user.is_empty() { &principal.claimed_user } else { &principal.user };
            set("user", json!({ "name": user, "uid": user, "type_id": 1 }));
            set("service", json!({ "name": request.resource }));
            set("is_remote", json!(true));
        }
        DNS => {
            let name = request.action.facts.effects.iter().find_map(|effect| match &effect.target {
                Target::Name(name) => Some(name.as_str()),
                _ => None,
            });
            let kind = request.action.text.split(' ').next().unwrap_or_default();
            set("query", json!({ "hostname": name.unwrap_or("unknown"), "type": kind }));
        }
        NETWORK => set("connection_info", json!({ "protocol_name": "tcp", "direction_id": 2 })),
        _ => {
            let resource = request.resource.as_ref().map_or("unknown", |name| name.as_str());
            let name = if principal.database.is_empty() { resource } else { &principal.database };
            set("database", json!({ "name": name, "uid": resource, "type_id": 1 }));
            set("type_id", json!(1));
            set(
                "query_info",
                json!({
                    "uid": record.id.to_string(),
                    "datastore_query": request.action.text,
                    "bytes_out": record.outcome.as_ref().map(|outcome| outcome.bytes),
                }),
            );
            let table = request.action.facts.effects.iter().find_map(|effect| match &effect.target {
                Target::Table(table) => Some(table.shown()),
                _ => None,
            });
            set("table", table.map_or(Value::Null, |name| json!({ "name": name })));
        }
    }
}

/// What was decided, and what came of it.
fn verdict(record: &FullRecord, event: &mut Map<String, Value>) {
    let (verdict, outcome) = (&record.request.verdict, record.outcome.as_ref());
    let status = match (verdict.allowed, outcome.map(|outcome| outcome.status)) {
        (false, _)
        | (true, Some(OutcomeStatus::Failed | OutcomeStatus::Refused | OutcomeStatus::Skipped)) => {
            (2, "Failure")
        }
        (true, Some(OutcomeStatus::Completed)) => (1, "Success"),
        (true, Some(OutcomeStatus::Unknown) | None) => (UNKNOWN, "Unknown"),
    };
    let detail = if verdict.allowed {
        outcome.and_then(|outcome| outcome.message.clone())
    } else {
        Some(verdict.reason.clone())
    };
    let (action, disposition) = if verdict.allowed { (1, 1) } else { (2, 2) };
    let fields = [
        ("status_id", json!(status.0)),
        ("status", json!(status.1)),
        ("status_code", json!(outcome.and_then(|outcome| outcome.code.clone()))),
        ("status_detail", json!(detail.filter(|detail| !detail.is_empty()))),
        ("duration", json!(outcome.and_then(|outcome| outcome.latency_us).map(|us| us / 1000))),
        // Allowed and Denied; Allowed and Blocked.
        ("action_id", json!(action)),
        ("disposition_id", json!(disposition)),
    ];
    event.extend(fields.map(|(name, value)| (name.to_owned(), value)));
}

fn unmapped(record: &FullRecord) -> Value {
    let request = &record.request;
    let verbs: Vec<_> = request.action.facts.effects.iter().map(|effect| effect.verb.as_str()).collect();
    let would_be = request.verdict.would_be.map(|would_be| match would_be {
        WouldBe::Allowed => "allowed",
        WouldBe::Denied => "denied",
        WouldBe::Held => "held",
    });
    json!({
        "record": record.id,
        "author": request.author,
        "run": request.run,
        "owner": request.agent.owner,
        "guarantee": request.guarantee,
        "phase": request.action.phase,
        "verbs": verbs,
        "rules": request.verdict.rules,
        "mode": request.verdict.mode,
        "would_be": would_be,
        "claimed_user": Some(&request.principal.claimed_user).filter(|user| !user.is_empty()),
        "rows": record.outcome.as_ref().and_then(|outcome| outcome.rows),
    })
}

/// Without the attributes that have no value: OCSF leaves them out.
fn without_nothing(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(name, value)| (name, without_nothing(value)))
                .filter(|(_, value)| !value.is_null())
                .collect(),
        ),
        Value::Array(list) => Value::Array(list.into_iter().map(without_nothing).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use interceptor_core::model::{
        AgentIdentity, Author, ClientAddress, ConnectionId, Guarantee, Mode, OriginalDestination,
        OutcomeRecord, Principal, RecordId, RunId, StatementFacts, VerdictRecord,
    };

    use super::*;

    /// What every event must have: `events/base_event.json` of the OCSF schema, version 1.
    const BASE: [&str; 9] = [
        "/activity_id",
        "/category_uid",
        "/class_uid",
        "/metadata/version",
        "/metadata/product/name",
        "/metadata/product/vendor_name",
        "/severity_id",
        "/time",
        "/type_uid",
    ];

    /// What each class must have besides, and of which one is enough: `events/application/datastore_activity.json`,
    /// `events/iam/authentication.json`, `events/network/network.json` and `events/network/dns_activity.json`.
    fn required(class: u64) -> (&'static [&'static str], &'static [&'static str]) {
        match class {
            6005 => (
                &["/actor/user/name", "/src_endpoint"],
                &["/database/type_id", "/databucket/type_id", "/table/name"],
            ),
            3002 => (&["/user/name"], &["/service/name", "/dst_endpoint/svc_name"]),
            4001 => (&["/dst_endpoint"], &["/dst_endpoint/ip", "/dst_endpoint/svc_name"]),
            4003 => (&["/query/hostname"], &["/dst_endpoint/ip", "/dst_endpoint/svc_name"]),
            other => panic!("class {other}"),
        }
    }

    fn record(phase: Phase, verb: Verb, allowed: bool) -> FullRecord {
        let target = match verb {
            Verb::Resolve => Target::Name("db.internal".to_owned()),
            _ => Target::Resource,
        };
        let request = RequestRecord {
            at: 1_700_000_000_123_456,
            author: Author::Agent,
            run: RunId::from_random(7),
            agent: AgentIdentity { name: "bot".parse().unwrap(), owner: None, groups: vec!["ci".to_owned()] },
            guarantee: Guarantee::Structural,
            connection: Some(ConnectionId(3)),
            client: Some(ClientAddress("127.0.0.1:40000".parse().unwrap())),
            destination: Some(OriginalDestination::Address("198.18.0.1:5432".parse().unwrap())),
            process: None,
            resource: (verb != Verb::Resolve).then(|| "orders".parse().unwrap()),
            protocol: "postgres".to_owned(),
            principal: Principal { user: "app".into(), claimed_user: "me".into(), database: "shop".into() },
            action: interceptor_core::model::Action {
                phase,
                text: "a text".into(),
                binds: interceptor_core::model::Binds::new(),
                facts: StatementFacts::single(verb, target).into(),
            },
            frame_sha256: String::new(),
            place: (0, 1),
            verdict: VerdictRecord {
                allowed,
                mode: Mode::Enforce,
                would_be: None,
                rules: vec!["r (p.cedar:1)".to_owned()],
                reason: "because".to_owned(),
                said: None,
                policy: "abc".to_owned(),
                held_for: Vec::new(),
                approval: None,
                break_glass: None,
                rescue: None,
                undo: None,
                masked: Vec::new(),
                tokens: 0,
            },
        };
        let status = if allowed { OutcomeStatus::Completed } else { OutcomeStatus::Refused };
        let outcome = OutcomeRecord {
            at: request.at,
            request: RecordId(9),
            status,
            rows: Some(2),
            bytes: 10,
            latency_us: Some(1500),
            code: None,
            message: None,
            recorded: None,
        };
        FullRecord { id: RecordId(9), request, outcome: Some(outcome) }
    }

    fn check(event: &Value) {
        let class = event["class_uid"].as_u64().unwrap();
        let (all, one) = required(class);
        for path in BASE.iter().chain(all) {
            assert!(event.pointer(path).is_some(), "class {class} lacks {path}: {event:#}");
        }
        assert!(one.iter().any(|path| event.pointer(path).is_some()), "class {class}: {event:#}");
        assert_eq!(event["type_uid"].as_u64(), Some(class * 100 + event["activity_id"].as_u64().unwrap()));
        assert_eq!(event["category_uid"].as_u64(), Some(class / 1000));
        // `Other` says what else.
        assert!(
            event["activity_id"] != 99
                || event["activity_name"].as_str().is_some_and(|name| !name.is_empty())
        );
        fn empty(value: &Value) -> bool {
            match value {
                Value::Null => true,
                Value::Object(fields) => fields.values().any(empty),
                Value::Array(list) => list.iter().any(empty),
                _ => false,
            }
        }
        assert!(!empty(event), "no attribute without a value: {event:#}");
    }

    #[test]
    fn every_kind_of_record_has_what_its_class_requires() {
        let kinds = [
            (Phase::Connect, Verb::Connect, 3002, 1),
            (Phase::Query, Verb::DataRead, 6005, 4),
            (Phase::Execute, Verb::DataInsert, 6005, 6),
            (Phase::Execute, Verb::DataUpdate, 6005, 2),
            (Phase::Query, Verb::DataTruncate, 6005, 7),
            (Phase::Prepare, Verb::SchemaAlter, 6005, 99),
            (Phase::Query, Verb::Unknown, 6005, 0),
            (Phase::Cancel, Verb::Cancel, 6005, 99),
            (Phase::Pass, Verb::Pass, 4001, 1),
            (Phase::Pull, Verb::Pull, 4001, 1),
            (Phase::Resolve, Verb::Resolve, 4003, 1),
        ];
        for (phase, verb, class, activity) in kinds {
            for allowed in [true, false] {
                let event = event(&record(phase, verb, allowed));
                check(&event);
                assert_eq!(event["class_uid"], class, "{phase:?}");
                let activity = if class == 4001 && !allowed { 5 } else { activity };
                assert_eq!(event["activity_id"], activity, "{phase:?} {verb:?}");
                assert_eq!(event["status_id"], if allowed { 1 } else { 2 });
                assert_eq!(event["disposition_id"], if allowed { 1 } else { 2 });
            }
        }
    }

    #[test]
    fn a_record_of_which_little_is_known_is_still_whole() {
        let mut bare = record(Phase::Query, Verb::DataRead, true);
        bare.outcome = None;
        let request = &mut bare.request;
        (request.client, request.destination, request.connection) = (None, None, None);
        (request.resource, request.principal) = (None, Principal::default());
        request.verdict.rules.clear();
        for phase in [Phase::Query, Phase::Connect, Phase::Pass, Phase::Resolve] {
            bare.request.action.phase = phase;
            check(&event(&bare));
        }
    }
}
