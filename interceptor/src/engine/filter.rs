//! A container's filter of system calls: the engine's own, less what no run may call.
//!
//! Strategy: the engine's profile is a list of what is allowed. Names go out of it, none comes in, but for the calls that a
//! run may make with some arguments only, and for those on Unix sockets, which wait for the run's porter. A profile that
//! allows what it does not name is refused. Format: "Seccomp" of the OCI runtime specification 1.0 and later.

use std::path::Path;

use interceptor_core::model::RunId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::UnixSockets;

const ALLOW: &str = "SCMP_ACT_ALLOW";
const REFUSE: &str = "SCMP_ACT_ERRNO";
const ASK: &str = "SCMP_ACT_NOTIFY";
/// `ENOSYS`: libraries then use clone(2), whose flags a filter can read.
const UNKNOWN: u32 = 38;
/// Every kind of namespace, as flags of clone(2).
const NAMESPACES: u64 = 0x7e02_0000;
/// The kinds of sockets, without their flags.
const KINDS: u64 = 0xf;
const STREAM: u64 = 1;
const PACKETS: u64 = 5;
const UNIX: u64 = 1;
const INTERNET: [u64; 2] = [2, 10];
const NETLINK: u64 = 16;

/// Calls that are allowed by what is written here, or not at all.
const OURS: &[&str] = &["bind", "clone", "clone3", "connect", "sendto", "socket", "socketpair"];

/// Calls that lead around the hooks or out of the run; as the filter of a run has them.
const NEVER: &[&str] = &[
    "acct",
    "add_key",
    "bpf",
    "clock_settime",
    "delete_module",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_by_handle_at",
    "open_tree",
    "open_tree_attr",
    "perf_event_open",
    "pivot_root",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "setns",
    "settimeofday",
    // Of 32-bit programs: any family by one call.
    "socketcall",
    "swapoff",
    "swapon",
    "syslog",
    "umount",
    "umount2",
    "unshare",
    "userfaultfd",
];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: &str = "SCMP_ARCH_X86_64";
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: &str = "SCMP_ARCH_AARCH64";

/// A profile, as far as it is known.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Profile {
    default_action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    listener_path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    listener_metadata: Option<String>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Rule {
    names: Vec<String>,
    action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    errno_ret: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    args: Vec<Map<String, Value>>,
}

/// The filter of a container of `run`, whose calls on Unix sockets wait at `calls`.
pub(super) fn tightened(
    profile: Value,
    unix: UnixSockets,
    calls: &Path,
    run: RunId,
) -> Result<Value, String> {
    let mut profile: Profile = serde_json::from_value(profile)
        .map_err(|error| format!("the engine's filter of system calls cannot be read: {error}"))?;
    if profile.default_action != REFUSE {
        return Err(format!(
            "the engine's filter of system calls allows what it does not name ({}): let the engine use its own",
            profile.default_action
        ));
    }
    for rule in &mut profile.syscalls {
        match rule.action.as_str() {
            ALLOW => rule.names.retain(|name| !OURS.contains(&&**name) && !NEVER.contains(&&**name)),
            REFUSE => rule.names.retain(|name| !OURS.contains(&&**name)),
            other => {
                return Err(format!(
                    "the engine's filter of system calls has an action {other} that is not known"
                ));
            }
        }
    }
    profile.syscalls.retain(|rule| !rule.names.is_empty());
    profile.syscalls.extend(ours(unix));
    // 32-bit programs end at their first call.
    profile.architectures = vec![ARCHITECTURE.to_owned()];
    profile.flags = Vec::new();
    profile.listener_path =
        Some(calls.to_str().ok_or("the folder of live runs is no plain text")?.to_owned());
    profile.listener_metadata = Some(run.to_string());
    serde_json::to_value(profile).map_err(|error| error.to_string())
}

fn ours(unix: UnixSockets) -> Vec<Rule> {
    let is = |index: u32, value: u64| argument(index, "SCMP_CMP_EQ", value, 0);
    let masked = |index: u32, mask: u64, value: u64| argument(index, "SCMP_CMP_MASKED_EQ", mask, value);
    let allow = |names: &[&str], args: Vec<Map<String, Value>>| rule(names, ALLOW, args);
    let mut rules = vec![
        rule(&["bind", "connect"], ASK, Vec::new()),
        rule(&["sendto"], ASK, vec![argument(4, "SCMP_CMP_NE", 0, 0)]),
        allow(&["sendto"], vec![is(4, 0)]),
        allow(&["clone"], vec![masked(0, NAMESPACES, 0)]),
        Rule { errno_ret: Some(UNKNOWN), ..rule(&["clone3"], REFUSE, Vec::new()) },
        // The only protocol of this family that runs have.
        allow(&["socket"], vec![is(0, NETLINK), is(2, 0)]),
    ];
    rules.extend(INTERNET.map(|family| allow(&["socket"], vec![is(0, family)])));
    match unix {
        UnixSockets::All => rules.push(allow(&["socket", "socketpair"], vec![is(0, UNIX)])),
        UnixSockets::Connected => rules.extend(
            [STREAM, PACKETS]
                .map(|kind| allow(&["socket", "socketpair"], vec![is(0, UNIX), masked(1, KINDS, kind)])),
        ),
    }
    rules
}

fn rule(names: &[&str], action: &str, args: Vec<Map<String, Value>>) -> Rule {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Rule { names, action: action.to_owned(), errno_ret: None, args }
}

fn argument(index: u32, op: &str, value: u64, value_two: u64) -> Map<String, Value> {
    let made = json!({ "index": index, "value": value, "valueTwo": value_two, "op": op });
    made.as_object().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(profile: Value) -> Result<Value, String> {
        tightened(profile, UnixSockets::All, Path::new("/run/x"), RunId::from_random(7))
    }

    #[test]
    fn names_go_out_and_none_comes_in() {
        let made = tried(json!({
            "defaultAction": REFUSE, "defaultErrnoRet": 1, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": [
                { "names": ["read", "socket", "connect", "bpf", "io_uring_setup", "sendto"], "action": ALLOW },
                { "names": ["unshare"], "action": ALLOW },
                { "names": ["personality"], "action": ALLOW, "args": [{ "index": 0, "value": 8, "op": "SCMP_CMP_EQ" }] },
            ],
        }))
        .expect("it is read");
        let rules = made["syscalls"].as_array().expect("rules");
        assert_eq!(rules[0]["names"], json!(["read"]));
        assert_eq!(rules[1]["names"], json!(["personality"]));
        assert_eq!(made["architectures"].as_array().map(Vec::len), Some(1));
        assert_eq!(made["listenerPath"], "/run/x");
        let asked = |rule: &&Value| rule["action"] == ASK;
        assert_eq!(rules.iter().filter(asked).count(), 2);
    }

    #[test]
    fn a_profile_that_allows_what_it_does_not_name_is_refused() {
        assert!(tried(json!({ "defaultAction": ALLOW })).is_err());
        assert!(tried(json!({ "defaultAction": REFUSE, "more": 1 })).is_err());
        let rule = json!({ "names": ["read"], "action": "SCMP_ACT_NOTIFY" });
        assert!(tried(json!({ "defaultAction": REFUSE, "syscalls": [rule] })).is_err());
        assert!(tried(Value::Null).is_err());
    }
}
