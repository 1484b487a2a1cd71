//! What a database holds at a moment: what a restored copy is held to later.

use super::catalogue::tenant_tables;
use super::checkpoints::{Checkpoints, make_checkpoints};
use super::tenants::{TenantRow, every_tenant, tenants};
use crate::audit::GENESIS;
use crate::ids::TenantId;
use crate::note::SigningKey;
use bulkhead_migrator::{MigrationStatus, Runner, SchemaState};
use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, IsolationLevel, Statement,
    TransactionTrait,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use time::OffsetDateTime;

/// Under which name of the instance's key records and reports are signed: `AUDIT_ORIGIN/backup`.
pub const BACKUP: &str = "backup";

/// What a database held when a backup was about to begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When it was begun, by this machine's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The version of the build that made it.
    pub build: String,
    /// The migrations that the schema has, oldest first.
    pub migrations: Vec<String>,
    /// Each tenant, deleted ones and the system's included.
    pub tenants: Vec<Holdings>,
}

/// What there is of one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holdings {
    /// Its id.
    pub id: TenantId,
    /// What the identity provider calls it.
    pub external_id: String,
    /// How many rows of its each table has.
    pub rows: BTreeMap<String, i64>,
    /// How many entries its audit log has.
    pub entries: i64,
    /// The hash of the last of them.
    pub head: String,
    /// The log's checkpoint as a signed note; it may be of fewer entries, or of more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
}

/// Looks at the database, and makes a checkpoint of each log where there is a key. An error of the caller is why a log has none:
/// its entries are not those that were signed before.
pub async fn make_record(
    connection: &DatabaseConnection,
    runner: &Runner,
    key: Option<&SigningKey>,
) -> Result<Result<Record, Vec<String>>, DbErr> {
    let at = OffsetDateTime::now_utc();
    let migrations = migrations(&runner.state(connection).await?);
    // A log of which no checkpoint can be made, since entries are archived, is held to its head.
    let Checkpoints { mut notes, refused, .. } = match key {
        Some(key) => make_checkpoints(connection, key, &tenants(connection, None).await?).await?,
        None => Checkpoints::default(),
    };
    if !refused.is_empty() {
        return Ok(Err(refused));
    }
    let mut tenants = holdings(connection).await?;
    for tenant in &mut tenants {
        tenant.checkpoint = notes.remove(&tenant.id);
    }
    Ok(Ok(Record { at, build: env!("CARGO_PKG_VERSION").to_owned(), migrations, tenants }))
}

/// The migrations that the schema has.
pub(super) fn migrations(state: &SchemaState) -> Vec<String> {
    let is_there = |status| !matches!(status, MigrationStatus::Pending | MigrationStatus::OutOfOrder);
    state.migrations.iter().filter(|info| is_there(info.status)).map(|info| info.name.clone()).collect()
}

/// What there is of each tenant, all at one moment.
pub(super) async fn holdings(connection: &DatabaseConnection) -> Result<Vec<Holdings>, DbErr> {
    let backend = connection.get_database_backend();
    // All statements of the transaction see what the first one sees, on SQLite anyway.
    let snapshot = if backend == DbBackend::Postgres {
        let (level, mode) = (IsolationLevel::RepeatableRead, AccessMode::ReadOnly);
        let snapshot = connection.begin_with_config(Some(level), Some(mode)).await?;
        set(&snapshot, "app.directory", "on").await?;
        snapshot
    } else {
        connection.begin().await?
    };
    let tables: Vec<String> = tenant_tables(&snapshot).await?.into_iter().map(|table| table.name).collect();
    let counts = tables.iter().map(|table| {
        let (name, tenant) = (table.replace('"', "\"\""), if table == "tenants" { "id" } else { "tenant_id" });
        format!("(SELECT count(*) FROM \"{name}\" WHERE {tenant} = $1)")
    });
    let of_heads =
        ["sequence", "hash"].map(|column| format!("(SELECT {column} FROM audit_heads WHERE tenant_id = $1)"));
    let sql = format!("SELECT {}", of_heads.into_iter().chain(counts).collect::<Vec<_>>().join(", "));

    let tenants: Vec<TenantRow> = every_tenant().into_model().all(&snapshot).await?;
    let mut all = Vec::with_capacity(tenants.len());
    for TenantRow { id, external_id } in tenants {
        if backend == DbBackend::Postgres {
            // The policies show the owner the rows of this tenant alone.
            set(&snapshot, "app.current_tenant_id", &id.to_string()).await?;
        }
        let statement = Statement::from_sql_and_values(backend, &sql, [id.into()]);
        let row = snapshot.query_one_raw(statement).await?;
        let row = row.ok_or_else(|| DbErr::RecordNotFound("the numbers of rows".to_owned()))?;
        let entries: Option<i64> = row.try_get_by_index(0)?;
        let head: Option<String> = row.try_get_by_index(1)?;
        let rows = tables.iter().zip(2..).map(|(table, at)| Ok((table.clone(), row.try_get_by_index(at)?)));
        all.push(Holdings {
            id,
            external_id,
            rows: rows.collect::<Result<_, DbErr>>()?,
            entries: entries.unwrap_or_default(),
            head: head.unwrap_or_else(|| GENESIS.to_owned()),
            checkpoint: None,
        });
    }
    snapshot.rollback().await?;
    Ok(all)
}

async fn set(snapshot: &DatabaseTransaction, name: &str, value: &str) -> Result<(), DbErr> {
    let values = [name.into(), value.into()];
    let sql = "SELECT set_config($1, $2, true)";
    snapshot.query_one_raw(Statement::from_sql_and_values(DbBackend::Postgres, sql, values)).await?;
    Ok(())
}
