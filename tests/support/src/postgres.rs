//! A throw-away PostgreSQL: started once per test process from the machine's own `initdb`, gone with it.

use anyhow::{Context, Result, ensure};
use sea_orm::{ConnectionTrait, Database};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tokio::sync::OnceCell;

/// The server to test on: the one that `TEST_DATABASE_URL` names, or one of our own.
///
/// `None` where there is neither; the caller says what it skips.
pub(crate) async fn server() -> Option<&'static str> {
    static SERVER: OnceCell<Option<Running>> = OnceCell::const_new();
    let running = SERVER
        .get_or_init(|| async {
            if let Ok(url) = std::env::var("TEST_DATABASE_URL") {
                return Some(Running { url, _watchdog: None });
            }
            let programs = programs()?;
            Some(start(&programs).await.expect("a throw-away PostgreSQL starts"))
        })
        .await;
    running.as_ref().map(|running| running.url.as_str())
}

struct Running {
    url: String,
    /// Ends the server when its standard input closes, which the end of this process does, however it ends.
    _watchdog: Option<Child>,
}

const WATCHDOG: &str = r#"
    folder=$1; shift
    "$@" >"$folder/log" 2>&1 &
    server=$!
    cat >/dev/null
    kill -QUIT "$server" 2>/dev/null
    wait "$server"
    rm -rf "$folder"
"#;

async fn start(programs: &Path) -> Result<Running> {
    let folder = tempfile::Builder::new().prefix("bulkhead-postgres-").tempdir_in("/tmp")?.keep();
    let owner = owner()?;
    if let Some((user, group)) = owner {
        chown(&folder, Some(user), Some(group))?;
    }
    let command = |program: &Path| {
        let mut command = Command::new(program);
        command.env_remove("PGDATA").env_remove("PGPORT").env_remove("PGHOST").current_dir("/");
        if let Some((user, group)) = owner {
            command.uid(user).gid(group);
        }
        command
    };
    let data = folder.join("data");
    let made = command(&programs.join("initdb"))
        .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--pgdata"])
        .arg(&data)
        .output()?;
    ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));

    let port = free_port()?;
    let watchdog = command(Path::new("/bin/sh"))
        .args(["-c", WATCHDOG, "watchdog"])
        .arg(&folder)
        .arg(programs.join("postgres"))
        .arg("-D")
        .arg(&data)
        .args(["-p", &port.to_string(), "-k"])
        .arg(&folder)
        .args(["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=300"])
        // Nothing here outlives the process, so nothing is worth a wait for the disk.
        .args(["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable");
    crate::eventually(&format!("PostgreSQL answers (see {})", folder.join("log").display()), async || {
        let connection = Database::connect(&url).await.ok()?;
        let answers = connection.execute_unprepared("SELECT 1").await.is_ok();
        connection.close().await.ok()?;
        answers.then_some(())
    })
    .await;
    Ok(Running { url, _watchdog: Some(watchdog) })
}

/// A program of PostgreSQL's, such as `pg_dump`, of the version of the server; `None` where there is none.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    programs().map(|folder| folder.join(name)).filter(|file| file.exists())
}

/// The folder of `initdb`: on PATH, or where Debian, Ubuntu, Fedora, Homebrew put it; the newest of several.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("initdb")).find(|file| file.exists());
    // A link on PATH may stand alone, without the server beside it.
    let on_path = on_path.and_then(|file| fs::canonicalize(file).ok());
    let mut usual: Vec<PathBuf> = ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt"]
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.path().join("bin/initdb")))
        .filter(|file| file.exists())
        .collect();
    usual.sort();
    let file =
        on_path.or_else(|| usual.pop()).or_else(|| Some(PathBuf::from("/usr/bin/initdb")).filter(|f| f.exists()))?;
    file.parent().filter(|folder| folder.join("postgres").exists()).map(Path::to_owned)
}

/// PostgreSQL refuses to run as root: then it runs as `postgres`, or else as `nobody`.
fn owner() -> Result<Option<(u32, u32)>> {
    let id = |arguments: &[&str]| -> Option<u32> {
        let output = Command::new("id").args(arguments).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    if id(&["-u"]) != Some(0) {
        return Ok(None);
    }
    let user = ["postgres", "nobody"].into_iter().find(|name| id(&["-u", name]).is_some());
    let user = user.context("neither user postgres nor nobody exists to run PostgreSQL")?;
    Ok(id(&["-u", user]).zip(id(&["-g", user])))
}

pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
