//! A throw-away PostgreSQL: started once per test process from the machine's own `initdb`, gone with it.

use crate::Certificates;
use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use sea_orm::{ConnectionTrait, Database, DbBackend, Statement};
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tokio::sync::OnceCell;

/// The server to test on: the one that `TEST_DATABASE_URL` names, or one of our own.
///
/// `None` where there is neither; the caller says what it skips.
pub(crate) async fn server() -> Option<&'static str> {
    static SERVER: OnceCell<Option<(String, Option<Cluster>)>> = OnceCell::const_new();
    let running = SERVER
        .get_or_init(|| async {
            if let Ok(url) = std::env::var("TEST_DATABASE_URL") {
                return Some((url, None));
            }
            let cluster = Cluster::start(&programs()?).await.expect("a throw-away PostgreSQL starts");
            Some((cluster.url.clone(), Some(cluster)))
        })
        .await;
    running.as_ref().map(|(url, _)| url.as_str())
}

/// What of a server's files is on a disk of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of them.
    Data,
    /// The write-ahead log alone.
    Log,
}

/// A PostgreSQL server, gone with this value.
#[derive(Debug)]
pub struct Cluster {
    /// What to set DATABASE_URL to.
    pub url: String,
    folder: PathBuf,
    programs: PathBuf,
    /// The port it listens on, of 127.0.0.1.
    pub port: u16,
    /// Each ends its server when its standard input closes, which the end of this process does, however it ends.
    watchdogs: Vec<Child>,
}

impl Cluster {
    /// One for faults that the tests' common one must not have; `None`, with a loud skip, where there is no PostgreSQL.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn new() -> Option<Self> {
        let Some(programs) = programs() else {
            crate::skip("no PostgreSQL: install postgresql");
            return None;
        };
        Some(Self::start(&programs).await.expect("a throw-away PostgreSQL starts"))
    }

    /// One with a part of its files on a disk of its own, of so many megabytes; `None`, with a loud skip, where there is no PostgreSQL,
    /// or disks cannot be made: that takes Linux, and root or a `sudo` that asks nothing. It is started again where it ends, as by
    /// systemd or a container engine, and keeps what it has acknowledged if it crashes.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn on_small_disk(part: Part, megabytes: u32) -> Option<Self> {
        let Some(programs) = programs() else {
            crate::skip("no PostgreSQL: install postgresql");
            return None;
        };
        // In a namespace of its own, from which the disk is gone as soon as its last process has ended.
        let mut command =
            if rustix::process::geteuid().is_root() { Command::new("unshare") } else { Command::new("sudo") };
        if !rustix::process::geteuid().is_root() {
            command.args(["-n", "unshare"]);
        }
        command.args(["--mount", "--propagation", "private", "/bin/sh", "-c"]).stdin(Stdio::piped());
        let (user, group) = owner()
            .expect("it runs as somebody")
            .unwrap_or_else(|| (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()));
        let may = Command::new(command.get_program()).args(command.get_args()).arg("mount -t tmpfs disk /mnt").output();
        if !cfg!(target_os = "linux") || !may.is_ok_and(|done| done.status.success()) {
            crate::skip("no Linux, or neither root nor sudo without a password: disks of our own, to fill them");
            return None;
        }
        // Segments of 1 MB: with those of 16 MB a small disk is full from the beginning.
        let mut cluster = Self::initialized(&programs, &["--wal-segsize=1"]).expect("a folder and a port");
        let data = match part {
            Part::Data => "disk",
            Part::Log => "data",
        };
        command
            .args([SMALL_DISK, "small-disk"])
            .arg(&cluster.folder)
            .args([data, &megabytes.to_string(), &user.to_string(), &group.to_string(), SUPERVISOR])
            .arg(programs.join("postgres"))
            .arg("-D")
            .arg(cluster.folder.join(data))
            .args(cluster.arguments())
            .args(["-c", "fsync=off", "-c", "min_wal_size=2MB", "-c", "max_wal_size=8MB"])
            .env_remove("PGDATA")
            .current_dir("/");
        cluster.watchdogs.push(command.spawn().expect("it starts"));
        cluster.answers().await;
        Some(cluster)
    }

    /// Fills its small disk to the last byte.
    ///
    /// # Panics
    /// When it has none.
    pub fn fill_disk(&self) {
        self.tell("fill");
    }

    /// Takes away what fills its small disk.
    ///
    /// # Panics
    /// When it has none.
    pub fn free_disk(&self) {
        self.tell("free");
    }

    fn tell(&self, line: &str) {
        let mut supervisor = self.watchdogs.last().and_then(|child| child.stdin.as_ref()).expect("it listens");
        supervisor.write_all(format!("{line}\n").as_bytes()).expect("it listens");
        let done = self.folder.join("done");
        let begun = std::time::Instant::now();
        while fs::remove_file(&done).is_err() {
            assert!(begun.elapsed() < crate::SOON, "the disk does not {line}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Sends its processes a signal: STOP and CONT make it hang and go on.
    ///
    /// # Panics
    /// When its processes cannot be listed.
    pub fn signal(&self, signal: Signal) {
        let server = self.pid().expect("it runs");
        let listed = Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output().expect("ps runs");
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let pairs = listed.lines().filter_map(|line| {
            let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
            Some((numbers.next()??, numbers.next()??))
        });
        let children = pairs.filter(|(_, parent)| *parent == server).map(|(child, _)| child);
        for pid in std::iter::once(server).chain(children) {
            // One that has ended meanwhile needs none.
            let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, signal));
        }
    }

    /// Offers TLS to those who ask for it.
    ///
    /// # Panics
    /// When the server does not take the certificate.
    pub async fn offer_tls(&self, certificates: &Certificates) {
        // The names that PostgreSQL looks for by itself, save for the authority's.
        let files = [("server.crt", &certificates.server), ("server.key", &certificates.key)];
        for (name, text) in files.into_iter().chain([("authority.crt", &certificates.authority)]) {
            let file = self.folder.join("data").join(name);
            fs::write(&file, text).expect("the file is written");
            // It refuses a key that others can read.
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("nobody else can read it");
            if let Some((user, group)) = owner().expect("it runs as somebody") {
                chown(&file, Some(user), Some(group)).expect("it is the server's");
            }
        }
        let connection = Database::connect(&self.url).await.expect("it answers");
        let sql =
            ["ALTER SYSTEM SET ssl = on", "ALTER SYSTEM SET ssl_ca_file = 'authority.crt'", "SELECT pg_reload_conf()"];
        for sql in sql {
            connection.execute_unprepared(sql).await.expect("it reads its settings again");
        }
        connection.close().await.expect("the session ends");
        let url = self.url.replace("sslmode=disable", "sslmode=require");
        crate::eventually("PostgreSQL offers TLS", async || Database::connect(&url).await.ok()?.close().await.ok())
            .await;
    }

    /// Has everyone who comes with TLS show a certificate in the name of the login.
    ///
    /// # Panics
    /// When it does not read its settings again.
    pub async fn demand_client_certificates(&self) {
        self.demand("cert").await;
    }

    /// Lets in over TLS only clients that show a certificate of the user's name, by the authority of [`Cluster::offer_tls`], and know
    /// the user's password, which is this one from here on.
    ///
    /// # Panics
    /// When it does not come to that.
    pub async fn demand_client_certificates_and_passwords(&self, password: &str) {
        let connection = Database::connect(&self.url).await.expect("it answers");
        let sql = format!("SET password_encryption = 'scram-sha-256'; ALTER ROLE postgres PASSWORD '{password}'");
        connection.execute_unprepared(&sql).await.expect("the role has a password");
        connection.close().await.expect("the session ends");
        self.demand("scram-sha-256 clientcert=verify-full").await;
    }

    /// Has clients over TLS prove who they are in this way (postgresql.org/docs/current/auth-pg-hba-conf.html).
    async fn demand(&self, method: &str) {
        let rules = format!("hostnossl all all all trust\nhostssl all all all {method}\n");
        fs::write(self.folder.join("data/pg_hba.conf"), rules).expect("the file is written");
        let connection = Database::connect(&self.url).await.expect("it answers");
        connection.execute_unprepared("SELECT pg_reload_conf()").await.expect("it reads its settings again");
        connection.close().await.expect("the session ends");
        let url = self.url.replace("sslmode=disable", "sslmode=require");
        crate::eventually("PostgreSQL refuses who shows none", async || Database::connect(&url).await.err()).await;
    }

    fn pid(&self) -> Option<i32> {
        fs::read_to_string(self.folder.join("data/postmaster.pid")).ok()?.lines().next()?.parse().ok()
    }

    /// Stops it at once, whoever is connected.
    ///
    /// # Panics
    /// When it does not run, or does not stop.
    pub async fn stop(&self) {
        let pid = self.pid().and_then(Pid::from_raw).expect("it runs");
        kill_process(pid, Signal::INT).expect("the signal is delivered");
        crate::eventually("PostgreSQL stops", async || self.pid().is_none().then_some(())).await;
    }

    /// A standby of it, which has every commit before the one who commits is told (`remote_apply`).
    ///
    /// # Panics
    /// When it does not start.
    pub async fn standby(&self) -> Self {
        let programs = self.programs.clone();
        let mut standby = Self::in_new_folder(&programs).expect("a folder");
        let copied = Self::command(&programs.join("pg_basebackup"))
            .and_then(|mut command| {
                let data = standby.folder.join("data");
                // It writes the standby's settings (-R), and streams what is written meanwhile.
                command.args(["--write-recovery-conf", "--checkpoint=fast", "--pgdata"]).arg(data);
                Ok(command.arg("--dbname").arg(&self.url).output()?)
            })
            .expect("pg_basebackup runs");
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        standby.take_free_port().expect("a free port");
        standby.run().await.expect("the standby starts");
        let connection = Database::connect(&self.url).await.expect("it answers");
        // The database's default comes after what the command line says.
        for sql in [
            "ALTER DATABASE postgres SET synchronous_commit = remote_apply",
            "ALTER SYSTEM SET synchronous_standby_names = '*'",
            "SELECT pg_reload_conf()",
        ] {
            connection.execute_unprepared(sql).await.expect("it takes its settings");
        }
        crate::eventually("the standby is waited for", async || {
            let sync = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'";
            connection.query_one_raw(Statement::from_string(DbBackend::Postgres, sync)).await.ok()?
        })
        .await;
        connection.close().await.expect("the session ends");
        standby
    }

    /// Makes a standby take changes.
    ///
    /// # Panics
    /// When it does not.
    pub async fn promote(&self) {
        let connection = Database::connect(&self.url).await.expect("it answers");
        for sql in ["ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()", "SELECT pg_promote()"] {
            connection.execute_unprepared(sql).await.expect("it is promoted");
        }
        connection.close().await.expect("the session ends");
    }

    /// Starts it again where it was.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_again(&mut self) {
        self.run().await.expect("PostgreSQL starts again");
    }

    fn command(program: &Path) -> Result<Command> {
        let mut command = Command::new(program);
        command.env_remove("PGDATA").env_remove("PGPORT").env_remove("PGHOST").current_dir("/");
        if let Some((user, group)) = owner()? {
            command.uid(user).gid(group);
        }
        Ok(command)
    }

    fn in_new_folder(programs: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("bulkhead-postgres-").tempdir_in("/tmp")?.keep();
        if let Some((user, group)) = owner()? {
            chown(&folder, Some(user), Some(group))?;
        }
        Ok(Self { url: String::new(), folder, programs: programs.to_owned(), port: 0, watchdogs: Vec::new() })
    }

    /// Just before it is started for the first time: until then the port is anybody's.
    fn take_free_port(&mut self) -> Result<()> {
        self.port = free_port()?;
        self.url = format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", self.port);
        Ok(())
    }

    async fn start(programs: &Path) -> Result<Self> {
        let mut cluster = Self::initialized(programs, &[])?;
        cluster.run().await?;
        Ok(cluster)
    }

    fn initialized(programs: &Path, more: &[&str]) -> Result<Self> {
        let mut cluster = Self::in_new_folder(programs)?;
        let made = Self::command(&programs.join("initdb"))?
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .args(more)
            .arg("--pgdata")
            .arg(cluster.folder.join("data"))
            .output()?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        cluster.take_free_port()?;
        Ok(cluster)
    }

    /// Where it listens, and for how many.
    fn arguments(&self) -> Vec<String> {
        let (port, folder) = (self.port.to_string(), self.folder.display().to_string());
        let settings = ["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=300"];
        [&["-p", &port, "-k", &folder][..], &settings[..]].concat().into_iter().map(str::to_owned).collect()
    }

    async fn run(&mut self) -> Result<()> {
        let watchdog = Self::command(Path::new("/bin/sh"))?
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(&self.folder)
            .arg(self.programs.join("postgres"))
            .arg("-D")
            .arg(self.folder.join("data"))
            .args(self.arguments())
            // Nothing here outlives the process, so nothing is worth a wait for the disk.
            .args(["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        self.watchdogs.push(watchdog);
        self.answers().await;
        Ok(())
    }

    async fn answers(&self) {
        crate::eventually(&format!("PostgreSQL answers (see {})", self.folder.join("log").display()), async || {
            let connection = Database::connect(&self.url).await.ok()?;
            let answers = connection.execute_unprepared("SELECT 1").await.is_ok();
            connection.close().await.ok()?;
            answers.then_some(())
        })
        .await;
    }
}

impl Drop for Cluster {
    /// Goes on with what was made to hang, which could not end else.
    fn drop(&mut self) {
        if self.pid().is_some() {
            self.signal(Signal::CONT);
        }
    }
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

/// Makes a disk, runs the server on it, and takes both away. As root, until the server is started.
const SMALL_DISK: &str = r#"
    folder=$1 data=$2 megabytes=$3 user=$4 group=$5 supervisor=$6; shift 6
    mkdir "$folder/disk" && mount -t tmpfs -o "size=${megabytes}m,mode=0700,uid=$user,gid=$group" disk "$folder/disk" || exit
    setpriv --reuid="$user" --regid="$group" --clear-groups /bin/sh -c "$supervisor" supervisor "$folder" "$data" "$@"
    umount "$folder/disk"
    rm -rf "$folder"
"#;

/// Runs the server again and again; fills the disk, and frees it, as it is told, until its standard input closes.
const SUPERVISOR: &str = r#"
    folder=$1 data=$2; shift 2
    if [ "$data" = disk ]; then
        cp -Rp "$folder/data/." "$folder/disk"
    else
        cp -Rp "$folder/data/pg_wal/." "$folder/disk" && rm -r "$folder/data/pg_wal" && ln -s "$folder/disk" "$folder/data/pg_wal"
    fi || exit
    while :; do "$@"; sleep 0.2; done >>"$folder/log" 2>&1 </dev/null &
    loop=$!
    while read -r line; do
        case $line in
        fill) cat /dev/zero >"$folder/disk/ballast" 2>/dev/null ;;
        free) rm -f "$folder/disk/ballast" ;;
        esac
        : >"$folder/done"
    done
    kill "$loop"
    server=$(head -n 1 "$folder/$data/postmaster.pid") && kill -QUIT "$server" && while kill -0 "$server" 2>/dev/null; do sleep 0.1; done
"#;

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
