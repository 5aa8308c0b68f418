//! What the bench asks that pgbench cannot: `bench-client HOST PORT rows SQL`, `... rows-again SQL`, `... leaks-text SQL`, `... leaks-binary
//! SQL`, `... copy-in TABLE ROWS`, `... idle COUNT FILE`, `... flood SECONDS`. It speaks the protocol in clear and asks for nothing that it can leave out, so that what is measured is the other
//! side.

use std::{
    io::{BufReader, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

fn main() -> ExitCode {
    match perform(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-client: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [host, port, "rows", sql] => rows(&mut Session::open(host, port)?, sql),
        [host, port, "rows-again", sql] => {
            let mut session = Session::open(host, port)?;
            session.ask(sql)?;
            rows(&mut session, sql)
        }
        [host, port, "leaks-text", sql] => {
            leaks(&mut Session::open(host, port)?, |session| session.query(sql))
        }
        [host, port, "leaks-binary", sql] => {
            leaks(&mut Session::open(host, port)?, |session| session.query_binary(sql))
        }
        [host, port, "copy-in", table, rows] => {
            copy_in(&mut Session::open(host, port)?, table, rows.parse()?)
        }
        [host, port, "idle", count, file] => idle(host, port, count.parse()?, Path::new(file)),
        [host, port, "flood", seconds] => flood(host, port, Duration::from_secs(seconds.parse()?)),
        _ => bail!(
            "usage: bench-client HOST PORT rows SQL | rows-again SQL | leaks-text SQL | leaks-binary SQL | copy-in TABLE ROWS | idle COUNT FILE | flood SECONDS"
        ),
    }
}

/// Reads a result without keeping it, and prints its rows, its bytes and the seconds from question to end.
fn rows(session: &mut Session, sql: &str) -> Result<()> {
    let begun = Instant::now();
    let (rows, bytes) = session.ask(sql)?;
    println!("{rows} rows, {bytes} bytes, {} seconds", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Reads a result, and prints how many of its values have the mark that those of labelled columns are made with.
fn leaks(session: &mut Session, ask: impl FnOnce(&mut Session) -> Result<()>) -> Result<()> {
    ask(session)?;
    let mut leaked = 0_usize;
    let (rows, _) = session.until_ready_each(|body| leaked += marks(body))?;
    println!("{rows} rows, {leaked} leaked");
    Ok(())
}

/// Empties a table such as pgbench's accounts and copies rows into it, in pieces as large as clients send them; prints as
/// [`rows`] does.
fn copy_in(session: &mut Session, table: &str, count: u64) -> Result<()> {
    const PIECE: usize = 8192;
    session.ask(&format!("TRUNCATE {table}"))?;
    let mut bytes = 0;
    let begun = Instant::now();
    session.query(&format!("COPY {table} FROM STDIN"))?;
    let mut piece = Vec::with_capacity(2 * PIECE);
    for row in 1..=count {
        writeln!(piece, "{row}\t1\t0\t{:<84}", "")?;
        if piece.len() >= PIECE || row == count {
            bytes += piece.len();
            session.send(&[(b'd', &piece)])?;
            piece.clear();
        }
    }
    session.send(&[(b'c', b"")])?;
    session.until_ready()?;
    println!("{count} rows, {bytes} bytes, {} seconds", begun.elapsed().as_secs_f64());
    Ok(())
}

/// How often `zq` stands before ten hexadecimal digits.
fn marks(body: &[u8]) -> usize {
    let is_mark = |part: &&[u8]| part.starts_with(b"zq") && part.iter().skip(2).all(u8::is_ascii_hexdigit);
    body.windows(12).filter(is_mark).count()
}

/// Opens sessions, lets each ask once, makes `file` when all are open, and holds them until it is gone.
fn idle(host: &str, port: &str, count: usize, file: &Path) -> Result<()> {
    let mut sessions = Vec::new();
    for _ in 0..count {
        let mut session = Session::open(host, port)?;
        session.ask("SELECT 1")?;
        sessions.push(session);
    }
    std::fs::write(file, "open").with_context(|| format!("{}", file.display()))?;
    while file.exists() {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A rude neighbour: connections that say nothing sensible, one after the other. Prints how many.
fn flood(host: &str, port: &str, time: Duration) -> Result<()> {
    let address = (host, port.parse()?).to_socket_addrs()?.next().context("the host has no address")?;
    let end = Instant::now() + time;
    let mut count = 0_u64;
    while Instant::now() < end {
        // Being refused, at whatever stage, is what is asked for.
        if let Ok(mut stream) = TcpStream::connect(address) {
            let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
            let _ = stream.read(&mut [0; 512]);
        }
        count += 1;
    }
    println!("{count} connections");
    Ok(())
}

/// A session with the database.
struct Session {
    stream: BufReader<TcpStream>,
    body: Vec<u8>,
}

impl Session {
    /// Connects and logs in where no proof is asked for.
    fn open(host: &str, port: &str) -> Result<Self> {
        let mut stream = connect(host, port)?;
        let mut body = 196_608_u32.to_be_bytes().to_vec();
        body.extend_from_slice(b"user\0app\0database\0orders\0\0");
        stream.write_all(&u32::try_from(body.len() + 4)?.to_be_bytes())?;
        stream.write_all(&body)?;
        let mut session = Self { stream: BufReader::with_capacity(64 * 1024, stream), body: Vec::new() };
        session.until_ready().context("log in")?;
        Ok(session)
    }

    /// Asks a simple query; gives the rows and bytes of the answer.
    fn ask(&mut self, sql: &str) -> Result<(u64, u64)> {
        self.query(sql)?;
        self.until_ready()
    }

    /// Sends a simple query.
    fn query(&mut self, sql: &str) -> Result<()> {
        self.send(&[(b'Q', &[sql.as_bytes(), b"\0"].concat())])
    }

    /// Sends a query whose answer is to come in binary.
    fn query_binary(&mut self, sql: &str) -> Result<()> {
        self.send(&[
            (b'P', &[b"\0", sql.as_bytes(), b"\0\0\0"].concat()),
            (b'B', b"\0\0\0\0\0\0\0\x01\0\x01"),
            (b'D', b"P\0"),
            (b'E', b"\0\0\0\0\0"),
            (b'S', b""),
        ])
    }

    fn send(&mut self, messages: &[(u8, &[u8])]) -> Result<()> {
        let mut bytes = Vec::new();
        for (tag, body) in messages {
            bytes.push(*tag);
            bytes.extend_from_slice(&u32::try_from(body.len() + 4)?.to_be_bytes());
            bytes.extend_from_slice(body);
        }
        self.stream.get_mut().write_all(&bytes)?;
        Ok(())
    }

    fn until_ready(&mut self) -> Result<(u64, u64)> {
        self.until_ready_each(|_| ())
    }

    /// Reads an answer, and looks at each of its rows.
    fn until_ready_each(&mut self, mut look: impl FnMut(&[u8])) -> Result<(u64, u64)> {
        let (mut rows, mut bytes) = (0, 0);
        loop {
            let mut head = [0; 5];
            self.stream.read_exact(&mut head)?;
            let [kind, length @ ..] = head;
            let length = u32::from_be_bytes(length);
            self.body.resize(usize::try_from(length)?.saturating_sub(4), 0);
            self.stream.read_exact(&mut self.body)?;
            bytes += u64::from(length) + 1;
            match kind {
                b'Z' => return Ok((rows, bytes)),
                b'D' => {
                    rows += 1;
                    look(&self.body);
                }
                b'E' => bail!("{}", String::from_utf8_lossy(&self.body).replace('\0', " ")),
                b'R' => ensure!(self.body == [0; 4], "a proof is asked for"),
                _ => {}
            }
        }
    }
}

fn connect(host: &str, port: &str) -> Result<TcpStream> {
    let stream =
        TcpStream::connect((host, port.parse()?)).with_context(|| format!("connect to {host}:{port}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
