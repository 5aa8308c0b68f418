//! A PostgreSQL client in Rust, as an agent would have it: tokio-postgres over TLS, verified by the system's roots.
//!
//! `rust-client HOST PORT DATABASE` does one of each: simple, extended, pipelined, cancelled and refused work, and
//! prints a line for each.

use std::{pin::pin, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_postgres::{Client, Config, NoTls};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, database] = arguments.as_slice() else { bail!("usage: rust-client HOST PORT DATABASE") };
    let port = port.parse()?;
    let client = connect(host, port, database).await?;
    println!("connect: ok");

    let rows = client.simple_query("SELECT name FROM users WHERE id = 1; SELECT 2").await?;
    println!("simple: {} messages", rows.len());

    let row = client.query_one("SELECT name FROM users WHERE id = $1", &[&7_i32]).await?;
    println!("extended: {}", row.get::<_, String>(0));

    let statement = client.prepare("SELECT email FROM users WHERE id = $1").await?;
    let (one, two, three) =
        futures_join(&client, &statement, [11_i32, 12, 13]).await.context("pipelined queries")?;
    println!("pipelined: {one} {two} {three}");

    let token = client.cancel_token();
    let mut sleeping = pin!(client.simple_query("SELECT count(*) FROM generate_series(1, 2000000000)"));
    let ended = loop {
        tokio::select! {
            ended = &mut sleeping => break ended,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        // One that comes before there is anything to cancel does nothing.
        token.cancel_query_raw(tls(host, port).await?, NoTls).await.context("cancel request")?;
    };
    let code = ended.err().and_then(|error| error.code().cloned()).context("the query was not cancelled")?;
    println!("cancelled: {}", code.code());

    let refused = client.batch_execute("DROP TABLE users").await.err().context("DROP was not refused")?;
    let error = refused.as_db_error().context("DROP was not refused politely")?;
    println!("refused: {} {} / {}", error.code().code(), error.message(), error.hint().unwrap_or("no hint"));

    let row = client.query_one("SELECT count(*) FROM users", &[]).await?;
    ensure!(row.get::<_, i64>(0) == 100, "the table was changed");
    println!("after: ok");
    Ok(())
}

async fn futures_join(
    client: &Client,
    statement: &tokio_postgres::Statement,
    ids: [i32; 3],
) -> Result<(String, String, String)> {
    let ask = async |id: i32| -> Result<String> { Ok(client.query_one(statement, &[&id]).await?.get(0)) };
    let (one, two, three) = tokio::join!(ask(ids[0]), ask(ids[1]), ask(ids[2]));
    Ok((one?, two?, three?))
}

async fn connect(host: &str, port: u16, database: &str) -> Result<Client> {
    let stream = tls(host, port).await?;
    let mut config = Config::new();
    config.user("whoever").password("whatever").dbname(database);
    let (client, connection) = config.connect_raw(stream, NoTls).await.context("log in")?;
    tokio::spawn(connection);
    Ok(client)
}

/// PostgreSQL's TLS: a request in clear, one letter back, then the handshake.
async fn tls(host: &str, port: u16) -> Result<TlsStream<TcpStream>> {
    let mut stream = TcpStream::connect((host, port)).await.context("connect")?;
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await?;
    let answer = stream.read_u8().await.context("answer to SSLRequest")?;
    ensure!(answer == b'S', "the server answered SSLRequest with {:?}", char::from(answer));
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(host.to_owned())?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.context("TLS handshake")
}
