//! The operations of every resource.

use super::list::ListQuery;
use super::precondition::{IfMatch, with_etag};
use super::{Id, Read, Resource, Write, path};
use crate::app::AppState;
use crate::audit::{self, Action};
use crate::context::{Require, TenantContext};
use crate::error::ApiError;
use crate::input::JsonBody;
use crate::tenancy::{Cursor, IdOf, Table, TenantTransaction};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use sea_orm::{ActiveModelTrait, EntityTrait, IdenStatic, Iterable, ModelTrait, Value};
use serde::Serialize;

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
) -> Result<Response, ApiError> {
    get_row::<R>(&context, id).await
}

/// Reads a live row of the caller's tenant.
pub(crate) async fn get_row<T: Table<Model: Serialize>>(
    context: &TenantContext,
    id: IdOf<T>,
) -> Result<Response, ApiError> {
    let event = context.event(Action::DataAccess, T::NAME).on(id);
    let row = context.read(event, async |tx| tx.get::<T>(id).await).await?;
    Ok(with_etag::<T>(StatusCode::OK, &row))
}

pub(super) async fn create<R: Resource>(
    State(state): State<AppState>,
    Require(context, ..): Require<Write<R>>,
    JsonBody(new): JsonBody<R::New>,
) -> Result<Response, ApiError> {
    let row = R::new_row(new, &context.caller, &state.settings)?;
    let row = context
        .change(context.event(Action::Created, R::NAME), async |tx| {
            R::before_write(tx, None, &row).await?;
            tx.insert::<R>(row).await
        })
        .await?;
    let location = [(header::LOCATION, format!("/api/v1/{}/{}", path::<R>(), R::sort_key(&row).1))];
    Ok((location, with_etag::<R>(StatusCode::CREATED, &row)).into_response())
}

pub(super) async fn update<R: Resource>(
    State(state): State<AppState>,
    Require(context, ..): Require<Write<R>>,
    Id(id): Id<R>,
    version: IfMatch,
    JsonBody(changes): JsonBody<R::Changes>,
) -> Result<Response, ApiError> {
    let changes = R::changes(changes, &state.settings)?;
    let row = context
        .change(context.event(Action::Updated, R::NAME).on(id), async |tx| {
            R::before_write(tx, Some(id), &changes).await?;
            update_row::<R>(tx, id, &version, changes).await
        })
        .await?;
    Ok(with_etag::<R>(StatusCode::OK, &row))
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
) -> Result<Response, ApiError> {
    let event = context.event(Action::Restored, R::NAME).on(id);
    let row = context.change(event, async |tx| tx.restore::<R>(id).await).await?;
    Ok(with_etag::<R>(StatusCode::OK, &row))
}
