//! Other people's proxies, each with as little to do as it can be given. `cargo xtask setup` puts them under the build
//! folder; none is installed on the host.

use std::{
    fs,
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use interceptor_tests::{Job, bed::free_port, certificates::Authority, places, process::wait_until};

use crate::stage::Transport;

/// A rival that runs.
pub(crate) struct Rival {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    pub(crate) job: Job,
    folders: Vec<tempfile::TempDir>,
}

/// Starts all of them before the server at `upstream`.
pub(crate) fn start(upstream: u16, transport: Transport) -> Result<Vec<Rival>> {
    Ok(vec![pgbouncer(upstream, transport)?, haproxy(upstream)?, envoy(upstream)?])
}

/// Where TLS is spoken it reads what is in it, and so ends it on both sides.
fn pgbouncer(upstream: u16, transport: Transport) -> Result<Rival> {
    let port = free_port();
    let shown = places::scratch("pgbouncer-tls");
    fs::set_permissions(shown.path(), fs::Permissions::from_mode(0o755))?;
    let (certificate, key) = (shown.path().join("certificate.pem"), shown.path().join("key.pem"));
    let leaf = Authority::new("bench").leaf(&["localhost"]);
    fs::write(&certificate, leaf.certificate)?;
    fs::write(&key, leaf.key)?;
    let (certificate, key) = (certificate.display(), key.display());
    let tls = match transport {
        Transport::Clear => String::new(),
        Transport::Tls => format!(
            "client_tls_sslmode = require\nclient_tls_cert_file = {certificate}\nclient_tls_key_file = {key}\n\
             server_tls_sslmode = require\n"
        ),
    };
    let settings = format!(
        "[databases]\norders = host=127.0.0.1 port={upstream} dbname=orders user=app\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
         pool_mode = session\ndefault_pool_size = 1100\nmax_client_conn = 1200\nserver_idle_timeout = 5\n\
         log_connections = 0\nlog_disconnections = 0\n{tls}"
    );
    // It refuses to be root.
    let mut rival = serve("pgbouncer", port, &settings, |file| {
        let mut command = from_package("pgbouncer")?;
        command.args(["-q", "-u", "nobody"]).arg(file);
        Ok(command)
    })?;
    rival.folders.push(shown);
    Ok(rival)
}

fn haproxy(upstream: u16) -> Result<Rival> {
    let port = free_port();
    let settings = format!(
        "global\n  nbthread 1\n  maxconn 1200\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         listen orders\n  bind 127.0.0.1:{port}\n  server one 127.0.0.1:{upstream}\n"
    );
    serve("haproxy", port, &settings, |file| {
        let mut command = from_package("haproxy")?;
        command.args(["-db", "-f"]).arg(file);
        Ok(command)
    })
}

fn envoy(upstream: u16) -> Result<Rival> {
    let port = free_port();
    let address = |port| format!("{{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}");
    let settings = format!(
        "static_resources:\n  listeners:\n  - address: {}\n    filter_chains:\n    - filters:\n\
         \x20     - name: envoy.filters.network.tcp_proxy\n        typed_config:\n\
         \x20         '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy\n\
         \x20         stat_prefix: orders\n          cluster: orders\n\
         \x20 clusters:\n  - name: orders\n    type: STATIC\n    load_assignment:\n      cluster_name: orders\n\
         \x20     endpoints:\n      - lb_endpoints:\n        - endpoint: {{ address: {} }}\n",
        address(port),
        address(upstream)
    );
    serve("envoy", port, &settings, |file| {
        let packages =
            fs::read_dir(places::target().join("clients/envoy/lib")).context("Envoy is not set up")?;
        let mut programs =
            packages.flatten().map(|version| version.path().join("site-packages/envoy/_bin/envoy"));
        let program = programs.find(|path| path.exists()).context("Envoy is not set up")?;
        let mut command = Command::new(program);
        command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"]).arg(file);
        Ok(command)
    })
}

/// Writes the settings, starts the program and waits until it takes connections.
fn serve(
    name: &'static str,
    port: u16,
    settings: &str,
    command: impl FnOnce(&Path) -> Result<Command>,
) -> Result<Rival> {
    let folder = places::scratch(name);
    let file = folder.path().join(format!("{name}.yaml"));
    fs::write(&file, settings)?;
    let mut job = Job::start(command(&file)?, "");
    wait_until(&format!("{name} to serve"), Duration::from_secs(30), || {
        !job.is_running() || TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    anyhow::ensure!(job.is_running(), "{name} does not run: {}", job.finish(Duration::from_secs(1)));
    Ok(Rival { name, port, job, folders: vec![folder] })
}

/// A program of a package that was unpacked, not installed.
fn from_package(name: &str) -> Result<Command> {
    let unpacked = places::target().join("clients/rivals");
    let program = unpacked.join("usr/sbin").join(name);
    anyhow::ensure!(program.exists(), "{} is missing: run `cargo xtask bench`", program.display());
    let libraries: Vec<PathBuf> =
        fs::read_dir(unpacked.join("usr/lib"))?.flatten().map(|entry| entry.path()).collect();
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries)?);
    Ok(command)
}
