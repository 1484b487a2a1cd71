//! The users of the caller's tenant.

use super::resource::{
    BodyRefused, Clash, Expected, Id, List, Lost, NoRow, Refused, RestoredId, Text, change, create as insert,
    delete as remove, list as page, looked, read, restore as bring_back, tagged,
};
use crate::api::body::{Body, Parameters, given};
use crate::auth::{Admin, Principal};
use crate::entity::user::{self, Role};
use crate::error::{ApiError, ErrorBody, ErrorCode};
use crate::server::AppState;
use crate::tenancy::{Loss, UnitOfWork};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use email_address::{EmailAddress, Options};
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::ColumnTrait;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoResponses, ToSchema};
use uuid::Uuid;

#[derive(Serialize, ToSchema)]
pub(crate) struct User {
    id: Uuid,
    #[schema(format = Email, example = "ada@example.org")]
    email: String,
    /// The subject by which the identity provider knows this person.
    #[schema(example = "auth0|5f7c8ec7c33c6c004bbafe82")]
    external_idp_id: Option<String>,
    #[schema(example = "Ada Lovelace")]
    full_name: Option<String>,
    role: Role,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    last_login_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    updated_at: OffsetDateTime,
}

impl From<user::Model> for User {
    fn from(row: user::Model) -> Self {
        let user::Model { id, email, external_idp_id, full_name, role, last_login_at, created_at, updated_at, .. } =
            row;
        Self { id, email, external_idp_id, full_name, role, last_login_at, created_at, updated_at }
    }
}

/// An address of a form that mail servers take (RFC 5321, RFC 5322): no display name, no spaces, 320 characters at most.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Email(String);

impl TryFrom<String> for Email {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.chars().count() <= 320 && is_email(&text) {
            Ok(Self(text))
        } else {
            Err("must be an e-mail address".into())
        }
    }
}

/// Whether this is an e-mail address, and nothing but one.
pub(crate) fn is_email(text: &str) -> bool {
    let options = Options::default().without_display_text().without_domain_literal().with_required_tld();
    EmailAddress::parse_with_options(text, options).is_ok()
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct UserFilter {
    /// Only users of this role.
    role: Option<Role>,
    /// How many users a page has: 1 to 200; 50 where it is left out.
    #[param(minimum = 1, maximum = 200, example = 50)]
    limit: Option<u64>,
    /// Where the page begins: the `next_cursor` of the one before.
    cursor: Option<String>,
}

/// The users of the caller's tenant, newest first.
#[utoipa::path(
    get, path = "/users", operation_id = "listUsers", tag = "users", security(("bearer" = [])), params(UserFilter),
    responses((status = 200, body = List<User>, description = "A page of them"), Refused)
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    principal: Principal,
    Parameters(filter): Parameters<UserFilter>,
) -> Result<Response, ApiError> {
    page::<user::Entity, User>(&state, principal.actor(), filter.cursor.as_deref(), filter.limit, |find| {
        find.filter_some(filter.role, |role| user::Column::Role.eq(role))
    })
    .await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUser {
    /// Unique among the tenant's users, whatever its case.
    #[schema(value_type = String, format = Email, max_length = 320, example = "ada@example.org")]
    email: Email,
    /// The subject by which the identity provider knows this person; unique among the tenant's users.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255, example = "auth0|5f7c8ec7c33c6c004bbafe82")]
    external_idp_id: Option<Text<255>>,
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255, example = "Ada Lovelace")]
    full_name: Option<Text<255>>,
    /// `member` where it is left out.
    role: Option<Role>,
}

/// Makes a user.
#[utoipa::path(
    post, path = "/users", operation_id = "createUser", tag = "users", security(("bearer" = [])), request_body = NewUser,
    responses(
        (status = 201, body = User, description = "Made", headers(("ETag", description = "Its version"), ("Location", description = "Where it is"))),
        Refused, BodyRefused, Clash
    )
)]
pub(crate) async fn create(
    State(state): State<AppState>,
    Admin(principal): Admin,
    Body(body): Body<NewUser>,
) -> Result<Response, ApiError> {
    let work = state.tenancy.write(principal.actor()).await?;
    let row = user::ActiveModel {
        id: Set(Uuid::now_v7()),
        email: Set(body.email.0),
        external_idp_id: Set(body.external_idp_id.map(|text| text.0)),
        full_name: Set(body.full_name.map(|text| text.0)),
        role: Set(body.role.unwrap_or(Role::Member)),
        ..Default::default()
    };
    let row = insert::<user::Entity>(work, row).await?;
    let location = [(header::LOCATION, format!("/api/v1/users/{}", row.id))];
    Ok((location, tagged::<user::Entity, User>(StatusCode::CREATED, row)).into_response())
}

/// One user.
#[utoipa::path(
    get, path = "/users/{id}", operation_id = "getUser", tag = "users", security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The user's id")),
    responses((status = 200, body = User, description = "The user as it is now", headers(("ETag", description = "Its version"))), Refused, NoRow)
)]
pub(crate) async fn get(State(state): State<AppState>, principal: Principal, Id(id): Id) -> Result<Response, ApiError> {
    let row = read::<user::Entity>(&state, principal.actor(), id).await?;
    Ok(tagged::<user::Entity, User>(StatusCode::OK, row))
}

/// What is left out stays as it is; null makes nothing of it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(clippy::option_option, reason = "left out, null or a value")]
pub(crate) struct UserChanges {
    #[schema(value_type = Option<String>, format = Email, max_length = 320, example = "ada@example.org")]
    email: Option<Email>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255, example = "auth0|5f7c8ec7c33c6c004bbafe82")]
    external_idp_id: Option<Option<Text<255>>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255, example = "Ada King")]
    full_name: Option<Option<Text<255>>>,
    role: Option<Role>,
}

/// Changes a user. The tenant's last admin keeps the role, and the last one with an `external_idp_id` keeps that.
#[utoipa::path(
    patch, path = "/users/{id}", operation_id = "changeUser", tag = "users", security(("bearer" = [])), request_body = UserChanges,
    params(
        ("id" = Uuid, Path, description = "The user's id"),
        ("If-Match" = Option<String>, Header, description = "The ETag of the version to change"),
    ),
    responses(
        (status = 200, body = User, description = "The user as it is now", headers(("ETag", description = "Its version"))),
        Refused, BodyRefused, NoRow, Lost, ClashOrLastAdmin
    )
)]
pub(crate) async fn update(
    State(state): State<AppState>,
    Admin(principal): Admin,
    Id(id): Id,
    expected: Expected,
    Body(body): Body<UserChanges>,
) -> Result<Response, ApiError> {
    let loss = match (&body.role, &body.external_idp_id) {
        (Some(Role::Viewer | Role::Member), _) => Some((Loss::Role, "role")),
        (_, Some(None)) => Some((Loss::Subject, "external_idp_id")),
        _ => None,
    };
    let mut fields = Vec::new();
    let changes = user::ActiveModel {
        email: set(body.email.map(|email| email.0), "email", &mut fields),
        external_idp_id: set(body.external_idp_id.map(text), "external_idp_id", &mut fields),
        full_name: set(body.full_name.map(text), "full_name", &mut fields),
        role: set(body.role, "role", &mut fields),
        ..Default::default()
    };
    let work = state.tenancy.write(principal.actor()).await?;
    let work = match loss {
        Some((loss, field)) => keep_an_admin(work, id, loss, Some(field)).await?,
        None => work,
    };
    let row = change::<user::Entity>(work, id, &expected, changes, fields).await?;
    Ok(tagged::<user::Entity, User>(StatusCode::OK, row))
}

/// Deletes a user, who may then do nothing; `:restore` brings them back. The tenant's last admin stays.
#[utoipa::path(
    delete, path = "/users/{id}", operation_id = "deleteUser", tag = "users", security(("bearer" = [])),
    params(
        ("id" = Uuid, Path, description = "The user's id"),
        ("If-Match" = Option<String>, Header, description = "The ETag of the version to delete"),
    ),
    responses((status = 204, description = "Deleted"), Refused, NoRow, Lost, LastAdmin)
)]
pub(crate) async fn delete(
    State(state): State<AppState>,
    Admin(principal): Admin,
    Id(id): Id,
    expected: Expected,
) -> Result<StatusCode, ApiError> {
    let work = state.tenancy.write(principal.actor()).await?;
    let work = keep_an_admin(work, id, Loss::Role, None).await?;
    remove::<user::Entity>(work, id, &expected).await
}

/// What the deletion of a user may answer besides.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "for the document alone")]
enum LastAdmin {
    /// RES_005: the tenant would have no admin left
    #[response(status = 409)]
    Conflict(ErrorBody),
}

/// What the change of a user may answer besides.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "for the document alone")]
enum ClashOrLastAdmin {
    /// RES_002: another one has what must be unique, `field` says what that is; RES_005: the tenant would have no admin left
    #[response(status = 409)]
    Conflict(ErrorBody),
}

/// Goes on with the work unless the user of this id is the tenant's last admin, and `loss` would end that. If-Match does
/// not matter before this is known (RFC 9110, section 13.2.1).
async fn keep_an_admin(
    work: UnitOfWork,
    id: Uuid,
    loss: Loss,
    field: Option<&'static str>,
) -> Result<UnitOfWork, ApiError> {
    if !work.is_last_admin(id, loss).await? {
        return Ok(work);
    }
    let error = ApiError::from(ErrorCode::LastAdmin).of_field(field.map(str::to_owned));
    Err(work.refuse(looked::<user::Entity>().on(id).with("found", true), error).await)
}

/// Brings a deleted user back.
#[utoipa::path(
    post, path = "/users/{id}:restore", operation_id = "restoreUser", tag = "users", security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The user's id")),
    responses((status = 200, body = User, description = "The user as it is now", headers(("ETag", description = "Its version"))), Refused, NoRow, Clash)
)]
pub(crate) async fn restore(
    State(state): State<AppState>,
    Admin(principal): Admin,
    RestoredId(id): RestoredId,
) -> Result<Response, ApiError> {
    let row = bring_back::<user::Entity>(&state, principal.actor(), id).await?;
    Ok(tagged::<user::Entity, User>(StatusCode::OK, row))
}

fn text<const MOST: usize>(given: Option<Text<MOST>>) -> Option<String> {
    given.map(|text| text.0)
}

/// The column's new value, where there is one; then its name joins `fields`.
pub(super) fn set<T: Into<sea_orm::Value>>(
    value: Option<T>,
    name: &'static str,
    fields: &mut Vec<&'static str>,
) -> sea_orm::ActiveValue<T> {
    value.map_or(NotSet, |value| {
        fields.push(name);
        Set(value)
    })
}
