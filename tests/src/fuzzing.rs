//! Every fuzz target of the workspace, with the dictionary that its mutations draw from.

use bytes::BytesMut;
use interceptor_protocols::{mysql, postgres, redis};
use postgres_protocol::message::backend::Message;

/// What is given bytes that nobody vouches for.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, which is also its corpus's: the folder of that name in `fuzz/corpus`.
    pub name: &'static str,
    /// Takes one input; a panic is the finding.
    pub run: fn(&[u8]),
    /// The stem of its dictionary's name in `fuzz/dictionaries`.
    pub dictionary: &'static str,
    /// The dictionary, in AFL's form.
    pub words: &'static str,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "sql", run: interceptor_core::sql::fuzz, dictionary: "sql", words: SQL },
    Target { name: "mysql-sql", run: interceptor_core::sql::mysql::fuzz, dictionary: "sql", words: SQL },
    Target { name: "policy", run: interceptor_core::policy::fuzz, dictionary: "policy", words: POLICY },
    Target { name: "postgres-client", run: postgres::fuzz_client, dictionary: "postgres", words: POSTGRES },
    Target {
        name: "postgres-upstream",
        run: postgres::fuzz_upstream,
        dictionary: "postgres",
        words: POSTGRES,
    },
    Target { name: "postgres-frames", run: frames, dictionary: "postgres", words: POSTGRES },
    Target { name: "redis-client", run: redis::fuzz_client, dictionary: "redis", words: REDIS },
    Target { name: "redis-upstream", run: redis::fuzz_upstream, dictionary: "redis", words: REDIS },
    Target { name: "mysql-client", run: mysql::fuzz_client, dictionary: "mysql", words: MYSQL },
    Target { name: "mysql-upstream", run: mysql::fuzz_upstream, dictionary: "mysql", words: MYSQL },
    Target {
        name: "helper",
        run: interceptor::helper::messages::fuzz,
        dictionary: "messages",
        words: MESSAGES,
    },
    Target {
        name: "keeper",
        run: interceptor::keeper::messages::fuzz,
        dictionary: "messages",
        words: MESSAGES,
    },
];

const SQL: &str = include_str!("../../fuzz/dictionaries/sql.dict");
const POLICY: &str = include_str!("../../fuzz/dictionaries/policy.dict");
const POSTGRES: &str = include_str!("../../fuzz/dictionaries/postgres.dict");
const REDIS: &str = include_str!("../../fuzz/dictionaries/redis.dict");
const MYSQL: &str = include_str!("../../fuzz/dictionaries/mysql.dict");
const MESSAGES: &str = include_str!("../../fuzz/dictionaries/messages.dict");

/// The target of that name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Our framing held against `postgres-protocol`'s: as long as it reads messages of a server's, each ends where we say.
fn frames(data: &[u8]) {
    let ours = postgres::frames(data);
    let mut rest = BytesMut::from(data);
    for n in 0.. {
        // It would make room for as much as a length says.
        if rest.get(1..5).is_some_and(|length| length > &[0, 16, 0, 0][..]) {
            return;
        }
        let (tag, before) = (rest.first().copied(), rest.len());
        match Message::parse(&mut rest) {
            Ok(Some(_)) => {
                assert_eq!(ours.get(n).copied(), tag.map(|tag| (tag, before - rest.len())), "message {n}");
            }
            Ok(None) => return assert_eq!(ours.len(), n, "neither sees another whole message"),
            // It reads bodies too, and not all kinds of them.
            Err(_) => return,
        }
    }
}

/// The words of a dictionary in AFL's form: a line each, quoted, with `\\xNN`, `\\"` and `\\\\`.
pub fn words(dictionary: &str) -> Vec<Vec<u8>> {
    let quoted = dictionary.lines().filter_map(|line| line.strip_prefix('"')?.strip_suffix('"'));
    quoted.map(|text| unescaped(text.as_bytes())).collect()
}

fn unescaped(mut text: &[u8]) -> Vec<u8> {
    let mut word = Vec::new();
    while let Some((&byte, rest)) = text.split_first() {
        let (found, after) = match (byte, rest) {
            (b'\\', [b'x', digits @ ..]) if digits.len() >= 2 => {
                let mut byte = [0];
                hex::decode_to_slice(&digits[..2], &mut byte).expect("two digits in the dictionary");
                (byte[0], &digits[2..])
            }
            (b'\\', [escaped, after @ ..]) => (*escaped, after),
            _ => (byte, rest),
        };
        word.push(found);
        text = after;
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dictionaries_are_read_as_afl_reads_them() {
        let found = words("# no word\n\"a\\x00\\xfF\\\"\\\\\"\n\n\"SELECT \"\n");
        assert_eq!(found, [b"a\0\xff\"\\".to_vec(), b"SELECT ".to_vec()]);
        for target in TARGETS {
            let lines = target.words.lines().filter(|line| line.starts_with('"')).count();
            assert!(lines > 0 && words(target.words).len() == lines, "{}", target.dictionary);
        }
    }
}
