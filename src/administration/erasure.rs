//! Takes away all that is kept of a tenant but its audit log, and what that names.

use super::catalogue::{Column, TenantTable, tenant_tables};
use super::{Operated, must_change_one, open, record};
use crate::audit::{Action, EventDraft};
use crate::database::Transaction;
use crate::entity::tenant::{self, Status};
use crate::entity::user;
use crate::ids::TenantId;
use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::{Alias, Condition, Expr, ExprTrait, Func, Query};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseConnection, DbBackend, DbErr, EntityTrait, QueryFilter, QuerySelect,
    Statement,
};
use serde_json::Value;
use std::collections::BTreeMap;
use time::{Duration, OffsetDateTime};

/// The table of users. The foreign key of the audit log names its rows, in months that are archived, too: they stay, and are emptied.
const USERS: &str = "users";

/// The tables whose rows stay. Those of all others are deleted.
const KEPT: [&str; 6] = [TENANTS, USERS, "audit_logs", "audit_heads", "audit_nodes", "audit_checkpoints"];

/// The table of tenants. The tenant's row stays, since all that is kept refers to it.
const TENANTS: &str = "tenants";

/// The columns of an emptied user that hold something: the first has [`ERASED`], and nothing else of them is a person's.
const OF_EMPTIED: [&str; 7] = ["email", "id", "tenant_id", "role", "created_at", "updated_at", "deleted_at"];

/// The same of an erased tenant.
const OF_TOMBSTONE: [&str; 8] =
    ["name", "id", "external_id", "status", "kms_key_arn", "created_at", "updated_at", "deleted_at"];

/// What an erased tenant is called, and the e-mail address of each of its users.
const ERASED: &str = "erased";

/// What came of an erasure. Nothing has changed unless the tenant is erased now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Erasure {
    /// The tenant is erased: how many rows of each table that had some; of the users, how many were emptied.
    Erased(BTreeMap<String, u64>),
    /// It was erased before.
    NothingLeft,
    /// The tenant is served.
    NotSuspended,
    /// The tenant has not been suspended for long enough: when it will have been.
    TooEarly(OffsetDateTime),
}

/// Erases a tenant that has been suspended, or deleted, for so many days, for good: the rows of its tables, and all that its users'
/// rows say of persons. What stays is the audit log with its checkpoints, and rows without content of the tenant and of the users whom
/// the log names. It is one transaction, with its entry in the log.
///
/// Since when the tenant is suspended is its row's `updated_at`: each change of the row sets that, so that it is never too early.
pub async fn erase_tenant(connection: &DatabaseConnection, external_id: &str, days: u32) -> Operated<Erasure> {
    match open(connection, external_id).await? {
        Ok((transaction, tenant)) => await_writers(transaction, tenant.id).await?,
        Err(refusal) => return Ok(Err(refusal)),
    }
    let (transaction, tenant) = match open(connection, external_id).await? {
        Ok(opened) => opened,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let tables = tenant_tables(&transaction).await?;
    let is_gone = tenant.deleted_at.is_some();
    if is_gone && !is_anything_left(&transaction, &tables, tenant.id).await? {
        return Ok(Ok(Erasure::NothingLeft));
    }
    if tenant.status != Status::Suspended && !is_gone {
        return Ok(Ok(Erasure::NotSuspended));
    }
    let from = tenant.updated_at.saturating_add(Duration::days(days.into()));
    if now(&transaction).await? < from {
        return Ok(Ok(Erasure::TooEarly(from)));
    }

    let mut rows = BTreeMap::new();
    for table in &tables {
        if table.name == USERS {
            rows.insert(table.name.clone(), empty_users(&transaction, table, tenant.id).await?);
        } else if table.name == TENANTS {
            empty_tombstone(&transaction, table, tenant.id).await?;
        }
    }
    for table in in_order(tables)? {
        let mut delete = Query::delete();
        delete.from_table(Alias::new(&table.name)).and_where(table.of(tenant.id));
        rows.insert(table.name, transaction.execute(&delete).await?.rows_affected());
    }
    rows.retain(|_, count| *count > 0);
    leave_tombstone(&transaction, &tenant).await?;
    let counts: Value = rows.iter().map(|(table, count)| (table.clone(), Value::from(*count))).collect();
    let event = EventDraft::new(tenant.id, Action::Erased, "tenants").on(tenant.id);
    record(transaction, vec![event.with("rows", counts).with("after_days", days)]).await?;
    Ok(Ok(Erasure::Erased(rows)))
}

/// Returns once whoever has inserted rows of the tenant's has committed them or not: who was served before it was suspended may still
/// be about to. Their transactions hold the tenant's row, FOR KEY SHARE; this one holds it only for a moment, since entries of the log
/// wait for it. On SQLite a transaction that writes has the file to itself.
async fn await_writers(transaction: Transaction, tenant: TenantId) -> Result<(), DbErr> {
    tenant::Entity::find_by_id(tenant).lock_exclusive().one(&transaction).await.map(drop)
}

/// The time, by the clock that the database's times are of.
async fn now(transaction: &Transaction) -> Result<OffsetDateTime, DbErr> {
    if transaction.get_database_backend() != DbBackend::Postgres {
        return Ok(OffsetDateTime::now_utc());
    }
    let statement = Statement::from_string(DbBackend::Postgres, "SELECT clock_timestamp()");
    let row = transaction.query_one_raw(statement).await?;
    row.ok_or_else(|| DbErr::RecordNotFound("the time".to_owned()))?.try_get_by_index(0)
}

async fn is_anything_left(transaction: &Transaction, tables: &[TenantTable], tenant: TenantId) -> Result<bool, DbErr> {
    for table in tables {
        let mut select = Query::select();
        select.expr(Expr::val(1)).from(Alias::new(&table.name)).and_where(table.of(tenant)).limit(1);
        if table.name == USERS {
            select.cond_where(holds_something(table, &OF_EMPTIED)?);
        } else if table.name == TENANTS {
            select.cond_where(holds_something(table, &OF_TOMBSTONE)?);
        } else if KEPT.contains(&table.name.as_str()) {
            continue;
        }
        if transaction.query_one(&select).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The columns of a table besides those that an emptied row keeps.
fn emptied<'t>(table: &'t TenantTable, kept: &[&str]) -> Result<Vec<&'t str>, DbErr> {
    let columns = table.columns.iter().filter(|column| !kept.contains(&column.name.as_str()));
    let nullable = |column: &'t Column| {
        let (name, table) = (&column.name, &table.name);
        let refused = || DbErr::Custom(format!("column {name} of {table}: nothing empties it; nothing is erased"));
        column.nullable.then_some(name.as_str()).ok_or_else(refused)
    };
    columns.map(nullable).collect()
}

/// Is true of rows that are not emptied, whatever somebody has emptied of them by hand; the first column of `kept` is their name.
fn holds_something(table: &TenantTable, kept: &[&'static str]) -> Result<Condition, DbErr> {
    let named = Condition::any().add(Expr::col(Alias::new(kept[0])).ne(ERASED));
    let columns = emptied(table, kept)?.into_iter();
    Ok(columns.fold(named, |any, column| any.add(Expr::col(Alias::new(column)).is_not_null())))
}

/// Takes what somebody has added to the tenant's row.
async fn empty_tombstone(transaction: &Transaction, table: &TenantTable, tenant: TenantId) -> Result<(), DbErr> {
    let columns = emptied(table, &OF_TOMBSTONE)?;
    if columns.is_empty() {
        return Ok(());
    }
    let mut update = Query::update();
    update.table(Alias::new(TENANTS)).and_where(table.of(tenant));
    update.values(columns.into_iter().map(|column| (Alias::new(column), Expr::cust("NULL"))));
    transaction.execute(&update).await.map(drop)
}

/// Takes all that is of persons from the tenant's users: how many had something.
async fn empty_users(transaction: &Transaction, table: &TenantTable, tenant: TenantId) -> Result<u64, DbErr> {
    let mut update = Query::update();
    update.table(Alias::new(USERS)).and_where(table.of(tenant)).cond_where(holds_something(table, &OF_EMPTIED)?);
    update.value(user::Column::Email, ERASED);
    let deleted_at = Expr::col(user::Column::DeletedAt);
    update.value(user::Column::DeletedAt, Func::coalesce([deleted_at, Expr::val(OffsetDateTime::now_utc())]));
    update.values(emptied(table, &OF_EMPTIED)?.into_iter().map(|column| (Alias::new(column), Expr::cust("NULL"))));
    Ok(transaction.execute(&update).await?.rows_affected())
}

/// The tables whose rows are deleted, each before those that it refers to.
fn in_order(tables: Vec<TenantTable>) -> Result<Vec<TenantTable>, DbErr> {
    let mut left: Vec<TenantTable> = tables.into_iter().filter(|table| !KEPT.contains(&table.name.as_str())).collect();
    let mut order = Vec::new();
    while !left.is_empty() {
        let is_referred_to =
            |name: &String| left.iter().any(|other| other.name != *name && other.refers_to.contains(name));
        let (later, next): (Vec<_>, Vec<_>) = left.iter().cloned().partition(|table| is_referred_to(&table.name));
        if next.is_empty() {
            let names: Vec<String> = later.into_iter().map(|table| table.name).collect();
            let names = names.join(", ");
            return Err(DbErr::Custom(format!(
                "the tables {names} refer to each other in a circle; nothing is erased"
            )));
        }
        order.extend(next);
        left = later;
    }
    Ok(order)
}

/// The tenant's row stays with its external id, so that the log names a tenant, and nobody gets the name again. The name of its key
/// stays, too: whoever destroys that key makes the files unreadable.
async fn leave_tombstone(transaction: &Transaction, tenant: &tenant::Model) -> Result<(), DbErr> {
    let deleted_at = tenant.deleted_at.unwrap_or_else(OffsetDateTime::now_utc);
    let changes = tenant::ActiveModel {
        name: Set(ERASED.to_owned()),
        status: Set(Status::Suspended),
        deleted_at: Set(Some(deleted_at)),
        ..Default::default()
    };
    let update = tenant::Entity::update_many().set(changes).filter(tenant::Column::Id.eq(tenant.id));
    must_change_one(update.exec(transaction).await?.rows_affected)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn table(name: &str, refers_to: &[&str]) -> TenantTable {
        let refers_to = refers_to.iter().map(|name| (*name).to_owned()).collect();
        TenantTable { name: name.to_owned(), columns: Vec::new(), refers_to }
    }

    #[test]
    fn a_table_is_emptied_before_those_that_it_refers_to() {
        let tables = vec![
            table("a_ward", &["tenants"]),
            table("b_bed", &["a_ward", "users"]),
            table("c_stay", &["a_ward", "b_bed", "c_stay"]),
            table("users", &["tenants"]),
        ];
        let order: Vec<String> = in_order(tables).unwrap().into_iter().map(|table| table.name).collect();
        assert_eq!(order, ["c_stay", "b_bed", "a_ward"]);
    }

    #[test]
    fn tables_in_a_circle_are_refused() {
        let error = in_order(vec![table("a", &["b"]), table("b", &["a"]), table("c", &[])]).unwrap_err();
        assert!(error.to_string().contains("the tables a, b refer to each other"), "{error}");
    }
}
