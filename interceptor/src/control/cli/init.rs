//! A first installation: one database, one agent, a policy that lets it read.

use std::{
    fs,
    io::{self, BufRead, IsTerminal, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    process::ExitCode,
};

use clap::Args;
use nix::unistd::{Gid, Uid};

use super::output::{Failure, Printer};
use crate::{config::Folder, helper::Accounts, places::Places};

/// Arguments of `init`; what is not given is asked for on a terminal.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The database's host name, as agents write it.
    #[arg(long)]
    host: Option<String>,
    /// Its port.
    #[arg(long)]
    port: Option<u16>,
    /// The role that the interceptor logs in as.
    #[arg(long)]
    user: Option<String>,
    /// The agent's name.
    #[arg(long)]
    agent: Option<String>,
    /// A file with the role's password; asked for without echo otherwise.
    #[arg(long, value_name = "FILE")]
    password_file: Option<std::path::PathBuf>,
}

/// `interceptor init`
pub(super) fn init(places: &Places, printer: &Printer, options: Options) -> Result<ExitCode, Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::usage("init writes to a folder that only root may change: run it with sudo"));
    }
    let folder = places.configuration();
    if folder.join("resources.toml").exists() {
        return Err(Failure::no(format!(
            "{} is there already and stays as it is: edit it, or move it away first",
            folder.join("resources.toml").display()
        )));
    }
    let host = given(options.host, "Database host, as agents write it", None)?;
    let port = match options.port {
        Some(port) => port,
        None => given(None, "Port", Some("5432"))?
            .parse()
            .map_err(|_| Failure::usage("the port must be a number from 1 to 65535"))?,
    };
    let user = given(options.user, "Role that the interceptor logs in as", None)?;
    let agent = given(options.agent, "Name of the agent", Some("release-bot"))?;
    let password = match options.password_file {
        Some(path) => fs::read(&path)
            .map_err(|error| Failure::usage(format!("{} cannot be read: {error}", path.display())))?,
        None => ask_secret(&format!("Password of {user}"))?,
    };
    write_all(places, &Answers { host, port, user, agent }, &password)?;
    Folder::in_force(places).and_then(|read| read.load()).map_err(|error| Failure::of(&error))?;
    printer.line(&format!("wrote a policy folder to {}", folder.display()))?;
    printer.line("next: `interceptor policy test`, then `interceptor run --agent NAME -- psql ...`")?;
    Ok(ExitCode::SUCCESS)
}

struct Answers {
    host: String,
    port: u16,
    user: String,
    agent: String,
}

fn write_all(places: &Places, answers: &Answers, password: &[u8]) -> Result<(), Failure> {
    let Answers { host, port, user, agent } = answers;
    let quoted = |text: &str| serde_json::to_string(text).map_err(|error| Failure::of(&error));
    let loopback = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    let address = host.parse::<std::net::IpAddr>().is_ok();
    let named = if address {
        format!(
            "addresses = [{}]",
            quoted(
                &std::net::SocketAddr::new(
                    host.parse().map_err(|_| Failure::usage("the host is no address"))?,
                    *port
                )
                .to_string()
            )?
        )
    } else {
        format!("hosts = [{}]", quoted(host)?)
    };
    let (dial, tls) = if loopback {
        ("dial = \"host\"\n", "tls = { plaintext = \"the database listens on this host's loopback\" }\n")
    } else {
        ("", "")
    };
    let upstream = if address {
        std::net::SocketAddr::new(host.parse().map_err(|_| Failure::usage("the host is no address"))?, *port)
            .to_string()
    } else {
        format!("{host}:{port}")
    };
    let resources = format!(
        "# Where agents may go. See docs/policy.md for every key.\n\
         approvers = [\"dba\"]\n\n\
         [resource.database]\nprotocol = \"postgres\"\n{named}\nports = [{port}]\nupstream = {}\n{dial}{tls}\n\
         [[resource.database.credential]]\nuser = {}\nsecret = {{ file = \"database\" }}\nminimum = \"scram-sha-256\"\n",
        quoted(&upstream)?,
        quoted(user)?
    );
    let agents = format!("# Who agents are.\n[agent.{agent}]\ngroups = [\"agents\"]\n");
    let folder = places.configuration();
    directory(folder, 0o755)?;
    directory(&places.policies(), 0o755)?;
    directory(&places.credentials(), 0o750)?;
    let keeper = Accounts::find().keeper;
    own(&places.credentials(), keeper)?;
    file(&folder.join("resources.toml"), resources.as_bytes(), 0o644)?;
    file(&folder.join("agents.toml"), agents.as_bytes(), 0o644)?;
    file(&places.policies().join("10-start.cedar"), START_POLICY.as_bytes(), 0o644)?;
    let expectations = START_EXPECTATIONS.replace("AGENT", agent);
    file(&places.policies().join("start.expect.toml"), expectations.as_bytes(), 0o644)?;
    let secret = places.credentials().join("database");
    file(&secret, password, 0o600)?;
    own(&secret, keeper)
}

fn own(path: &Path, (uid, gid): (Uid, Gid)) -> Result<(), Failure> {
    std::os::unix::fs::chown(path, Some(uid.as_raw()), Some(gid.as_raw()))
        .map_err(|error| Failure::host(format!("{} cannot be given to the keeper: {error}", path.display())))
}

fn directory(path: &Path, mode: u32) -> Result<(), Failure> {
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .map_err(|error| Failure::host(format!("{} cannot be made: {error}", path.display())))
}

fn file(path: &Path, content: &[u8], mode: u32) -> Result<(), Failure> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(content))
        .map_err(|error| Failure::host(format!("{} cannot be written: {error}", path.display())))
}

fn given(value: Option<String>, question: &str, default: Option<&str>) -> Result<String, Failure> {
    if let Some(value) = value {
        return Ok(value);
    }
    if !io::stdin().is_terminal() {
        return default.map(str::to_owned).ok_or_else(|| {
            Failure::usage(format!(
                "{question}? There is no terminal to ask on: give it as an option, see --help"
            ))
        });
    }
    eprint!("{question}{}: ", default.map(|value| format!(" [{value}]")).unwrap_or_default());
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(|error| Failure::of(&error))?;
    match (line.trim(), default) {
        ("", Some(default)) => Ok(default.to_owned()),
        ("", None) => Err(Failure::usage(format!("{question}: an answer is needed"))),
        (answer, _) => Ok(answer.to_owned()),
    }
}

/// Reads a line without echo.
fn ask_secret(question: &str) -> Result<Vec<u8>, Failure> {
    use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::usage(format!("{question}? Give it with --password-file")));
    }
    let before = tcgetattr(&stdin).map_err(|error| Failure::of(&error))?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    eprint!("{question}: ");
    tcsetattr(&stdin, SetArg::TCSANOW, &silent).map_err(|error| Failure::of(&error))?;
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    let restored = tcsetattr(&stdin, SetArg::TCSANOW, &before);
    eprintln!();
    read.map_err(|error| Failure::of(&error))?;
    restored.map_err(|error| Failure::of(&error))?;
    Ok(line.trim_end_matches(['\r', '\n']).as_bytes().to_vec())
}

const START_POLICY: &str = include_str!("../../../../policies/read-only/10-reading.cedar");
const START_EXPECTATIONS: &str = r#"# What the policy is expected to say: `interceptor policy test`.
[catalogue]
tables = ["public.users"]

[[expect]]
agent = "AGENT"
resource = "database"
sql = "SELECT * FROM users"
verdict = "allow"

[[expect]]
agent = "AGENT"
resource = "database"
sql = "DROP TABLE users"
verdict = "deny"
"#;
