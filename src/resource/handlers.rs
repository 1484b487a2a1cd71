//! The operations of every resource.

use super::idempotency::{IDEMPOTENCY_REPLAYED, KeyedBody};
use super::list::ListQuery;
use super::precondition::{IfMatch, IfNoneMatch, NoPrecondition};
use super::prefer::Prefer;
use super::{Id, Read, Resource, Write, path};
use crate::app::AppState;
use crate::audit::{self, Action};
use crate::context::{Require, TenantContext};
use crate::error::ApiError;
use crate::input::JsonBody;
use crate::tenancy::{Cursor, IdOf, Table, TenantTransaction};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sea_orm::{ActiveModelTrait, EntityTrait, IdenStatic, Iterable, ModelTrait, Value};
use serde::Serialize;
use uuid::Uuid;

pub(super) async fn list<R: Resource>(
    State(state): State<AppState>,
    Require(context, ..): Require<Read<R>>,
    ListQuery(page, filter): ListQuery<R::Filter>,
) -> Result<Response, ApiError> {
    let (after, size) = (page.after()?, page.size()?);
    let mut rows = state.pages.begin();
    let next = context
        .read(context.event(Action::DataAccess, R::NAME), async |tx| {
            let mut listed = Vec::new();
            let put = |row: R::Model| {
                let taken = rows.push(&row)?;
                if taken {
                    listed.push(R::sort_key(&row));
                }
                Ok(taken)
            };
            let next = tx.find::<R>().not_deleted().filter(R::condition(filter)).page(after, size, put).await?;
            tx.event().add_rows(listed.into_iter());
            Ok(next)
        })
        .await?;
    rows.answer(next.map(Cursor::encode).as_deref())
}

pub(super) async fn get<R: Resource>(
    Require(context, ..): Require<Read<R>>,
    Id(id): Id<R>,
    known: IfNoneMatch,
) -> Result<Response, ApiError> {
    get_row::<R>(&context, id, &known).await
}

/// Reads a live row of the caller's tenant, also where the caller has it already: that it is unchanged, is told of the row, too.
pub(crate) async fn get_row<T: Table<Model: Serialize>>(
    context: &TenantContext,
    id: IdOf<T>,
    known: &IfNoneMatch,
) -> Result<Response, ApiError> {
    let event = context.event(Action::DataAccess, T::NAME).on(id);
    let row = context.read(event, async |tx| tx.get::<T>(id).await).await?;
    Ok(known.answer::<T>(&row))
}

pub(super) async fn create<R: Resource>(
    State(state): State<AppState>,
    Require(context, ..): Require<Write<R>>,
    _: NoPrecondition,
    prefer: Prefer,
    KeyedBody(new, key): KeyedBody<R::New>,
) -> Result<Response, ApiError> {
    let mut row = R::new_row(new, &context.caller, &state.settings)?;
    let event = context.event(Action::Created, R::NAME);
    let made = match key {
        None => {
            let work = async |tx: &mut TenantTransaction| make::<R>(tx, row).await;
            Made::Now(context.change(event, work).await?)
        }
        Some(key) => {
            let key = key.of_caller(&context.caller, R::NAME);
            let id = new_id::<R>(&mut row);
            let work = async |tx: &mut TenantTransaction| make::<R>(tx, row).await.map(Made::Now);
            let again = async |tx: &mut TenantTransaction, id: Uuid| {
                tx.event().turn_into_read_of(R::NAME, id);
                tx.event().add("replayed", true);
                let row = tx.find::<R>().not_deleted().one(id.into()).await?;
                tx.event().set_found(row.is_some());
                Ok(Made::Before(id, row))
            };
            context.change_once(event, &key, id, work, again).await?
        }
    };
    let (id, row) = match &made {
        Made::Now(row) => (R::sort_key(row).1, Some(row)),
        Made::Before(id, row) => (*id, row.as_ref()),
    };
    let mut response = match row {
        Some(row) => prefer.answer::<R>(StatusCode::CREATED, StatusCode::CREATED, row),
        // It was made, and is deleted: there is nothing of it to show.
        None => StatusCode::CREATED.into_response(),
    };
    let location = HeaderValue::try_from(format!("/api/v1/{}/{id}", path::<R>()));
    response.headers_mut().insert(header::LOCATION, location.map_err(|error| ApiError::internal(&error))?);
    if let Made::Before(..) = made {
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// A row that a request was to make.
enum Made<M> {
    /// This request has made it.
    Now(M),
    /// An earlier one with the same key has; none, where it is deleted since.
    Before(Uuid, Option<M>),
}

async fn make<R: Resource>(tx: &mut TenantTransaction, row: R::ActiveModel) -> Result<R::Model, ApiError> {
    R::before_write(tx, None, &row).await?;
    tx.insert::<R>(row).await
}

/// The id of a row that is to be inserted, which gets one where it has none.
fn new_id<R: Resource>(row: &mut R::ActiveModel) -> Uuid {
    if let Some(Value::Uuid(Some(id))) = row.get(R::ID).into_value() {
        return id;
    }
    let id = Uuid::now_v7();
    row.set(R::ID, id.into());
    id
}

pub(super) async fn update<R: Resource>(
    State(state): State<AppState>,
    Require(context, ..): Require<Write<R>>,
    Id(id): Id<R>,
    version: IfMatch,
    prefer: Prefer,
    JsonBody(changes): JsonBody<R::Changes>,
) -> Result<Response, ApiError> {
    let changes = R::changes(changes, &state.settings)?;
    let row = context
        .change(context.event(Action::Updated, R::NAME).on(id), async |tx| {
            R::before_write(tx, Some(id), &changes).await?;
            update_row::<R>(tx, id, &version, changes).await
        })
        .await?;
    Ok(prefer.answer::<R>(StatusCode::OK, StatusCode::NO_CONTENT, &row))
}

/// Changes a live row of the expected version. The event names the fields that change; where none does, it is a read.
pub(crate) async fn update_row<T: Table>(
    tx: &mut TenantTransaction,
    id: IdOf<T>,
    version: &IfMatch,
    changes: T::ActiveModel,
) -> Result<T::Model, ApiError> {
    let columns: Vec<T::Column> = T::Column::iter().filter(|column| !changes.is_not_set(*column)).collect();
    let audited = T::AUDITED.filter(|audited| !changes.is_not_set(*audited));
    let mut before = None;
    if columns.is_empty() || audited.is_some() || !version.is_unconditional() {
        tx.look_for_required().await?;
        let row = tx.get_for_update::<T>(id).await?;
        version.check(T::updated_at(&row))?;
        if columns.is_empty() {
            tx.event().turn_into_read();
            return Ok(row);
        }
        before = audited.map(|column| (column, word(&row, column)));
    }
    let row = tx.update::<T>(id, changes).await?;
    let fields: Vec<&str> = columns.iter().map(IdenStatic::as_str).collect();
    tx.event().add("fields", fields);
    if let Some((column, before)) = before {
        tx.event().add(column.as_str(), audit::change(before, word(&row, column)));
    }
    Ok(row)
}

/// The value of a column of fixed words.
fn word<M: ModelTrait>(row: &M, column: <M::Entity as EntityTrait>::Column) -> Option<String> {
    match row.get(column) {
        Value::String(word) => word,
        _ => None,
    }
}

pub(super) async fn delete<R: Resource>(
    Require(context, ..): Require<Write<R>>,
    Id(id): Id<R>,
    version: IfMatch,
) -> Result<StatusCode, ApiError> {
    let event = context.event(Action::Deleted, R::NAME).on(id);
    context
        .change(event, async |tx| {
            R::before_delete(tx, id).await?;
            if !version.is_unconditional() {
                let row = tx.get_for_update::<R>(id).await?;
                version.check(R::updated_at(&row))?;
            }
            tx.delete::<R>(id).await
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn restore<R: Resource>(
    Require(context, ..): Require<Write<R>>,
    Id(id): Id<R>,
    _: NoPrecondition,
    prefer: Prefer,
) -> Result<Response, ApiError> {
    let event = context.event(Action::Restored, R::NAME).on(id);
    let row = context.change(event, async |tx| tx.restore::<R>(id).await).await?;
    Ok(prefer.answer::<R>(StatusCode::OK, StatusCode::NO_CONTENT, &row))
}
