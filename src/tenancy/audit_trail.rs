//! Pages of the audit log: by number, or by time where a time is named; and who saw one thing, also in a list.

use super::query::{TenantQuery, sqlite_timestamp};
use super::table::Table;
use crate::audit::{Action, ID_ENDS, IDS, IdEnds, Shown, end_bytes, format_timestamp, id_end};
use crate::entity::audit_log::{self, Column, Entity};
use crate::error::ApiError;
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbBackend, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait,
    Select, Value,
};
use std::collections::HashMap;
use time::OffsetDateTime;
use uuid::Uuid;

/// How many entries of the chain one page looks through for lists that showed a thing: no index finds those. Under
/// row-level security only operators that are leakproof may use one (postgresql.org/docs/current/rules-privileges.html),
/// which those of arrays and texts' parts are not.
const WINDOW: u32 = 20_000;

/// Which entries a page is of.
#[derive(Debug, Clone)]
pub struct Trail {
    /// Only entries from this time on.
    pub since: Option<OffsetDateTime>,
    /// Only entries before this time.
    pub until: Option<OffsetDateTime>,
    /// Only what was done to this thing, or to a list that showed it: its kind and its id.
    pub thing: Option<(String, Uuid)>,
    /// Only entries for which this is true, too.
    pub narrow: Condition,
    /// Only entries behind the one of this number.
    pub after: Option<i64>,
    /// How many entries at most.
    pub limit: u64,
}

/// A page of the log, newest first. It may have fewer entries than were asked for, and not be the last one.
#[derive(Debug)]
pub struct Entries {
    /// Its entries.
    pub rows: Vec<audit_log::Model>,
    /// Behind which entry the next page begins; none where the log ends.
    pub next: Option<i64>,
}

/// An entry's place: its number and its time.
type Place = (i64, OffsetDateTime);

impl TenantQuery<'_, Entity> {
    /// A page of the log; `None` where there is no entry of the number behind which it is to begin.
    pub async fn trail(self, trail: Trail) -> Result<Option<Entries>, ApiError> {
        let backend = self.transaction.get_database_backend();
        // Times ascend with numbers unless a clock was set back. Where a time is named, entries are in the order of times,
        // which an index has: nothing is left out, whatever the clock did.
        let timed = trail.since.is_some() || trail.until.is_some();
        let mut range = self
            .select
            .apply_if(trail.since, |select, since| select.filter(Column::CreatedAt.gte(log_timestamp(backend, since))))
            .apply_if(trail.until, |select, until| select.filter(Column::CreatedAt.lt(log_timestamp(backend, until))));
        if timed {
            range = range.order_by_desc(Column::CreatedAt);
        }
        range = range.order_by_desc(Column::Sequence);
        let place = |select: Select<Entity>| select.select_only().columns([Column::Sequence, Column::CreatedAt]);
        match trail.after {
            Some(after) if timed => {
                let this = Entity::find().filter(Column::TenantId.eq(self.tenant)).filter(Column::Sequence.eq(after));
                let Some(after) = place(this).into_tuple::<Place>().one(self.transaction).await? else {
                    return Ok(None);
                };
                range = range.filter(as_pair().lt(pair(backend, after)));
            }
            Some(after) => range = range.filter(Column::Sequence.lt(after)),
            None => {}
        }
        let Some((kind, id)) = trail.thing else {
            let rows = range.filter(trail.narrow).limit(trail.limit + 1).all(self.transaction).await?;
            return Ok(Some(page(rows, trail.limit, None)));
        };

        // Nobody saw it before it was made.
        let made = Entity::find()
            .filter(Column::TenantId.eq(self.tenant))
            .filter(Column::ResourceId.eq(id))
            .filter(Column::Action.eq(Action::Created.name()))
            .order_by_asc(Column::Sequence);
        let made = place(made).into_tuple::<Place>().one(self.transaction).await?.map(|(number, _)| number);
        if let Some(made) = made {
            range = range.filter(Column::Sequence.gte(made));
        }
        let edge = if timed {
            let edge = place(range.clone()).offset(u64::from(WINDOW - 1)).limit(1).into_tuple::<Place>();
            let edge = edge.one(self.transaction).await?;
            range = range.apply_if(edge, |range, edge| range.filter(as_pair().gte(pair(backend, edge))));
            edge.map(|(number, _)| number)
        } else {
            // Numbers have no gaps: nothing needs to be counted.
            let newest = place(range.clone()).limit(1).into_tuple::<Place>().one(self.transaction).await?;
            let edge =
                newest.map(|(newest, _)| newest - i64::from(WINDOW) + 1).filter(|edge| *edge > made.unwrap_or(1));
            range = range.apply_if(edge, |range, edge| range.filter(Column::Sequence.gte(edge)));
            edge
        };
        let range = range.filter(Column::ResourceType.eq(kind)).filter(trail.narrow).limit(trail.limit + 1);
        let mut rows = range.clone().filter(Column::ResourceId.eq(id)).all(self.transaction).await?;
        let lists = range.filter(Column::Action.eq(Action::DataAccess.name())).filter(Column::ResourceId.is_null());
        rows.extend(lists.filter(may_show(backend, id)).all(self.transaction).await?);
        rows.sort_by_key(|row| std::cmp::Reverse((timed.then_some(row.created_at), row.sequence)));
        let mut page = page(rows, trail.limit, edge);
        page.rows
            .retain(|row| row.resource_id.is_some() || Shown::of(&row.metadata).is_some_and(|shown| shown.has(id)));
        Ok(Some(page))
    }
}

impl<T: Table> TenantQuery<'_, T> {
    /// The ids of the rows that a list showed, in its order.
    pub async fn ending(self, shown: &IdEnds) -> Result<Vec<Uuid>, ApiError> {
        let backend = self.transaction.get_database_backend();
        let time = |ms: i64| OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
        let (Ok(oldest), Ok(behind)) = (time(shown.oldest_ms), time(shown.newest_ms + 1)) else {
            return Ok(Vec::new());
        };
        let (oldest, behind) = (sqlite_timestamp(backend, oldest), sqlite_timestamp(backend, behind));
        // Five of the last six bytes, which an id's text has behind its last hyphen.
        let last_bytes = match backend {
            DbBackend::Postgres => "substr(id::text, 25, 10)",
            _ => "lower(hex(substr(id, 11, 5)))",
        };
        let mut ids = self
            .select
            .select_only()
            .column(T::ID)
            .filter(T::CREATED_AT.gte(oldest))
            .filter(T::CREATED_AT.lt(behind))
            .filter(Expr::cust(last_bytes).is_in(shown.ends.iter().filter_map(|end| end_bytes(end))))
            .into_tuple::<Uuid>()
            .all(self.transaction)
            .await?;
        let places: HashMap<&str, usize> = shown.ends.iter().map(String::as_str).zip(0..).collect();
        ids.retain(|id| places.contains_key(id_end(*id).as_str()));
        ids.sort_by_cached_key(|id| places.get(id_end(*id).as_str()).copied());
        Ok(ids)
    }
}

/// The first `limit` of the rows; where there are no more of them, the next page begins behind `edge`.
fn page(mut rows: Vec<audit_log::Model>, limit: u64, edge: Option<i64>) -> Entries {
    let more = rows.len() as u64 > limit;
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next = if more { rows.last().map(|last| last.sequence) } else { edge };
    Entries { rows, next }
}

/// What is true of all entries of lists that showed the thing, and of few others: its text may lie across two ids.
fn may_show(backend: DbBackend, id: Uuid) -> Expr {
    let (find, one, two) = match backend {
        DbBackend::Postgres => ("strpos", "$1", "$2"),
        _ => ("instr", "?", "?"),
    };
    let sql = format!("({find}(metadata ->> '{ID_ENDS}', {one}) > 0 OR {find}(metadata ->> '{IDS}', {two}) > 0)");
    Expr::cust_with_values(sql, [id_end(id), id.to_string()])
}

fn as_pair() -> Expr {
    Expr::tuple([Expr::col((Entity, Column::CreatedAt)), Expr::col((Entity, Column::Sequence))])
}

fn pair(backend: DbBackend, (number, at): Place) -> Expr {
    Expr::tuple([Expr::val(log_timestamp(backend, at)), Expr::val(number)])
}

/// SQLite compares times as text, which the log has in one form.
fn log_timestamp(backend: DbBackend, at: OffsetDateTime) -> Value {
    match backend {
        DbBackend::Postgres => at.into(),
        _ => format_timestamp(at).into(),
    }
}
