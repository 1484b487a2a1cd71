//! A database per test.

use crate::{Cluster, postgres, skip};
use bulkhead_migrator::{Options, Runner, Target};
use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::sqlx::sqlite::SqliteConnectOptions;
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::str::FromStr;
use tempfile::TempDir;
use tokio::sync::OnceCell;
use uuid::Uuid;

/// A database of one test's own, gone with this value.
#[derive(Debug)]
pub struct Database {
    /// What to set DATABASE_URL to.
    pub url: String,
    // Field order is drop order: the file goes after nothing else needs it.
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Sqlite {
        _folder: TempDir,
    },
    Postgres {
        server: &'static str,
        name: String,
    },
    /// The cluster takes it along.
    Cluster,
}

impl Database {
    /// A SQLite file that is not there yet.
    ///
    /// # Panics
    /// When no temporary folder can be made.
    #[must_use]
    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = format!("sqlite://{}?mode=rwc", folder.path().join("bulkhead.db").display());
        Self { url, kind: Kind::Sqlite { _folder: folder } }
    }

    /// A SQLite file with every migration applied: a copy of one that is made once for the process.
    ///
    /// # Panics
    /// When the migrations do not run.
    pub async fn migrated_sqlite() -> Self {
        static TEMPLATE: OnceCell<Vec<u8>> = OnceCell::const_new();
        let template = TEMPLATE.get_or_init(|| async {
            let database = Self::sqlite();
            database.migrate().await;
            std::fs::read(database.file()).expect("the migrated file")
        });
        let database = Self::sqlite();
        std::fs::write(database.file(), template.await).expect("a copy of it");
        database
    }

    /// An empty PostgreSQL database; `None`, with a loud skip, where there is no PostgreSQL.
    pub async fn postgres() -> Option<Self> {
        Self::create("template0").await
    }

    /// A PostgreSQL database with every migration applied, cloned from a template; `None` as [`Database::postgres`].
    pub async fn migrated_postgres() -> Option<Self> {
        static TEMPLATE: OnceCell<String> = OnceCell::const_new();
        let server = postgres::server().await?;
        let template = TEMPLATE.get_or_init(|| async { template(server).await }).await;
        Self::create(template).await
    }

    /// An empty database of a server that may be broken.
    #[must_use]
    pub fn of(cluster: &Cluster) -> Self {
        Self { url: cluster.url.clone(), kind: Kind::Cluster }
    }

    /// As [`Database::postgres`], on a server of this process's own, which lets in every role without a password.
    pub async fn postgres_of_our_own() -> Option<Self> {
        if std::env::var_os("TEST_DATABASE_URL").is_some() {
            skip("TEST_DATABASE_URL is set: needs a PostgreSQL that lets in every role");
            return None;
        }
        Self::postgres().await
    }

    /// Applies the migrations that are not applied yet.
    ///
    /// # Panics
    /// When they do not run.
    pub async fn migrate(&self) {
        migrate(&self.url).await;
    }

    /// Applies the next migration.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn migrate_one_up(&self) {
        runner().up(&target(&self.url), Some(1)).await.expect("a migration runs");
    }

    /// Undoes the last migration.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn migrate_one_down(&self) {
        runner().down(&target(&self.url), 1).await.expect("a migration is undone");
    }

    /// The file of a SQLite database.
    #[must_use]
    pub fn file(&self) -> &str {
        self.url.trim_start_matches("sqlite://").trim_end_matches("?mode=rwc")
    }

    async fn create(template: &str) -> Option<Self> {
        let Some(server) = postgres::server().await else {
            skip("no PostgreSQL: install postgresql, or set TEST_DATABASE_URL");
            return None;
        };
        let name = format!("bulkhead_test_{}", Uuid::now_v7().simple());
        execute(server, &format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        Some(Self { url: url_of(server, &name), kind: Kind::Postgres { server, name } })
    }

    /// A connection to look into the database with.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub async fn connect(&self) -> DatabaseConnection {
        sea_orm::Database::connect(&self.url).await.expect("the test's database opens")
    }

    /// The names of all tables, sorted.
    ///
    /// # Panics
    /// When the database cannot be read.
    pub async fn tables(&self) -> Vec<String> {
        let sql = match self.kind {
            Kind::Sqlite { .. } => "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name",
            Kind::Postgres { .. } | Kind::Cluster => {
                "SELECT tablename::text AS name FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename"
            }
        };
        let connection = self.connect().await;
        let statement = Statement::from_string(connection.get_database_backend(), sql);
        let rows = connection.query_all_raw(statement).await.expect("the catalogue reads");
        let names = rows.iter().map(|row| row.try_get("", "name").expect("a name")).collect();
        connection.close().await.expect("the connection closes");
        names
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Kind::Postgres { server, name } = &self.kind {
            let statement = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            // Drop is not async and the test's runtime is busy with it: a runtime of its own, on a thread of its own.
            let dropped = std::thread::scope(|scope| {
                let work = || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                    runtime.map(|runtime| runtime.block_on(execute(server, &statement)))
                };
                scope.spawn(work).join()
            });
            assert!(dropped.is_ok() || std::thread::panicking(), "cannot drop {name}");
        }
    }
}

/// The migrated template, made by the first test process that needs it; its name holds a hash of the migrations,
/// so that a server which is kept (`TEST_DATABASE_URL`) never serves an old one.
async fn template(server: &str) -> String {
    let name = format!("bulkhead_template_{:016x}", migrations_hash());
    let admin = sea_orm::Database::connect(server).await.expect("the test server opens");
    // Two test processes may come at once. The lock goes with the connection.
    admin.execute_unprepared("SELECT pg_advisory_lock(1)").await.expect("the lock");
    let known = Statement::from_sql_and_values(
        admin.get_database_backend(),
        "SELECT 1 AS one FROM pg_database WHERE datname = $1",
        [name.clone().into()],
    );
    if admin.query_one_raw(known).await.expect("the catalogue reads").is_none() {
        let half = format!("{name}_unfinished");
        execute(server, &format!("DROP DATABASE IF EXISTS {half} WITH (FORCE)")).await;
        execute(server, &format!("CREATE DATABASE {half} TEMPLATE template0")).await;
        let url = url_of(server, &half);
        migrate(&url).await;
        execute(server, &format!("ALTER DATABASE {half} RENAME TO {name}")).await;
    }
    admin.close().await.expect("the connection closes");
    name
}

async fn migrate(url: &str) {
    runner().up(&target(url), None).await.expect("the migrations run");
}

fn runner() -> Runner {
    Runner::new(bulkhead_migration::migrations(), Options::default())
}

pub(crate) fn target(url: &str) -> Target {
    if url.starts_with("sqlite:") {
        Target::Sqlite(Box::new(SqliteConnectOptions::from_str(url).expect("a SQLite URL")))
    } else {
        Target::Postgres(Box::new(PgConnectOptions::from_str(url).expect("a PostgreSQL URL")))
    }
}

/// A hash of what the migrations do and of what they record.
fn migrations_hash() -> u64 {
    let mut hasher = DefaultHasher::new();
    for migration in bulkhead_migration::all() {
        let checksum = migration.checksum(sea_orm::DbBackend::Postgres);
        (migration.name, migration.min_compatible_version, checksum).hash(&mut hasher);
    }
    hasher.finish()
}

async fn execute(server: &str, statement: &str) {
    let admin = sea_orm::Database::connect(server).await.expect("the test server opens");
    admin.execute_unprepared(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    admin.close().await.expect("the connection closes");
}

/// The URL of another database on the same server.
fn url_of(server: &str, name: &str) -> String {
    let database = PgConnectOptions::from_str(server).expect("TEST_DATABASE_URL is a PostgreSQL URL");
    let database = database.get_database().unwrap_or_default();
    // The database is the last part of the path, before the parameters.
    let (path, parameters) = server.split_once('?').map_or((server, String::new()), |(p, q)| (p, format!("?{q}")));
    let stem = path.strip_suffix(database).filter(|stem| stem.ends_with('/')).unwrap_or(path);
    format!("{}/{name}{parameters}", stem.trim_end_matches('/'))
}
