//! The list of Redis' commands, held against the real server's own.

use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
};

use interceptor_core::model::Verb;
use interceptor_protocols::redis::{Listed, listed};
use interceptor_tests::redis::RunningRedis;

/// What the server says.
#[derive(Debug, Clone, PartialEq)]
enum Said {
    Text(String),
    Number(i64),
    List(Vec<Said>),
    Error(String),
    Nothing,
}

impl Said {
    fn text(&self) -> &str {
        if let Self::Text(text) = self { text } else { panic!("no text: {self:?}") }
    }

    fn list(&self) -> &[Self] {
        if let Self::List(list) = self { list } else { panic!("no list: {self:?}") }
    }

    fn number(&self) -> i64 {
        if let Self::Number(number) = self { *number } else { panic!("no number: {self:?}") }
    }
}

struct Server(BufReader<UnixStream>);

impl Server {
    fn ask(&mut self, words: &[&[u8]]) -> Said {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend(format!("${}\r\n", word.len()).bytes().chain(word.iter().copied()).chain(*b"\r\n"));
        }
        self.0.get_mut().write_all(&bytes).expect("own server");
        self.read()
    }

    fn read(&mut self) -> Said {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("own server");
        let (mark, text) = line.trim_end().split_at(1);
        match mark {
            "+" => Said::Text(text.to_owned()),
            "-" => Said::Error(text.to_owned()),
            ":" => Said::Number(text.parse().expect("a number")),
            "$" if text == "-1" => Said::Nothing,
            "$" => {
                let mut value = vec![0; text.parse::<usize>().expect("a length") + 2];
                self.0.read_exact(&mut value).expect("own server");
                value.truncate(value.len() - 2);
                Said::Text(String::from_utf8_lossy(&value).into_owned())
            }
            "*" => Said::List((0..text.parse().expect("a count")).map(|_| self.read()).collect()),
            other => panic!("{other}"),
        }
    }
}

/// One command of the server's.
struct Command {
    name: String,
    /// The least arguments that it takes, its name included.
    least: usize,
    flags: HashSet<String>,
}

fn commands(said: &Said, found: &mut Vec<Command>) {
    for command in said.list() {
        let [name, arity, flags, ..] = command.list() else { panic!("{command:?}") };
        let subcommands = command.list().get(9).expect("subcommands");
        let flags: HashSet<String> = flags.list().iter().map(|flag| flag.text().to_owned()).collect();
        let is_container = !subcommands.list().is_empty() && name.text() != "command";
        if !is_container {
            let least = usize::try_from(arity.number().unsigned_abs()).expect("small");
            found.push(Command { name: name.text().replace('|', " "), least, flags });
        }
        commands(subcommands, found);
    }
}

/// Arguments with which a command is read, where the least that it takes are not enough.
fn arguments(command: &Command) -> Vec<String> {
    let line = match command.name.as_str() {
        "lmpop" => "lmpop 2 a b LEFT",
        "zmpop" => "zmpop 2 a b MIN",
        "blmpop" => "blmpop 0 2 a b LEFT",
        "bzmpop" => "bzmpop 0 2 a b MIN",
        "eval" | "evalsha" | "eval_ro" | "evalsha_ro" | "fcall" | "fcall_ro" => {
            return ["", "x", "2", "a", "b", "c"]
                .iter()
                .enumerate()
                .map(|(place, word)| if place == 0 { command.name.clone() } else { (*word).to_owned() })
                .collect();
        }
        "sintercard" | "zintercard" | "zdiff" | "zinter" | "zunion" => {
            return [command.name.as_str(), "2", "a", "b"].map(str::to_owned).to_vec();
        }
        "zdiffstore" | "zinterstore" | "zunionstore" => {
            return [command.name.as_str(), "d", "2", "a", "b"].map(str::to_owned).to_vec();
        }
        "sort" => "sort a LIMIT 0 1 STORE b",
        "georadius" => "georadius a 1 2 3 m STORE b",
        "georadiusbymember" => "georadiusbymember a m 3 m STOREDIST b",
        "migrate" => "migrate h 1 k 0 5",
        "xread" => "xread COUNT 1 STREAMS a b 0 0",
        "xreadgroup" => "xreadgroup GROUP g c STREAMS a b 0 0",
        "mset" | "msetnx" => "mset a 1 b 2",
        "bitop" => "bitop AND d a b",
        // Of one key alone the server says that it has none.
        "pfmerge" => "pfmerge d a b",
        "blpop" | "brpop" | "bzpopmax" | "bzpopmin" => {
            return [command.name.as_str(), "a", "b", "0"].map(str::to_owned).to_vec();
        }
        name => {
            let mut words: Vec<String> = name.split(' ').map(str::to_owned).collect();
            let more = command.least.saturating_sub(words.len());
            words.extend((0..more).map(|number| format!("k{number}")));
            return words;
        }
    };
    line.split(' ').map(str::to_owned).collect()
}

#[test]
fn every_command_of_the_server_is_listed_as_the_server_has_it() {
    let redis = RunningRedis::start();
    let mut server = Server(BufReader::new(UnixStream::connect(redis.socket()).expect("own server")));
    assert_eq!(server.ask(&[b"AUTH", redis.secret().as_bytes()]), Said::Text("OK".to_owned()));
    let mut found = Vec::new();
    commands(&server.ask(&[b"COMMAND"]), &mut found);
    assert!(found.len() > 300, "{}", found.len());
    let (mut keyed, mut unsent, mut others) = (0, Vec::new(), Vec::new());
    for command in &found {
        let words = arguments(command);
        let bytes: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
        let (effects, keys) = match listed(&bytes) {
            Listed::Known { effects, keys } => (effects, keys),
            Listed::NotSent => {
                unsent.push(command.name.as_str());
                continue;
            }
            Listed::Unknown => panic!("{words:?} is not known"),
        };
        let writes = command.flags.contains("write");
        let only_reads = effects.iter().all(|effect| effect.verb == Verb::DataRead);
        assert!(!writes || !only_reads, "{words:?} writes, and is listed as what reads: {effects:?}");
        let may_do_more = ["admin", "pubsub"].iter().any(|flag| command.flags.contains(*flag));
        assert!(!may_do_more || !only_reads, "{words:?} does more than read: {effects:?}");
        let asked: Vec<&[u8]> =
            [&b"COMMAND"[..], b"GETKEYS"].into_iter().chain(bytes.iter().copied()).collect();
        let theirs = match server.ask(&asked) {
            Said::List(keys) => keys.iter().map(|key| key.text().to_owned()).collect(),
            Said::Error(_) => Vec::new(),
            other => panic!("{words:?}: {other:?}"),
        };
        keyed += usize::from(!theirs.is_empty());
        let (mut ours, mut theirs): (Vec<_>, Vec<_>) = (
            keys.iter().map(|place| words.get(*place).expect("a place of its own").clone()).collect(),
            theirs,
        );
        if command.flags.contains("pubsub") {
            // Channels are no keys to the server, but where they are spread over several of them.
            continue;
        }
        ours.sort();
        theirs.sort();
        if ours != theirs {
            others.push(format!("{words:?}: {ours:?}, the server says {theirs:?}"));
        }
    }
    assert!(others.is_empty(), "{others:#?}");
    assert!(keyed > 150, "{keyed}");
    unsent.sort_unstable();
    let expected =
        ["auth", "client reply", "monitor", "psync", "quit", "replconf", "reset", "script debug", "sync"];
    assert_eq!(unsent, expected);
}
