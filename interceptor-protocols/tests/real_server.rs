//! The decoder between real clients and a real, private PostgreSQL: a small blocking relay with a judge that refuses
//! what contains a word. `RELAY_HOLD=port` keeps it listening there, to try other clients by hand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use bytes::BytesMut;
use interceptor_core::{
    catalogue::Catalogue,
    model::{Action, ExchangeDigest, OutcomeStatus, Principal, RecordId},
    permit::{Committed, Denial, Held, Judgement, Permit, Records},
    protocol::{Challenge, Decoder, Done, Login, LoginStep, Opening, Proof, Side, Step, UpstreamTls},
};

#[path = "real_server/copy.rs"]
mod copy;
#[path = "real_server/depth.rs"]
mod depth;
#[path = "real_server/large.rs"]
mod large;
#[path = "real_server/names.rs"]
mod names;

struct Written(ExchangeDigest);

impl Committed for Written {
    fn digest(&self) -> ExchangeDigest {
        self.0
    }
    fn records(&self) -> Records {
        Records::new(RecordId(7), 1)
    }
}

fn permit(held: &Held) -> Permit {
    let judgement = Judgement::Allowed { rules: Vec::new(), reason: String::new() };
    Permit::mint(&judgement, &Written(held.digest())).unwrap()
}

fn denial() -> Denial {
    Denial {
        record: Some(RecordId(7)),
        rule: "no-forbidden-words".into(),
        message: "interceptor refused this statement".into(),
        hint: "Ask for something else.".into(),
    }
}

/// What happened, for the assertions.
#[derive(Debug, Default)]
struct Log {
    asked: Vec<String>,
    actions: Vec<Action>,
    gate: usize,
    done: Vec<Done>,
}

fn is_refused(held: &Held) -> bool {
    held.actions().iter().any(|action| {
        action.text.contains("forbidden")
            || action.binds.iter().any(|bind| bind.value.as_deref() == Some("forbidden"))
    })
}

fn log_in(opening: &Opening, upstream: &mut TcpStream) -> (interceptor_core::protocol::Greeting, BytesMut) {
    let principal = Principal {
        user: "postgres".into(),
        claimed_user: opening.claimed.claimed_user.clone(),
        database: "postgres".into(),
    };
    let mut login: Box<dyn Login> =
        interceptor_protocols::find("postgres").unwrap().login(&principal, opening, UpstreamTls::Plaintext);
    let mut input = BytesMut::new();
    loop {
        match login.step(&mut input).unwrap() {
            LoginStep::Send(bytes) => upstream.write_all(&bytes).unwrap(),
            LoginStep::Wait => {
                let mut buffer = [0; 8192];
                let n = upstream.read(&mut buffer).unwrap();
                assert!(n > 0, "the server closed during the log-in");
                input.extend_from_slice(&buffer[..n]);
            }
            LoginStep::Prove(Challenge::Nothing) => {
                let _ = login.prove(Proof::Accepted).unwrap();
            }
            LoginStep::Ready(greeting) => return (greeting, input),
            other => panic!("{other:?}"),
        }
    }
}

/// One connection from its first byte to its end.
fn serve(mut client: TcpStream, server: u16, catalogue: Arc<Catalogue>, log: &Mutex<Log>) {
    let protocol = interceptor_protocols::find("postgres").unwrap();
    let mut decoder: Box<dyn Decoder> = protocol.open(
        catalogue,
        interceptor_core::mask::Labelled::nothing("r"),
        interceptor_core::mask::Tokens::default(),
    );
    let mut upstream: Option<TcpStream> = None;
    // `RELAY_RECORD=folder` keeps a transcript of each connection: how the corpus was made.
    let transcript = std::env::var("RELAY_RECORD").ok().map(|folder| {
        let name = format!("{folder}/{}.txt", client.peer_addr().unwrap().port());
        Mutex::new(std::fs::File::create(name).unwrap())
    });
    let record = |side: char, bytes: &[u8]| {
        if let Some(file) = &transcript {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(file.lock().unwrap(), "{side} {hex}").unwrap();
        }
    };
    let (mut from_client, mut from_upstream) = (BytesMut::new(), BytesMut::new());
    loop {
        let mut moved = true;
        while moved {
            moved = false;
            loop {
                let step = match decoder.step(Side::Client, &mut from_client) {
                    Ok(step) => step,
                    Err(error) => {
                        let _ = client
                            .write_all(&decoder.farewell(&Denial { message: error.to_string(), ..denial() }));
                        return;
                    }
                };
                match step {
                    Step::Wait | Step::Hold => break,
                    Step::Pass(bytes) => write_all(upstream.as_mut().unwrap(), &bytes),
                    Step::Reply(bytes) => client.write_all(&bytes).unwrap(),
                    Step::Open(opening) => {
                        let mut stream = TcpStream::connect(("127.0.0.1", server)).unwrap();
                        let (greeting, rest) = log_in(&opening, &mut stream);
                        from_upstream = rest;
                        let key = greeting.cancel.clone().unwrap();
                        client.write_all(&decoder.opened(&greeting, &key)).unwrap();
                        stream.set_nonblocking(true).unwrap();
                        client.set_nonblocking(true).unwrap();
                        upstream = Some(stream);
                    }
                    Step::Cancel(key) => {
                        let mut stream = TcpStream::connect(("127.0.0.1", server)).unwrap();
                        stream.write_all(&protocol.cancel(&key).unwrap()).unwrap();
                        let _ = stream.read(&mut [0; 1]);
                        return;
                    }
                    Step::Ask(held) => {
                        log.lock().unwrap().actions.extend(held.actions().iter().cloned());
                        log.lock().unwrap().asked.push(
                            held.actions()
                                .iter()
                                .map(|a| {
                                    format!(
                                        "{:?}: {} {:?} {:?}",
                                        a.phase,
                                        a.text,
                                        a.binds
                                            .iter()
                                            .map(|b| (b.r#type.clone(), b.value.clone()))
                                            .collect::<Vec<_>>(),
                                        a.facts.unknown
                                    )
                                })
                                .collect::<Vec<_>>()
                                .join(" | "),
                        );
                        if is_refused(&held) {
                            let refusal = decoder.refuse(held.number(), &denial());
                            write_all(upstream.as_mut().unwrap(), &refusal.upstream);
                            write_all(&mut client, &refusal.client);
                        } else {
                            let number = held.number();
                            let permit = permit(&held);
                            write_all(upstream.as_mut().unwrap(), &held.release(permit).unwrap());
                            decoder.sent(number, interceptor_core::mask::Mask::Nothing);
                        }
                    }
                    Step::Enquire(held) => {
                        log.lock().unwrap().gate += 1;
                        let number = held.number();
                        let permit = permit(&held);
                        write_all(upstream.as_mut().unwrap(), &held.release(permit).unwrap());
                        decoder.sent(number, interceptor_core::mask::Mask::Nothing);
                    }
                    // This relay has no certificate; a client that does not insist goes on in clear.
                    Step::StartTls(bytes) if !bytes.is_empty() => client.write_all(b"N").unwrap(),
                    Step::Close(bytes) => {
                        if let Some(upstream) = &mut upstream {
                            write_all(upstream, &bytes);
                        }
                        return;
                    }
                    other => panic!("{other:?}"),
                }
                moved = true;
            }
            while let Some(server) = &mut upstream {
                let step = match decoder.step(Side::Upstream, &mut from_upstream) {
                    Ok(step) => step,
                    Err(error) => {
                        eprintln!("relay: {error}");
                        write_all(
                            &mut client,
                            &decoder.farewell(&Denial { message: error.to_string(), ..denial() }),
                        );
                        return;
                    }
                };
                match step {
                    Step::Wait | Step::Hold => break,
                    Step::Answer { bytes, done } => {
                        write_all(&mut client, &bytes);
                        log.lock().unwrap().done.extend(done);
                    }
                    Step::Reply(bytes) => write_all(server, &bytes),
                    Step::Close(_) => return,
                    other => panic!("{other:?}"),
                }
                moved = true;
            }
        }
        if !fill(&mut client, &mut from_client, upstream.is_some(), |bytes| record('C', bytes)) {
            return;
        }
        if let Some(upstream) = &mut upstream
            && !fill(upstream, &mut from_upstream, true, |bytes| record('U', bytes))
        {
            return;
        }
        if upstream.is_some() {
            thread::sleep(Duration::from_micros(200));
        }
    }
}

fn write_all(to: &mut TcpStream, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(1)),
            Err(_) => return,
        }
    }
}

fn fill(from: &mut TcpStream, into: &mut BytesMut, polled: bool, record: impl Fn(&[u8])) -> bool {
    let mut buffer = [0; 1 << 16];
    match from.read(&mut buffer) {
        Ok(0) => false,
        Ok(n) => {
            record(&buffer[..n]);
            into.extend_from_slice(&buffer[..n]);
            true
        }
        Err(error) => polled && error.kind() == ErrorKind::WouldBlock,
    }
}

/// A private cluster that goes away with this value.
struct Cluster {
    folder: PathBuf,
    port: u16,
    bin: PathBuf,
}

fn as_server_user(program: &Path) -> Command {
    // The server refuses to run as root.
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(program);
    command
}

/// A port that nobody is given by chance before the server takes it, which is seconds later: the connection that was closed
/// from its side keeps it from that for a minute. By its number it can be had, with `SO_REUSEADDR`.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    drop(accepted);
    drop(client);
    address.port()
}

impl Cluster {
    fn start() -> Self {
        let bin = ["15", "16", "17", "18"]
            .iter()
            .map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin")))
            .find(|bin| bin.join("initdb").exists())
            .expect("PostgreSQL's server programs; install Debian's `postgresql`");
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("interceptor-wire-{}-{port}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let _ = Command::new("chown").arg("nobody").arg(&folder).status();
        let data = folder.join("data");
        let ran = as_server_user(&bin.join("initdb"))
            .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(&data)
            .current_dir("/")
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(ran.success());
        let ran = as_server_user(&bin.join("pg_ctl"))
            .args(["-w", "-D"])
            .arg(&data)
            .arg("-l")
            .arg(folder.join("log"))
            .arg("-o")
            .arg(format!(
                "-p {port} -c listen_addresses=127.0.0.1 -k {} -c fsync=off -c log_statement=all",
                folder.display()
            ))
            .arg("start")
            .current_dir("/")
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(ran.success());
        Self { folder, port, bin }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = as_server_user(&self.bin.join("pg_ctl"))
            .args(["-w", "-m", "immediate", "-D"])
            .arg(self.folder.join("data"))
            .arg("stop")
            .current_dir("/")
            .stdout(Stdio::null())
            .status();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn listen(port: u16, server: u16) -> (u16, Arc<Mutex<Log>>) {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let log = Arc::new(Mutex::new(Log::default()));
    let shared = log.clone();
    let catalogue = Arc::new(Catalogue::new(|| 0));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, catalogue, log) = (stream.unwrap(), catalogue.clone(), shared.clone());
            stream.set_nodelay(true).unwrap();
            thread::spawn(move || serve(stream, server, catalogue, &log));
        }
    });
    (port, log)
}

fn psql(port: u16, script: &str) -> String {
    let mut child = Command::new("psql")
        .args(["-X", "-A", "-t", "-d"])
        .arg(format!("host=127.0.0.1 port={port} user=agent dbname=postgres sslmode=disable"))
        .env("PGCLIENTENCODING", "UTF8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[test]
fn psql_works_is_refused_and_goes_on() {
    let cluster = Cluster::start();
    let hold = std::env::var("RELAY_HOLD").ok().and_then(|port| port.parse().ok());
    let (port, log) = listen(hold.unwrap_or(0), cluster.port);
    let out = psql(
        port,
        "create table users (id int, name text);\n\
         insert into users values (1, 'ann'), (2, 'ben');\n\
         select name from users order by id;\n\
         select 'forbidden' from users;\n\
         select count(*) from users;\n\
         begin;\nselect 'forbidden' from users;\nselect 5 from users;\nrollback;\n\
         select id \\; select name from users\n;\nselect id from users limit 1 \\; select 'x' from users where id = 1;\n\
         drop table users;\n",
    );
    if hold.is_some() {
        eprintln!("{out}");
        loop {
            thread::sleep(Duration::from_secs(5));
            let mut log = log.lock().unwrap();
            for line in log.asked.drain(..) {
                eprintln!("asked {line}");
            }
            for done in log.done.drain(..) {
                eprintln!("done {done:?}");
            }
        }
    }
    let log = log.lock().unwrap();
    assert!(out.contains("ann\nben"), "{out}\n{log:#?}");
    assert!(out.contains("interceptor refused this statement"), "{out}");
    assert!(out.contains("Rule no-forbidden-words, record 7."), "{out}");
    assert!(out.contains("\n2\n"), "the session goes on: {out}");
    assert!(out.contains("current transaction is aborted") || out.contains("has failed"), "{out}");
    assert!(out.contains("DROP TABLE"), "{out}");
    assert!((1..=4).contains(&log.gate), "names are looked up, and not for each statement: {}", log.gate);
    let selected = log.done.iter().find(|done| done.rows == Some(2) && done.bytes > 20);
    assert_eq!(selected.map(|done| done.status), Some(OutcomeStatus::Completed));
}
