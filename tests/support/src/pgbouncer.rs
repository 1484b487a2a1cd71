//! PgBouncer in front of a test's database, where the machine has it.

use crate::{Database, eventually, skip};
use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::sqlx::{ConnectOptions, Connection};
use std::process::Stdio;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use url::Url;

/// A running PgBouncer, killed when this value goes.
#[derive(Debug)]
pub struct PgBouncer {
    /// The database's URL by way of it.
    pub url: String,
    /// Its version, such as `[1, 18]`.
    pub version: [u32; 2],
    _process: Child,
    _folder: TempDir,
}

/// It refuses to run as root, and stands in a folder that is not on every PATH.
const RUN: &str = r#"
    PATH=$PATH:/usr/sbin
    if [ "$(id -u)" = 0 ]; then
        chmod -R a+rX "$(dirname "$1")"
        exec pgbouncer -u nobody "$1"
    fi
    exec pgbouncer "$1"
"#;

impl PgBouncer {
    /// The first whose clients may keep prepared statements from transaction to transaction.
    pub const WITH_PREPARED_STATEMENTS: [u32; 2] = [1, 21];

    /// Starts it with this many connections to the server at most; `None`, with a loud skip, where there is none.
    ///
    /// # Panics
    /// When the database is not one of PostgreSQL's.
    pub async fn start(database: &Database, pool_mode: &str, pool_size: usize) -> Option<Self> {
        Self::start_with(database, pool_mode, pool_size, "").await
    }

    /// As [`PgBouncer::start`], with these lines in its configuration, of which the last on a setting counts.
    ///
    /// # Panics
    /// When the database is not one of PostgreSQL's.
    pub async fn start_with(database: &Database, pool_mode: &str, pool_size: usize, lines: &str) -> Option<Self> {
        let Some(version) = version().await else {
            skip("no PgBouncer: install pgbouncer");
            return None;
        };
        let folder = tempfile::tempdir_in("/tmp").expect("a temporary folder");
        let port = crate::postgres::free_port().expect("a free port");
        let mut url = Url::parse(&database.url).expect("a URL");
        let (host, server_port) = (url.host_str().expect("a host"), url.port().unwrap_or(5432));
        let name = url.path().trim_start_matches('/');
        let users = folder.path().join("users");
        std::fs::write(&users, format!("\"{}\" \"\"\n", url.username())).expect("a file");
        let configuration = folder.path().join("pgbouncer.ini");
        let prepared = if version < Self::WITH_PREPARED_STATEMENTS { "" } else { "max_prepared_statements = 200\n" };
        // The server has no place for a connection while many tests run: it tries again after 15 seconds by default.
        let text = format!(
            "[databases]\n{name} = host={host} port={server_port} dbname={name}\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {}\n\
             pool_mode = {pool_mode}\ndefault_pool_size = {pool_size}\nserver_login_retry = 1\n\
             ignore_startup_parameters = extra_float_digits\n{prepared}{lines}",
            users.display()
        );
        std::fs::write(&configuration, text).expect("a file");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", RUN, "sh"]).arg(&configuration).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("it starts");
        url.set_port(Some(port)).expect("a port");
        let url = String::from(url);
        let options: PgConnectOptions = url.parse().expect("a URL");
        // Whatever parameters it ignores.
        let options = options.extra_float_digits(None);
        eventually("PgBouncer answers", async || options.connect().await.ok()?.close().await.ok()).await;
        Some(Self { url, version, _process: process, _folder: folder })
    }
}

async fn version() -> Option<[u32; 2]> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "PATH=$PATH:/usr/sbin; exec pgbouncer --version"]).stderr(Stdio::null());
    let output = command.output().await.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut numbers = text.split_whitespace().nth(1)?.split('.').map_while(|number| number.parse().ok());
    Some([numbers.next()?, numbers.next()?])
}
