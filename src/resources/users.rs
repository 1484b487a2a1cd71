//! Users: people who may act in the tenant.

use crate::config::Settings;
use crate::context::Caller;
use crate::entity::user::{ActiveModel, Column, Entity, Role};
use crate::error::{ApiError, ErrorCode};
use crate::ids::UserId;
use crate::resource::{Change, Email, Resource, Text, changed, changed_or_cleared};
use crate::tenancy::{Loss, TenantTransaction};
use sea_orm::ActiveValue::Set;
use sea_orm::{ColumnTrait, Condition};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct UserFilter {
    /// Only users of this role.
    role: Option<Role>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "email": "grace@example.org", "external_idp_id": "auth0|5f7c8ec7c33c6c004bbafe82", "full_name": "Grace Hopper",
    "role": "member",
}))]
pub(crate) struct NewUser {
    /// Unique among the tenant's users, whatever its case; of ASCII characters.
    #[schema(value_type = String, format = Email, max_length = 320, example = "ada@example.org")]
    email: Email,
    /// The subject by which the identity provider knows this person; unique among the tenant's users.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255, pattern = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$", example = "auth0|5f7c8ec7c33c6c004bbafe82")]
    external_idp_id: Option<Text<255>>,
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255, pattern = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$", example = "Ada Lovelace")]
    full_name: Option<Text<255>>,
    /// `member` where it is omitted.
    role: Option<Role>,
}

/// Omitted fields are unchanged; null clears a field that may be null.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"full_name": "Grace Brewster Hopper"}))]
pub(crate) struct UpdateUser {
    #[serde(default)]
    #[schema(value_type = String, required = false, format = Email, max_length = 320, example = "ada@example.org")]
    email: Change<Email>,
    #[serde(default)]
    #[schema(
        value_type = Option<String>, required = false, min_length = 1, max_length = 255, pattern = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$",
        example = "auth0|5f7c8ec7c33c6c004bbafe82"
    )]
    external_idp_id: Change<Option<Text<255>>>,
    #[serde(default)]
    #[schema(value_type = Option<String>, required = false, min_length = 1, max_length = 255, pattern = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$", example = "Ada King")]
    full_name: Change<Option<Text<255>>>,
    #[serde(default)]
    #[schema(value_type = Role, required = false)]
    role: Change<Role>,
}

impl Resource for Entity {
    const SINGULAR: &'static str = "User";
    const DESCRIPTION: &'static str = "The users of the caller's tenant.";
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

    fn new_row(new: NewUser, _: &Caller, _: &Settings) -> Result<ActiveModel, ApiError> {
        Ok(ActiveModel {
            email: Set(new.email.into()),
            external_idp_id: Set(new.external_idp_id.map(String::from)),
            full_name: Set(new.full_name.map(String::from)),
            role: Set(new.role.unwrap_or(Role::Member)),
            ..Default::default()
        })
    }

    fn changes(changes: UpdateUser, _: &Settings) -> Result<ActiveModel, ApiError> {
        Ok(ActiveModel {
            email: changed(changes.email),
            external_idp_id: changed_or_cleared(changes.external_idp_id),
            full_name: changed_or_cleared(changes.full_name),
            role: changed(changes.role),
            ..Default::default()
        })
    }

    async fn before_write(tx: &mut TenantTransaction, id: Option<UserId>, row: &ActiveModel) -> Result<(), ApiError> {
        match (id, &row.role, &row.external_idp_id) {
            (Some(id), Set(Role::Viewer | Role::Member), _) => tx.keep_an_admin(id, Loss::Role, Some("role")).await,
            (Some(id), _, Set(None)) => tx.keep_an_admin(id, Loss::Subject, Some("external_idp_id")).await,
            _ => Ok(()),
        }
    }

    async fn before_delete(tx: &mut TenantTransaction, id: UserId) -> Result<(), ApiError> {
        tx.keep_an_admin(id, Loss::Role, None).await
    }
}
