//! The unit of work: one transaction, one tenant, one entry in the audit log.

use super::admins::{self, Loss};
use super::page::Cursor;
use super::scope::{OfTenant, Resource};
use crate::audit::{self, Actor, Event, Recorder};
use crate::database::Transaction;
use crate::error::{ApiError, ErrorCode};
use futures_util::TryStreamExt;
use sea_orm::sea_query::{Expr, ExprTrait, IntoCondition};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, DbBackend, DbErr, Order, QueryFilter, QueryOrder, QuerySelect,
    RuntimeErr, Select, SqlErr, Value,
};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use uuid::Uuid;

/// One transaction of one tenant. Everything is undone unless it ends with [`UnitOfWork::commit`].
#[derive(Debug)]
#[must_use = "a unit of work ends with `commit`, or with `finish` where it only reads"]
pub struct UnitOfWork {
    transaction: Transaction,
    actor: Actor,
    recorder: Recorder,
}

impl UnitOfWork {
    pub(super) fn new(transaction: Transaction, actor: Actor, recorder: Recorder) -> Self {
        Self { transaction, actor, recorder }
    }

    /// The tenant whose data this is.
    #[must_use]
    pub fn tenant(&self) -> Uuid {
        self.actor.tenant_id
    }

    /// A query on the tenant's rows of `E`.
    pub fn find<E: OfTenant>(&self) -> Find<'_, E> {
        let tenant = self.tenant();
        Find { tenant, select: E::find().filter(E::TENANT.eq(tenant)), transaction: &self.transaction }
    }

    /// Makes a row; its tenant is this one, whatever `row` says. What clashes with a row is a conflict, what cites one
    /// that the tenant has not got is not found.
    pub async fn insert<E: Resource>(&self, mut row: E::ActiveModel) -> Result<E::Model, ApiError> {
        row.set(E::TENANT, self.tenant().into());
        E::insert(row).exec_with_returning(&self.transaction).await.map_err(refusal::<E>)
    }

    /// Changes a live row; `None` where the tenant has none of this id.
    pub async fn update<E: Resource>(&self, id: Uuid, changes: E::ActiveModel) -> Result<Option<E::Model>, ApiError> {
        self.change::<E>(id, changes, E::DELETED_AT.is_null()).await
    }

    /// Deletes a live row, which stays and can be restored; `false` where the tenant has none of this id.
    pub async fn delete<E: Resource>(&self, id: Uuid) -> Result<bool, ApiError> {
        let mut changes = E::ActiveModel::default();
        changes.set(E::DELETED_AT, OffsetDateTime::now_utc().into());
        Ok(self.change::<E>(id, changes, E::DELETED_AT.is_null()).await?.is_some())
    }

    /// Brings a deleted row back; `None` where the tenant has no deleted row of this id.
    pub async fn restore<E: Resource>(&self, id: Uuid) -> Result<Option<E::Model>, ApiError> {
        let mut changes = E::ActiveModel::default();
        changes.set(E::DELETED_AT, Value::TimeDateTimeWithTimeZone(None));
        self.change::<E>(id, changes, E::DELETED_AT.is_not_null()).await
    }

    /// Whether the tenant would have no admin left, or none who can log in, if the user of this id lost that. The answer
    /// holds until the work ends; ask before anything else of it.
    pub async fn is_last_admin(&self, user: Uuid, loss: Loss) -> Result<bool, ApiError> {
        Ok(admins::is_last(&self.transaction, self.tenant(), user, loss).await?)
    }

    async fn change<E: Resource>(
        &self,
        id: Uuid,
        changes: E::ActiveModel,
        which: impl IntoCondition,
    ) -> Result<Option<E::Model>, ApiError> {
        let update = E::update_many().set(changes).filter(E::TENANT.eq(self.tenant())).filter(E::ID.eq(id));
        let update = update.filter(which.into_condition());
        if self.transaction.get_database_backend() == DbBackend::Postgres {
            return Ok(update.exec_with_returning(&self.transaction).await.map_err(refusal::<E>)?.pop());
        }
        // SQLite returns what was there before the triggers.
        let done = update.exec(&self.transaction).await.map_err(refusal::<E>)?;
        if done.rows_affected == 0 {
            return Ok(None);
        }
        self.find::<E>().one(id).await
    }

    /// Ends the work and keeps it, with its entry in the audit log.
    pub async fn commit(self, event: Event) -> Result<(), ApiError> {
        let record = self.actor.did(event);
        audit::append(&self.transaction, self.actor.tenant_id, vec![record]).await?;
        Ok(self.transaction.commit().await?)
    }

    /// Ends work that has only read; returns once that is recorded, before which nothing may be answered.
    pub async fn finish(self, event: Event) -> Result<(), ApiError> {
        let Self { transaction, actor, recorder } = self;
        // Rolls back on the connection's way to the pool. Readers of one tenant do not take turns.
        drop(transaction);
        recorder.record(actor.tenant_id, actor.did(event)).await
    }

    /// Ends work that comes to nothing by `error`, which tells the caller something of the tenant's data: that is
    /// recorded first, with the error's code.
    pub async fn refuse(self, event: Event, error: ApiError) -> ApiError {
        if !error.code.status().is_client_error() {
            return error;
        }
        match self.finish(event.with("code", error.code.code())).await {
            Ok(()) => error,
            Err(unrecorded) => unrecorded,
        }
    }
}

/// A query on one tenant's rows.
#[derive(Debug)]
pub struct Find<'w, E: OfTenant> {
    pub(super) tenant: Uuid,
    pub(super) select: Select<E>,
    pub(super) transaction: &'w Transaction,
}

impl<E: OfTenant> Find<'_, E> {
    /// Only rows for which this is true, too.
    #[must_use]
    pub fn filter(mut self, condition: impl IntoCondition) -> Self {
        self.select = self.select.filter(condition.into_condition());
        self
    }

    /// Only rows for which this is true, where there is something to compare with.
    #[must_use]
    pub fn filter_some<T>(self, value: Option<T>, condition: impl FnOnce(T) -> Expr) -> Self {
        match value {
            Some(value) => self.filter(condition(value)),
            None => self,
        }
    }

    /// The row of this id.
    pub async fn one(self, id: Uuid) -> Result<Option<E::Model>, ApiError> {
        Ok(self.select.filter(E::ID.eq(id)).one(self.transaction).await?)
    }

    /// The row of this id, which nobody else may change until the work ends.
    pub async fn one_to_change(self, id: Uuid) -> Result<Option<E::Model>, ApiError> {
        Ok(self.select.filter(E::ID.eq(id)).lock_exclusive().one(self.transaction).await?)
    }
}

/// How many rows are asked for at once: a page of the usual length, and one more, which tells whether there are more.
const BATCH: u64 = 51;

impl<E: Resource> Find<'_, E> {
    /// Only rows that are not deleted.
    #[must_use]
    pub fn live(self) -> Self {
        self.filter(E::DELETED_AT.is_null())
    }

    /// Hands rows to `put`, newest first: those behind `after`, `limit` at most, until `put` says that it has no room for
    /// one. Returns the place behind which there are more.
    pub async fn page(
        self,
        after: Option<Cursor>,
        limit: u64,
        put: impl FnMut(E::Model) -> Result<bool, ApiError>,
    ) -> Result<Option<Cursor>, ApiError> {
        let backend = self.transaction.get_database_backend();
        let behind = |after: Option<Cursor>| {
            let mut select = self.select.clone();
            if let Some(Cursor { at, id }) = after {
                // As a pair, which an index on both columns answers.
                let place = Expr::tuple([Expr::col((E::default(), E::CREATED_AT)), Expr::col((E::default(), E::ID))]);
                select = select.filter(place.lt(Expr::tuple([Expr::val(moment(backend, at)), Expr::val(id)])));
            }
            select.order_by(E::CREATED_AT, Order::Desc).order_by(E::ID, Order::Desc)
        };
        hand_out(behind, after, self.transaction, limit, put).await
    }
}

/// Hands the first `limit` rows of those `behind` a place to `put`, until it says that it has no room for one. Returns the
/// place of the last one where there are more.
///
/// Each row is dropped before the next one is taken, so that few of them are in memory at once. Of those that are asked for
/// and not taken SQLite makes none: the driver resets the statement (launchbadge/sqlx, sqlx-sqlite/src/connection/worker.rs).
/// PostgreSQL sends them all, and the driver reads past them before the connection's next statement (sqlx-postgres,
/// src/connection/mod.rs, `wait_until_ready`), which is why a long page is asked for in batches.
async fn hand_out<E: Resource>(
    behind: impl Fn(Option<Cursor>) -> Select<E>,
    start: Option<Cursor>,
    transaction: &Transaction,
    limit: u64,
    mut put: impl FnMut(E::Model) -> Result<bool, ApiError>,
) -> Result<Option<Cursor>, ApiError> {
    let (mut count, mut last) = (0, start);
    loop {
        let mut asked = Ord::min(BATCH, limit + 1 - count);
        let mut rows = behind(last).limit(asked).stream(&**transaction).await?;
        let mut more = false;
        // To the end, so that what PostgreSQL says of the statement is read within the request.
        while let Some(row) = rows.try_next().await? {
            let here = Cursor::of(E::place(&row));
            more = count == limit;
            if more {
                continue;
            }
            if !put(row)? {
                // What is left is read now, not while others think that the connection is free.
                drop(rows);
                transaction.execute_unprepared("SELECT 1").await?;
                return Ok(last);
            }
            (count, last, asked) = (count + 1, Some(here), asked - 1);
        }
        if more || asked > 0 {
            return Ok(last.filter(|_| more));
        }
    }
}

/// SQLite compares times as text, which the schema writes with milliseconds.
pub(super) fn moment(backend: DbBackend, at: OffsetDateTime) -> Value {
    const MILLIS: &[BorrowedFormatItem<'_>] =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    match backend {
        DbBackend::Postgres => at.into(),
        _ => at.format(MILLIS).unwrap_or_default().into(),
    }
}

/// What a caller is told of a row that the database does not take. The database's own words name indexes and constraints,
/// and are not the same on PostgreSQL and SQLite.
fn refusal<E: Resource>(error: DbErr) -> ApiError {
    match error.sql_err() {
        Some(SqlErr::UniqueConstraintViolation(_)) => {
            let field = clashing_field::<E>(&error);
            let what = field.map(|field| format!("another one of the {} has this {field}", E::NAME));
            ApiError { detail: what, ..ErrorCode::Conflict.into() }.of_field(field.map(str::to_owned))
        }
        Some(SqlErr::ForeignKeyConstraintViolation(_)) => {
            ApiError::detailed(ErrorCode::NotFound, "there is nothing of an id that this names")
        }
        _ => error.into(),
    }
}

/// The field whose value another row has. PostgreSQL names the index. SQLite names it where an expression is indexed, and
/// else lists its columns (sqlite.org, src/build.c, `sqlite3UniqueConstraint`).
fn clashing_field<E: Resource>(error: &DbErr) -> Option<&'static str> {
    let (DbErr::Exec(RuntimeErr::SqlxError(cause)) | DbErr::Query(RuntimeErr::SqlxError(cause))) = error else {
        return None;
    };
    let cause = cause.as_database_error()?;
    let find = |is_it: &dyn Fn(&(&str, &str)) -> bool| E::UNIQUE.iter().find(|entry| is_it(entry));
    let entry = match cause.constraint().or_else(|| cause.message().split('\'').nth(1)) {
        Some(index) => find(&|(name, _)| *name == index),
        None => find(&|(_, field)| cause.message().rsplit('.').next() == Some(field)),
    };
    entry.map(|(_, field)| *field)
}
