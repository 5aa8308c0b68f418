//! The closed list of commands: what each does, and to which of its arguments.
//!
//! Promise: a command that is not listed is not known, whatever it is called. Where a command may do several things, all
//! of them are listed: what overwrites both inserts and updates, what answers with what it changes reads too. Source:
//! the server's own `COMMAND INFO` (redis.io, "Key specifications"); `tests/tests/e2e/redis_commands.rs` holds the list against it.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use interceptor_core::model::Verb::{
    self, AccessChange, DataDelete, DataInsert, DataRead, DataTruncate, DataUpdate, FunctionCall,
    Maintenance, Notify, SchemaAlter, SchemaCreate, SchemaDrop, ServerReach, SessionChange, Transaction,
};

/// One thing that a command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    /// To each key from argument `first` to `last`, every `step`th. A negative `last` counts from the end.
    Keys { verbs: &'static [Verb], first: usize, last: isize, step: usize },
    /// To as many keys as argument `at` says, which stand behind it.
    Counted { verbs: &'static [Verb], at: usize },
    /// To something that its arguments do not name.
    On { verb: Verb, thing: Thing },
    /// As a rule of its own says.
    By(Rule),
}

/// What is acted on where no argument names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thing {
    /// The resource.
    Resource,
    /// Every key.
    AllKeys,
    /// A setting of the session.
    Setting(&'static str),
}

/// Commands whose arguments decide more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// SET reads with GET.
    Set,
    /// SORT, SORT_RO: BY, GET, STORE.
    Sort,
    /// GEORADIUS, GEORADIUSBYMEMBER: STORE and STOREDIST from this argument on.
    Geo { from: usize },
    /// XREAD: STREAMS.
    Xread,
    /// XREADGROUP: STREAMS behind GROUP.
    Xreadgroup,
    /// XADD removes with MAXLEN and MINID.
    Xadd,
    /// MIGRATE: KEYS, COPY, AUTH.
    Migrate,
    /// Channels from argument 1 on; or only that one.
    Channels { verbs: Many },
    /// A pattern of keys at argument 1.
    KeysPattern,
    /// SCAN: MATCH.
    Scan,
    /// SELECT: a database.
    Select,
    /// FCALL: a function.
    Fcall,
}

/// How many arguments a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Many {
    /// One channel.
    One,
    /// All that follow.
    All,
    /// All that follow, as patterns.
    Patterns,
}

/// How the relay of a command goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// One answer.
    Plain,
    /// Its argument is never sent, and it is answered here.
    Auth,
    /// Sent without its log-in.
    Hello,
    Multi,
    Exec,
    Discard,
    Subscribe,
    Unsubscribe,
    Quit,
    /// Something that cannot be relayed, and why.
    Never(&'static str),
}

/// Commands that do the same.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) names: &'static [&'static str],
    pub(super) does: &'static [Does],
    pub(super) course: Course,
}

const READ: &[Verb] = &[DataRead];
const PUT: &[Verb] = &[DataInsert, DataUpdate];
const READ_PUT: &[Verb] = &[DataRead, DataInsert, DataUpdate];
const UPDATE: &[Verb] = &[DataUpdate];
const READ_UPDATE: &[Verb] = &[DataRead, DataUpdate];
const END: &[Verb] = &[DataUpdate, DataDelete];
const DELETE: &[Verb] = &[DataDelete];
const TAKE: &[Verb] = &[DataRead, DataDelete];
const STORE: &[Verb] = &[DataInsert, DataUpdate, DataDelete];
const ANYTHING: &[Verb] = &[DataRead, DataInsert, DataUpdate, DataDelete];

const fn key(verbs: &'static [Verb], at: usize) -> Does {
    Does::Keys { verbs, first: at, last: at.cast_signed(), step: 1 }
}

const fn keys(verbs: &'static [Verb], first: usize, last: isize) -> Does {
    Does::Keys { verbs, first, last, step: 1 }
}

const fn counted(verbs: &'static [Verb], at: usize) -> Does {
    Does::Counted { verbs, at }
}

const fn on(verb: Verb, thing: Thing) -> Does {
    Does::On { verb, thing }
}

const fn plain(names: &'static [&'static str], does: &'static [Does]) -> Family {
    Family { names, does, course: Course::Plain }
}

const fn course(names: &'static [&'static str], does: &'static [Does], course: Course) -> Family {
    Family { names, does, course }
}

const fn never(names: &'static [&'static str], why: &'static str) -> Family {
    Family { names, does: &[], course: Course::Never(why) }
}

use Thing::{AllKeys, Resource, Setting};

/// Every command.
pub(super) const FAMILIES: &[Family] = &[
    // Nothing in particular is read.
    plain(
        &[
            "ping",
            "echo",
            "time",
            "lolwut",
            "info",
            "role",
            "lastsave",
            "wait",
            "dbsize",
            "command",
            "command count",
            "command docs",
            "command getkeys",
            "command getkeysandflags",
            "command help",
            "command info",
            "command list",
            "acl cat",
            "acl genpass",
            "acl help",
            "acl whoami",
            "client getname",
            "client getredir",
            "client help",
            "client id",
            "client info",
            "client trackinginfo",
            "cluster countkeysinslot",
            "cluster help",
            "cluster info",
            "cluster keyslot",
            "cluster links",
            "cluster myid",
            "cluster nodes",
            "cluster shards",
            "cluster slots",
            "config help",
            "function dump",
            "function help",
            "function list",
            "function stats",
            "latency help",
            "memory help",
            "module help",
            "object help",
            "pubsub help",
            "script exists",
            "script help",
            "slowlog help",
            "xgroup help",
            "xinfo help",
        ],
        &[on(DataRead, Resource)],
    ),
    plain(&["randomkey", "cluster getkeysinslot"], &[on(DataRead, AllKeys)]),
    plain(&["keys"], &[Does::By(Rule::KeysPattern)]),
    plain(&["scan"], &[Does::By(Rule::Scan)]),
    // Reads of keys.
    plain(
        &[
            "get",
            "strlen",
            "getrange",
            "substr",
            "getbit",
            "bitcount",
            "bitpos",
            "bitfield_ro",
            "ttl",
            "pttl",
            "expiretime",
            "pexpiretime",
            "type",
            "dump",
            "hget",
            "hmget",
            "hgetall",
            "hkeys",
            "hvals",
            "hlen",
            "hexists",
            "hstrlen",
            "hrandfield",
            "hscan",
            "lindex",
            "llen",
            "lrange",
            "lpos",
            "scard",
            "sismember",
            "smismember",
            "smembers",
            "srandmember",
            "sscan",
            "zcard",
            "zcount",
            "zlexcount",
            "zmscore",
            "zrandmember",
            "zrange",
            "zrangebylex",
            "zrangebyscore",
            "zrank",
            "zrevrange",
            "zrevrangebylex",
            "zrevrangebyscore",
            "zrevrank",
            "zscan",
            "zscore",
            "xlen",
            "xrange",
            "xrevrange",
            "xpending",
            "geodist",
            "geohash",
            "geopos",
            "geosearch",
            "georadius_ro",
            "georadiusbymember_ro",
        ],
        &[key(READ, 1)],
    ),
    plain(&["exists", "touch", "mget", "sdiff", "sinter", "sunion", "pfcount"], &[keys(READ, 1, -1)]),
    plain(&["lcs"], &[keys(READ, 1, 2)]),
    plain(&["sintercard", "zdiff", "zinter", "zintercard", "zunion"], &[counted(READ, 1)]),
    plain(
        &[
            "object encoding",
            "object freq",
            "object idletime",
            "object refcount",
            "memory usage",
            "xinfo consumers",
            "xinfo groups",
            "xinfo stream",
        ],
        &[key(READ, 2)],
    ),
    plain(&["xread"], &[Does::By(Rule::Xread)]),
    plain(&["xreadgroup"], &[Does::By(Rule::Xreadgroup)]),
    plain(&["sort", "sort_ro"], &[key(READ, 1), Does::By(Rule::Sort)]),
    // What writes.
    plain(&["set"], &[key(PUT, 1), Does::By(Rule::Set)]),
    plain(
        &[
            "append",
            "setnx",
            "setex",
            "psetex",
            "setrange",
            "hset",
            "hmset",
            "hsetnx",
            "lpush",
            "lpushx",
            "rpush",
            "rpushx",
            "linsert",
            "sadd",
            "zadd",
            "geoadd",
            "pfadd",
            "restore",
            "restore-asking",
        ],
        &[key(PUT, 1)],
    ),
    plain(
        &[
            "incr",
            "decr",
            "incrby",
            "decrby",
            "incrbyfloat",
            "hincrby",
            "hincrbyfloat",
            "zincrby",
            "getset",
            "setbit",
            "bitfield",
        ],
        &[key(READ_PUT, 1)],
    ),
    plain(&["mset", "msetnx"], &[Does::Keys { verbs: PUT, first: 1, last: -1, step: 2 }]),
    plain(&["xadd"], &[key(PUT, 1), Does::By(Rule::Xadd)]),
    plain(&["lset", "persist", "xack", "xsetid"], &[key(UPDATE, 1)]),
    plain(&["xclaim", "xautoclaim"], &[key(ANYTHING, 1)]),
    plain(&["xgroup create"], &[key(PUT, 2)]),
    plain(&["xgroup createconsumer", "xgroup setid"], &[key(UPDATE, 2)]),
    plain(&["xgroup delconsumer", "xgroup destroy"], &[key(DELETE, 2)]),
    // A time to live that is over removes at once.
    plain(&["expire", "expireat", "pexpire", "pexpireat"], &[key(END, 1)]),
    plain(&["getex"], &[key(&[DataRead, DataUpdate, DataDelete], 1)]),
    plain(&["getdel", "lpop", "rpop", "spop", "zpopmax", "zpopmin"], &[key(TAKE, 1)]),
    plain(&["blpop", "brpop", "bzpopmax", "bzpopmin"], &[keys(TAKE, 1, -2)]),
    plain(&["lmpop", "zmpop"], &[counted(TAKE, 1)]),
    plain(&["blmpop", "bzmpop"], &[counted(TAKE, 2)]),
    plain(&["del", "unlink"], &[keys(DELETE, 1, -1)]),
    plain(
        &[
            "hdel",
            "lrem",
            "ltrim",
            "srem",
            "zrem",
            "zremrangebylex",
            "zremrangebyrank",
            "zremrangebyscore",
            "xdel",
            "xtrim",
        ],
        &[key(DELETE, 1)],
    ),
    plain(
        &["rename", "renamenx", "lmove", "blmove", "rpoplpush", "brpoplpush", "smove"],
        &[key(TAKE, 1), key(PUT, 2)],
    ),
    plain(&["copy"], &[key(READ, 1), key(PUT, 2)]),
    plain(&["move"], &[key(&[DataRead, DataInsert, DataDelete], 1)]),
    plain(&["sdiffstore", "sinterstore", "sunionstore"], &[key(STORE, 1), keys(READ, 2, -1)]),
    plain(&["pfmerge"], &[key(READ_PUT, 1), Does::Keys { verbs: READ, first: 2, last: -1, step: 1 }]),
    plain(&["bitop"], &[key(STORE, 2), keys(READ, 3, -1)]),
    plain(&["zdiffstore", "zinterstore", "zunionstore"], &[key(STORE, 1), counted(READ, 2)]),
    plain(&["zrangestore", "geosearchstore"], &[key(STORE, 1), key(READ, 2)]),
    plain(&["georadius"], &[key(READ, 1), Does::By(Rule::Geo { from: 6 })]),
    plain(&["georadiusbymember"], &[key(READ, 1), Does::By(Rule::Geo { from: 5 })]),
    plain(&["flushall", "flushdb"], &[on(DataTruncate, AllKeys)]),
    plain(&["swapdb"], &[on(DataInsert, AllKeys), on(DataUpdate, AllKeys), on(DataDelete, AllKeys)]),
    // Transactions.
    course(&["multi"], &[on(Transaction, Resource)], Course::Multi),
    course(&["exec"], &[on(Transaction, Resource)], Course::Exec),
    course(&["discard"], &[on(Transaction, Resource)], Course::Discard),
    plain(&["unwatch"], &[on(Transaction, Resource)]),
    plain(&["watch"], &[on(Transaction, Resource), keys(READ, 1, -1)]),
    // Channels.
    plain(&["publish", "spublish"], &[Does::By(Rule::Channels { verbs: Many::One })]),
    course(&["subscribe", "ssubscribe"], &[Does::By(Rule::Channels { verbs: Many::All })], Course::Subscribe),
    course(&["psubscribe"], &[Does::By(Rule::Channels { verbs: Many::Patterns })], Course::Subscribe),
    course(&["unsubscribe", "punsubscribe", "sunsubscribe"], &[on(Notify, Resource)], Course::Unsubscribe),
    plain(
        &["pubsub channels", "pubsub numpat", "pubsub numsub", "pubsub shardchannels", "pubsub shardnumsub"],
        &[on(Notify, Resource)],
    ),
    // Code that runs in the server: it may touch keys that it does not name.
    plain(&["eval", "evalsha"], &[on(FunctionCall, Resource), counted(ANYTHING, 2)]),
    plain(&["eval_ro", "evalsha_ro"], &[on(FunctionCall, Resource), counted(READ, 2)]),
    plain(&["fcall"], &[Does::By(Rule::Fcall), counted(ANYTHING, 2)]),
    plain(&["fcall_ro"], &[Does::By(Rule::Fcall), counted(READ, 2)]),
    plain(&["script load"], &[on(SchemaCreate, Resource)]),
    plain(&["script flush"], &[on(SchemaDrop, Resource)]),
    plain(
        &["function load", "function restore"],
        &[on(SchemaCreate, Resource), on(SchemaAlter, Resource), on(SchemaDrop, Resource)],
    ),
    plain(&["function delete", "function flush"], &[on(SchemaDrop, Resource)]),
    // The session.
    course(&["auth"], &[], Course::Auth),
    course(&["hello"], &[on(SessionChange, Setting("protocol"))], Course::Hello),
    course(&["quit"], &[], Course::Quit),
    plain(&["select"], &[Does::By(Rule::Select)]),
    plain(&["client setname"], &[on(SessionChange, Setting("client-name"))]),
    // Newer servers have these two; clients ask every server for the first.
    plain(&["client setinfo"], &[on(SessionChange, Setting("client-info"))]),
    plain(&["client no-touch"], &[on(SessionChange, Setting("no-touch"))]),
    plain(&["client tracking", "client caching"], &[on(SessionChange, Setting("tracking"))]),
    plain(&["readonly", "readwrite", "asking"], &[on(SessionChange, Setting("cluster"))]),
    // Who may do what, and how the server is set up.
    plain(
        &[
            "acl deluser",
            "acl dryrun",
            "acl getuser",
            "acl list",
            "acl load",
            "acl log",
            "acl save",
            "acl setuser",
            "acl users",
            "config get",
            "config resetstat",
            "config rewrite",
            "config set",
        ],
        &[on(AccessChange, Resource)],
    ),
    // The server itself. The logs among it have others' commands.
    plain(
        &[
            "bgrewriteaof",
            "bgsave",
            "save",
            "shutdown",
            "client kill",
            "client list",
            "client no-evict",
            "client pause",
            "client unblock",
            "client unpause",
            "function kill",
            "latency doctor",
            "latency graph",
            "latency histogram",
            "latency history",
            "latency latest",
            "latency reset",
            "memory doctor",
            "memory malloc-stats",
            "memory purge",
            "memory stats",
            "module list",
            "pfselftest",
            "script kill",
            "slowlog get",
            "slowlog len",
            "slowlog reset",
        ],
        &[on(Maintenance, Resource)],
    ),
    plain(&["pfdebug"], &[on(Maintenance, Resource), key(READ_UPDATE, 2)]),
    // Other servers, files and programs.
    plain(
        &[
            "cluster addslots",
            "cluster addslotsrange",
            "cluster bumpepoch",
            "cluster count-failure-reports",
            "cluster delslots",
            "cluster delslotsrange",
            "cluster failover",
            "cluster flushslots",
            "cluster forget",
            "cluster meet",
            "cluster replicas",
            "cluster replicate",
            "cluster reset",
            "cluster saveconfig",
            "cluster set-config-epoch",
            "cluster setslot",
            "cluster slaves",
            "debug",
            "failover",
            "module load",
            "module loadex",
            "module unload",
            "replicaof",
            "slaveof",
        ],
        &[on(ServerReach, Resource)],
    ),
    plain(&["migrate"], &[on(ServerReach, Resource), Does::By(Rule::Migrate)]),
    // What leaves no answers to attribute, or ends the log-in.
    never(&["monitor"], "it turns the session into a stream of everybody's commands"),
    never(&["sync", "psync", "replconf"], "it turns the session into one of replication"),
    never(&["client reply"], "answers that do not come could not be told apart"),
    never(&["script debug"], "it turns the session into a debugger's"),
    never(&["reset"], "it would end the log-in: open a new connection instead"),
];

/// Commands whose last argument is a value, whatever it is: a long one may pass once the rest is judged.
const ENDS_IN_A_VALUE: &[&str] = &[
    "append", "echo", "getset", "hmset", "hset", "hsetnx", "linsert", "lpush", "lpushx", "lset", "mset",
    "msetnx", "psetex", "publish", "rpush", "rpushx", "sadd", "setex", "setnx", "setrange", "spublish",
    "xadd",
];

static BY_NAME: LazyLock<HashMap<&'static str, &'static Family>> = LazyLock::new(|| {
    FAMILIES.iter().flat_map(|family| family.names.iter().map(move |name| (*name, family))).collect()
});

static CONTAINERS: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    BY_NAME.keys().filter_map(|name| name.split_once(' ')).map(|(container, _)| container).collect()
});

/// A command of the list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// Its name, as it is listed.
    pub(super) name: &'static str,
    pub(super) family: &'static Family,
}

impl Known {
    /// How many arguments its name takes.
    pub(super) fn words(self) -> usize {
        if self.name.contains(' ') { 2 } else { 1 }
    }

    /// Whether its last argument of `count` is a value, so that it decides nothing.
    pub(super) fn ends_in_a_value(self, count: usize) -> bool {
        // Behind the value of SET there may be options.
        ENDS_IN_A_VALUE.contains(&self.name) || (self.name == "set" && count == 3)
    }
}

/// The command that these words name, the second of which is its subcommand where it has any.
pub(super) fn find(first: &[u8], second: Option<&[u8]>) -> Option<Known> {
    /// Longer than any name.
    const LONGEST: usize = 32;
    let lower = |word: &[u8]| {
        (word.len() <= LONGEST).then(|| String::from_utf8(word.to_ascii_lowercase()).ok()).flatten()
    };
    // A name with a space in it is a command and its subcommand, which the server takes apart only.
    let first = lower(first).filter(|first| !first.contains(' '))?;
    let name = match second {
        Some(second) if CONTAINERS.contains(first.as_str()) => format!("{first} {}", lower(second)?),
        _ => first,
    };
    BY_NAME.get_key_value(name.as_str()).map(|(name, family)| Known { name, family })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_stands_once() {
        let all: Vec<_> = FAMILIES.iter().flat_map(|family| family.names).collect();
        assert_eq!(all.len(), BY_NAME.len());
        for name in ENDS_IN_A_VALUE {
            assert!(BY_NAME.contains_key(name), "{name}");
        }
    }

    #[test]
    fn names_are_found_in_any_case_and_only_whole() {
        let name = |first: &str, second: Option<&str>| {
            find(first.as_bytes(), second.map(str::as_bytes)).map(|known| known.name)
        };
        assert_eq!(name("GeT", Some("x")), Some("get"));
        assert_eq!(name("CONFIG", Some("SET")), Some("config set"));
        assert_eq!(name("config", None), None);
        assert_eq!(name("config set", None), None);
        assert_eq!(name("command", None), Some("command"));
        assert_eq!(name("command", Some("nonsense")), None);
        assert_eq!(name("getx", None), None);
    }
}
