//! A tenant's transaction: the only way from a handler to the tenant's data.

use super::last_admin::{self, Loss};
use super::query::TenantQuery;
use super::readers::Reading;
use super::table::{IdOf, Table, TenantScoped};
use crate::audit::{self, EventDraft, Recorder, Turn};
use crate::database::Transaction;
use crate::error::{ApiError, ErrorCode};
use crate::ids::{TenantId, UserId};
use sea_orm::sea_query::{Expr, IntoCondition, Query, SelectStatement};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, Condition, ConnectionTrait, DbBackend, DbErr, FromQueryResult, Iterable,
    QueryFilter, QueryTrait, RuntimeErr, SqlErr, Value,
};
use std::ops::Deref;
use time::OffsetDateTime;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

/// One transaction of one tenant, and the event that the audit log will say of it. Everything is rolled back unless
/// [`Tenancy::change`](super::Tenancy::change) commits it.
#[derive(Debug)]
pub struct TenantTransaction {
    held: Held,
    event: EventDraft,
    tenant_id: TenantId,
    required: Vec<Required>,
}

/// What the transaction runs in.
#[derive(Debug)]
pub(super) enum Held {
    /// One that only reads, and that other reads may use later.
    Reading(Reading),
    /// One that other changes may share.
    Shared(Turn),
    /// One that makes one change, and its places.
    Alone((Transaction, [OwnedSemaphorePermit; 2])),
}

impl Deref for Held {
    type Target = Transaction;

    fn deref(&self) -> &Transaction {
        match self {
            Self::Reading(reading) => reading,
            Self::Alone((transaction, _)) => transaction,
            Self::Shared(turn) => turn,
        }
    }
}

/// A row without which nothing is written.
#[derive(Debug)]
struct Required {
    field: String,
    table: &'static str,
    id: Uuid,
    /// Selects the row.
    live: SelectStatement,
}

impl TenantTransaction {
    pub(super) fn new(held: Held, event: EventDraft) -> Self {
        let tenant_id = event.tenant_id();
        Self { held, event, tenant_id, required: Vec::new() }
    }

    /// The transaction, and whose it is.
    pub(super) fn parts(&self) -> (&Transaction, TenantId) {
        (&self.held, self.tenant_id)
    }

    /// The event that the audit log will say of it: to add to it what only the work can tell.
    pub fn event(&mut self) -> &mut EventDraft {
        &mut self.event
    }

    pub(super) fn tenant_id(&self) -> TenantId {
        self.tenant_id
    }

    pub(super) fn backend(&self) -> DbBackend {
        self.held.get_database_backend()
    }

    pub(super) fn connection(&self) -> &Transaction {
        &self.held
    }

    /// A query on the tenant's rows of `T`.
    pub fn find<T: TenantScoped>(&self) -> TenantQuery<'_, T> {
        TenantQuery {
            tenant: self.tenant_id,
            select: T::find().filter(T::TENANT.eq(self.tenant_id)),
            transaction: &self.held,
        }
    }

    /// The live row of this id. Whether it is there becomes part of the event.
    pub async fn get<T: Table>(&mut self, id: IdOf<T>) -> Result<T::Model, ApiError> {
        let row = self.find::<T>().not_deleted().one(id).await?;
        self.found(row)
    }

    /// As [`TenantTransaction::get`]; nobody else may change the row until the transaction ends.
    pub async fn get_for_update<T: Table>(&mut self, id: IdOf<T>) -> Result<T::Model, ApiError> {
        let row = self.find::<T>().not_deleted().one_for_update(id).await?;
        self.found(row)
    }

    fn found<M>(&mut self, row: Option<M>) -> Result<M, ApiError> {
        self.event.set_found(row.is_some());
        row.ok_or_else(|| ErrorCode::NotFound.into())
    }

    /// Has the insertion or the update that follows refused where the tenant does not have the row that the request names
    /// in `field`. Another tenant's row is as good as none. The database looks for it within that statement.
    pub fn require<T: Table>(&mut self, field: &str, id: IdOf<T>) {
        let live = self.find::<T>().not_deleted().filter(T::ID.eq(id)).select.into_query();
        self.required.push(Required { field: field.to_owned(), table: T::NAME, id: id.into(), live });
    }

    /// Inserts a row, which gets an id where it has none; its tenant is this one, whatever `row` says. A unique violation is a conflict, a
    /// violated foreign key is not found.
    pub async fn insert<T: Table>(&mut self, mut row: T::ActiveModel) -> Result<T::Model, ApiError> {
        let id = match row.get(T::ID).into_value() {
            Some(Value::Uuid(Some(id))) => id,
            _ => Uuid::now_v7(),
        };
        row.set(T::ID, id.into());
        row.set(T::TENANT, self.tenant_id.into());
        let (mut columns, mut values) = (Vec::new(), Query::select());
        for column in T::Column::iter() {
            if let Some(value) = row.get(column).into_value() {
                columns.push(column);
                values.expr(column.save_as(Expr::val(value)));
            }
        }
        values.cond_where(self.all_required());
        let mut insert = Query::insert();
        insert.into_table(T::default().table_ref()).columns(columns);
        insert.select_from(values).map_err(|error| ApiError::internal(&error))?;
        let row = if self.held.get_database_backend() == DbBackend::Postgres {
            let columns = T::Column::iter().map(|column| column.select_as(Expr::col(column)));
            insert.returning(Query::returning().exprs(columns));
            let inserted = self.held.query_one(&insert).await.map_err(constraint_error::<T>)?;
            inserted.map(|row| T::Model::from_query_result(&row, "")).transpose()?
        } else {
            // Without defaults that are expressions, and as the triggers left it.
            let done = self.held.execute(&insert).await.map_err(constraint_error::<T>)?;
            if done.rows_affected() == 0 { None } else { self.find::<T>().one(id.into()).await? }
        };
        let Some(row) = row else { return Err(self.missing().await?) };
        self.event.set_resource_id(id);
        Ok(row)
    }

    /// Whether all that is required is there.
    fn all_required(&self) -> Condition {
        self.required.iter().fold(Condition::all(), |all, row| all.add(Expr::exists(row.live.clone())))
    }

    /// Why nothing was written: the error of the row that is not there.
    async fn missing(&mut self) -> Result<ApiError, ApiError> {
        self.look_for_required().await?;
        self.event.set_found(false);
        Ok(ErrorCode::NotFound.into())
    }

    /// As the statement that follows would, for what is to be compared before: a precondition does not matter where the
    /// request fails without it (RFC 9110, section 13.2.1).
    pub async fn look_for_required(&mut self) -> Result<(), ApiError> {
        for row in &self.required {
            if self.held.query_one(&row.live).await?.is_none() {
                self.event.turn_into_read_of(row.table, row.id);
                self.event.set_found(false);
                let error = ApiError::detailed(ErrorCode::NotFound, "there is no such row");
                return Err(error.of_field(row.field.clone()));
            }
        }
        Ok(())
    }

    /// Changes a live row.
    pub async fn update<T: Table>(&mut self, id: IdOf<T>, changes: T::ActiveModel) -> Result<T::Model, ApiError> {
        let which = Condition::all().add(T::DELETED_AT.is_null()).add(self.all_required());
        match self.change::<T>(id, changes, which).await? {
            None => Err(self.missing().await?),
            row => self.found(row),
        }
    }

    /// Deletes a live row, which stays in the table and can be restored.
    pub async fn delete<T: Table>(&mut self, id: IdOf<T>) -> Result<(), ApiError> {
        let mut changes = T::ActiveModel::default();
        changes.set(T::DELETED_AT, OffsetDateTime::now_utc().into());
        let row = self.change::<T>(id, changes, T::DELETED_AT.is_null()).await?;
        self.found(row).map(drop)
    }

    /// Restores a deleted row. A row that is not deleted is returned as it is, and the event becomes a read.
    pub async fn restore<T: Table>(&mut self, id: IdOf<T>) -> Result<T::Model, ApiError> {
        let mut changes = T::ActiveModel::default();
        changes.set(T::DELETED_AT, Value::TimeDateTimeWithTimeZone(None));
        if let Some(row) = self.change::<T>(id, changes, T::DELETED_AT.is_not_null()).await? {
            return Ok(row);
        }
        self.event.turn_into_read();
        self.get::<T>(id).await
    }

    /// Refuses to take this from the tenant's last admin; `field` is what the caller must leave as it is. The answer holds
    /// until the transaction ends. Ask this before anything else, also before If-Match is compared (RFC 9110, section 13.2.1).
    pub async fn keep_an_admin(&mut self, user: UserId, loss: Loss, field: Option<&str>) -> Result<(), ApiError> {
        if !last_admin::is_last(&self.held, self.tenant_id, user, loss).await? {
            return Ok(());
        }
        self.event.set_found(true);
        Err(ApiError::from(ErrorCode::LastAdmin).of_field(field.map(str::to_owned)))
    }

    async fn change<T: Table>(
        &self,
        id: IdOf<T>,
        changes: T::ActiveModel,
        which: impl IntoCondition,
    ) -> Result<Option<T::Model>, ApiError> {
        let update = T::update_many().set(changes).filter(T::TENANT.eq(self.tenant_id)).filter(T::ID.eq(id));
        let update = update.filter(which.into_condition());
        if self.held.get_database_backend() == DbBackend::Postgres {
            return Ok(update.exec_with_returning(&*self.held).await.map_err(constraint_error::<T>)?.pop());
        }
        // SQLite returns the row as it was before the triggers.
        let done = update.exec(&*self.held).await.map_err(constraint_error::<T>)?;
        if done.rows_affected == 0 {
            return Ok(None);
        }
        self.find::<T>().one(id).await
    }

    /// Ends the transaction by the outcome of its work. This is the one place that decides what is kept:
    ///
    /// - a change is committed together with its entry in the audit log,
    /// - a read is rolled back, and recorded before this returns,
    /// - an error of the caller (4xx) is rolled back, and recorded with its code, since it tells something of the tenant's
    ///   data,
    /// - any other error is rolled back.
    pub(super) async fn end<R>(self, outcome: Result<R, ApiError>, recorder: &Recorder) -> Result<R, ApiError> {
        let Self { held, mut event, .. } = self;
        match &outcome {
            Ok(_) => {}
            Err(error) if error.code.is_client_error() => {
                event.turn_into_read();
                event.add("code", error.code.code());
            }
            Err(_) => return outcome,
        }
        match held {
            Held::Reading(reading) => {
                // Its connection is there for others once the rows are read. Reads are recorded in batches, so that they do not
                // wait for each other at the chain's end.
                drop(reading);
                recorder.record(event).await?;
            }
            Held::Shared(turn) if event.is_read() => turn.undo(event).await?,
            Held::Shared(turn) => turn.commit(event).await?,
            Held::Alone(alone) if event.is_read() => {
                drop(alone);
                recorder.record(event).await?;
            }
            Held::Alone((transaction, _places)) => {
                audit::append(&transaction, vec![event]).await?;
                transaction.commit().await?;
            }
        }
        outcome
    }
}

/// Turns the violation of a constraint into the caller's error. The database's own message names indexes and constraints, and
/// differs between PostgreSQL and SQLite.
fn constraint_error<T: Table>(error: DbErr) -> ApiError {
    match error.sql_err() {
        Some(SqlErr::UniqueConstraintViolation(_)) => {
            let field = clashing_field::<T>(&error);
            let what = field.map(|field| format!("another one of the {} has this {field}", T::NAME));
            ApiError { detail: what, ..ErrorCode::Conflict.into() }.of_field(field.map(str::to_owned))
        }
        Some(SqlErr::ForeignKeyConstraintViolation(_)) => {
            ApiError::detailed(ErrorCode::NotFound, "a row that this refers to does not exist")
        }
        _ => error.into(),
    }
}

/// The field whose value another row has. PostgreSQL names the index. SQLite names it where an expression is indexed, and
/// else lists its columns (sqlite.org, src/build.c, `sqlite3UniqueConstraint`).
fn clashing_field<T: Table>(error: &DbErr) -> Option<&'static str> {
    let (DbErr::Exec(RuntimeErr::SqlxError(cause)) | DbErr::Query(RuntimeErr::SqlxError(cause))) = error else {
        return None;
    };
    let cause = cause.as_database_error()?;
    let find = |is_it: &dyn Fn(&(&str, &str)) -> bool| T::UNIQUE.iter().find(|entry| is_it(entry));
    let entry = match cause.constraint().or_else(|| cause.message().split('\'').nth(1)) {
        Some(index) => find(&|(name, _)| *name == index),
        None => find(&|(_, field)| cause.message().rsplit('.').next() == Some(field)),
    };
    entry.map(|(_, field)| *field)
}
