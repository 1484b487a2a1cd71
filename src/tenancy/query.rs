//! Queries on one tenant's rows.

use super::cursor::Cursor;
use super::table::{IdOf, Table, TenantScoped};
use crate::database::Transaction;
use crate::error::ApiError;
use crate::ids::TenantId;
use sea_orm::sea_query::{Expr, ExprTrait, IntoCondition};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbBackend, FromQueryResult, Order, QueryFilter, QueryOrder, QuerySelect, QueryTrait,
    Select, Value,
};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

/// A query on one tenant's rows.
#[derive(Debug)]
pub struct TenantQuery<'w, T: TenantScoped> {
    pub(super) tenant: TenantId,
    pub(super) select: Select<T>,
    pub(super) transaction: &'w Transaction,
}

impl<T: TenantScoped> TenantQuery<'_, T> {
    /// Only rows for which this is true, too.
    #[must_use]
    pub fn filter(mut self, condition: impl IntoCondition) -> Self {
        self.select = self.select.filter(condition.into_condition());
        self
    }

    /// The row of this id.
    pub async fn one(self, id: IdOf<T>) -> Result<Option<T::Model>, ApiError> {
        Ok(self.select.filter(T::ID.eq(id)).one(self.transaction).await?)
    }

    /// The row of this id, which nobody else may change until the transaction ends.
    pub async fn one_for_update(self, id: IdOf<T>) -> Result<Option<T::Model>, ApiError> {
        Ok(self.select.filter(T::ID.eq(id)).lock_exclusive().one(self.transaction).await?)
    }
}

/// How many rows are asked for at once: a page of the usual length, and one more, which tells whether there are more.
const BATCH: u64 = 51;

impl<T: Table> TenantQuery<'_, T> {
    /// Only rows that are not deleted.
    #[must_use]
    pub fn not_deleted(self) -> Self {
        self.filter(T::DELETED_AT.is_null())
    }

    /// Hands rows to `put`, newest first: those behind `after`, `limit` at most, until `put` says that it has no room for
    /// one. Returns the place behind which there are more.
    pub async fn page(
        self,
        after: Option<Cursor>,
        limit: u64,
        put: impl FnMut(T::Model) -> Result<bool, ApiError>,
    ) -> Result<Option<Cursor>, ApiError> {
        let backend = self.transaction.get_database_backend();
        let behind = |after: Option<Cursor>| {
            let mut select = self.select.clone();
            if let Some(Cursor { at, id }) = after {
                // As a pair, which an index on both columns answers.
                let place = Expr::tuple([Expr::col((T::default(), T::CREATED_AT)), Expr::col((T::default(), T::ID))]);
                select =
                    select.filter(place.lt(Expr::tuple([Expr::val(sqlite_timestamp(backend, at)), Expr::val(id)])));
            }
            select.order_by(T::CREATED_AT, Order::Desc).order_by(T::ID, Order::Desc)
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
async fn hand_out<T: Table>(
    behind: impl Fn(Option<Cursor>) -> Select<T>,
    start: Option<Cursor>,
    transaction: &Transaction,
    limit: u64,
    mut put: impl FnMut(T::Model) -> Result<bool, ApiError>,
) -> Result<Option<Cursor>, ApiError> {
    let (mut count, mut last) = (0, start);
    loop {
        let asked = Ord::min(BATCH, limit + 1 - count);
        let query = behind(last).limit(asked).build(transaction.get_database_backend());
        let (mut rows, mut more, mut has_room) = (0, false, true);
        // To the end, so that what PostgreSQL says of the statement is read within the request.
        let handed = transaction.each_row(query, |row| {
            rows += 1;
            more = count == limit;
            if more {
                return Ok(true);
            }
            let row = T::Model::from_query_result(&row, "")?;
            let here = Cursor::of(T::sort_key(&row));
            has_room = put(row)?;
            if has_room {
                (count, last) = (count + 1, Some(here));
            }
            Ok::<_, ApiError>(has_room)
        });
        handed.await?;
        if !has_room {
            // What is left is read now, not while others think that the connection is free.
            transaction.execute_unprepared("SELECT 1").await?;
            return Ok(last);
        }
        if more || rows < asked {
            return Ok(last.filter(|_| more));
        }
    }
}

/// SQLite compares times as text, which the schema writes with milliseconds.
pub(super) fn sqlite_timestamp(backend: DbBackend, at: OffsetDateTime) -> Value {
    const MILLIS: &[BorrowedFormatItem<'_>] =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    match backend {
        DbBackend::Postgres => at.into(),
        _ => at.format(MILLIS).unwrap_or_default().into(),
    }
}
