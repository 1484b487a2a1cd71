//! Users: people who may act in the tenant.

use crate::config::Settings;
use crate::context::Caller;
use crate::entity::user::{self, Column, Entity, Role};
use crate::error::{ApiError, ErrorCode};
use crate::resource::{Email, Resource, Text, double_option};
use crate::tenancy::{Loss, TenantTransaction};
use sea_orm::ActiveValue::Set;
use sea_orm::{ColumnTrait, Condition, IntoActiveValue};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct UserFilter {
    /// Only users of this role.
    role: Option<Role>,
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
    /// `member` where it is omitted.
    role: Option<Role>,
}

/// Omitted fields are unchanged; null clears a field.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(clippy::option_option, reason = "omitted, null or a value")]
pub(crate) struct UpdateUser {
    #[schema(value_type = Option<String>, format = Email, max_length = 320, example = "ada@example.org")]
    email: Option<Email>,
    #[serde(default, deserialize_with = "double_option")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255, example = "auth0|5f7c8ec7c33c6c004bbafe82")]
    external_idp_id: Option<Option<Text<255>>>,
    #[serde(default, deserialize_with = "double_option")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255, example = "Ada King")]
    full_name: Option<Option<Text<255>>>,
    role: Option<Role>,
}

impl Resource for Entity {
    const SINGULAR: &'static str = "User";
    const READ: Role = Role::Viewer;
    const WRITE: Role = Role::Admin;
    const UPDATE_NOTE: &'static str =
        "The tenant's last admin keeps the role, and the last admin with an `external_idp_id` keeps that.";
    const DELETE_NOTE: &'static str =
        "A deleted user can do nothing until it is restored. The tenant's last admin cannot be deleted.";
    const UPDATE_ERRORS: &'static [ErrorCode] = &[ErrorCode::Conflict, ErrorCode::LastAdmin];
    const DELETE_ERRORS: &'static [ErrorCode] = &[ErrorCode::LastAdmin];
    type Filter = UserFilter;
    type New = NewUser;
    type Changes = UpdateUser;

    fn condition(filter: UserFilter) -> Condition {
        Condition::all().add_option(filter.role.map(|role| Column::Role.eq(role)))
    }

    fn new_row(new: NewUser, _: &Caller, _: &Settings) -> Result<user::ActiveModel, ApiError> {
        Ok(user::ActiveModel {
            id: Set(Uuid::now_v7()),
            email: Set(new.email.into()),
            external_idp_id: Set(new.external_idp_id.map(String::from)),
            full_name: Set(new.full_name.map(String::from)),
            role: Set(new.role.unwrap_or(Role::Member)),
            ..Default::default()
        })
    }

    fn changes(changes: UpdateUser, _: &Settings) -> Result<user::ActiveModel, ApiError> {
        Ok(user::ActiveModel {
            email: changes.email.map(String::from).into_active_value(),
            external_idp_id: changes.external_idp_id.map(|text| text.map(String::from)).into_active_value(),
            full_name: changes.full_name.map(|text| text.map(String::from)).into_active_value(),
            role: changes.role.into_active_value(),
            ..Default::default()
        })
    }

    async fn before_update(tx: &mut TenantTransaction, id: Uuid, changes: &user::ActiveModel) -> Result<(), ApiError> {
        match (&changes.role, &changes.external_idp_id) {
            (Set(Role::Viewer | Role::Member), _) => keep_an_admin(tx, id, Loss::Role, Some("role")).await,
            (_, Set(None)) => keep_an_admin(tx, id, Loss::Subject, Some("external_idp_id")).await,
            _ => Ok(()),
        }
    }

    async fn before_delete(tx: &mut TenantTransaction, id: Uuid) -> Result<(), ApiError> {
        keep_an_admin(tx, id, Loss::Role, None).await
    }
}

/// Refuses to take this from the tenant's last admin. It is asked before If-Match is compared (RFC 9110, section 13.2.1).
async fn keep_an_admin(
    tx: &mut TenantTransaction,
    id: Uuid,
    loss: Loss,
    field: Option<&'static str>,
) -> Result<(), ApiError> {
    if !tx.is_last_admin(id, loss).await? {
        return Ok(());
    }
    tx.event().set_found(true);
    Err(ApiError::from(ErrorCode::LastAdmin).of_field(field.map(str::to_owned)))
}
