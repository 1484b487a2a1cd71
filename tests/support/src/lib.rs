//! The harness of the black-box tests: real databases, the server as a real process, conditions to wait for.

mod certificates;
mod database;
mod disk;
mod forward_proxy;
mod locks;
mod pgbouncer;
mod postgres;
pub mod provider;
mod proxy;
mod relay;
mod server;
mod skip;

pub use certificates::Certificates;
pub use database::Database;
pub use disk::{Disk, Record};
pub use forward_proxy::ForwardProxy;
pub use locks::{Locks, measure_locks};
pub use pgbouncer::PgBouncer;
pub use postgres::{Cluster, Part, program as postgres_program};
pub use provider::Provider;
pub use proxy::{Proxy, ProxyKind};
pub use relay::Relay;
pub use rustix::process::Signal;
pub use server::{Server, get_json, http_client, send};
pub use skip::skip;

use std::time::{Duration, Instant};

/// The tables of a migrated database, sorted: those that the migrations create, and the history's.
#[must_use]
pub fn tables() -> Vec<String> {
    let created = |sql: &'static str| sql.split("CREATE TABLE ").skip(1).filter_map(|rest| rest.split(' ').next());
    let migrations = bulkhead_migration::all();
    let mut tables: Vec<String> =
        migrations.iter().flat_map(|migration| created(migration.up.postgres)).map(str::to_owned).collect();
    tables.extend(["seaql_migrations".to_owned(), "seaql_migrations_meta".to_owned()]);
    tables.sort();
    tables
}

/// The name of the newest migration.
///
/// # Panics
/// When there is no migration.
#[must_use]
pub fn newest_migration() -> &'static str {
    bulkhead_migration::all().last().expect("there are migrations").name
}

/// How long anything may take that should happen soon; generous, since machines are noisy.
pub const SOON: Duration = Duration::from_mins(1);

/// Asks `condition` again and again until it gives a value; fails the test after [`SOON`], naming `what`.
///
/// # Panics
/// When the condition has given nothing in time.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(started.elapsed() < SOON, "not within {} s: {what}", SOON.as_secs());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// As [`on_both_databases!`], on databases with every migration applied.
#[macro_export]
macro_rules! on_migrated_databases {
    ($($name:ident),+ $(,)?) => {
        $(mod $name {
            #[tokio::test]
            async fn on_sqlite() {
                super::$name($crate::Database::migrated_sqlite().await).await;
            }

            #[tokio::test]
            async fn on_postgres() {
                if let Some(database) = $crate::Database::migrated_postgres().await {
                    super::$name(database).await;
                }
            }
        })+
    };
}

/// Writes the test once and runs it on SQLite and on PostgreSQL, each on a database of its own.
///
/// `on_both_databases!(name)` expects `async fn name(database: Database)` beside it.
#[macro_export]
macro_rules! on_both_databases {
    ($($name:ident),+ $(,)?) => {
        $(mod $name {
            #[tokio::test]
            async fn on_sqlite() {
                super::$name($crate::Database::sqlite()).await;
            }

            #[tokio::test]
            async fn on_postgres() {
                if let Some(database) = $crate::Database::postgres().await {
                    super::$name(database).await;
                }
            }
        })+
    };
}
