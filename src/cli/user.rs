//! `bulkhead user`: brings back what a tenant's own admins cannot, such as their last admin.

use super::Failure;
use super::table::{moment, print_json, print_line, print_table};
use super::tenant::{email, external_id, operate};
use crate::administration::{self, Refusal};
use crate::config::Settings;
use crate::entity::user::{self, Role};
use crate::entity::word;
use crate::ids::UserId;
use anyhow::anyhow;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use time::OffsetDateTime;

#[derive(Debug, Subcommand)]
pub(super) enum User {
    /// List a tenant's users, deleted ones too; recorded in the tenant's audit log, since it shows who they are
    List(List),
    /// Give a user a role
    Grant(Grant),
    /// Bring a deleted user back: of several with this e-mail address the one who was deleted last
    Restore(Restore),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// The tenant's external id
    #[arg(long, value_name = "EXTERNAL_ID", value_parser = external_id)]
    tenant: String,
    /// Print JSON, an object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Grant {
    #[command(flatten)]
    whom: Whom,
    /// What the user may do from now on
    #[arg(long)]
    role: RoleName,
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    #[command(flatten)]
    whom: Whom,
    /// What the user may do from now on; what it was where it is left out
    #[arg(long)]
    role: Option<RoleName>,
}

#[derive(Debug, Args)]
struct Whom {
    /// The tenant's external id
    #[arg(long, value_name = "EXTERNAL_ID", value_parser = external_id)]
    tenant: String,
    /// The user's e-mail address, in upper or lower case
    #[arg(long, value_parser = email)]
    email: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum RoleName {
    Admin,
    Member,
    Viewer,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Admin => Self::Admin,
            RoleName::Member => Self::Member,
            RoleName::Viewer => Self::Viewer,
        }
    }
}

/// A user as `--json` prints it.
#[derive(Serialize)]
struct Line {
    id: UserId,
    email: String,
    external_idp_id: Option<String>,
    full_name: Option<String>,
    role: Role,
    #[serde(with = "time::serde::rfc3339::option")]
    last_login_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    deleted_at: Option<OffsetDateTime>,
}

impl From<user::Model> for Line {
    fn from(row: user::Model) -> Self {
        let user::Model { id, email, external_idp_id, full_name, role, last_login_at, created_at, deleted_at, .. } =
            row;
        Self { id, email, external_idp_id, full_name, role, last_login_at, created_at, deleted_at }
    }
}

impl User {
    pub(super) fn run(self) -> Result<(), Failure> {
        let settings = Settings::from_env()?;
        match self {
            Self::List(List { tenant, json }) => {
                let users =
                    operate(&settings, async |connection| administration::list_users(connection, &tenant).await)?;
                let users = users.map_err(|refusal| refused(refusal, &tenant, ""))?;
                if json { print_json(users.into_iter().map(Line::from)) } else { table(users) }
            }
            Self::Grant(Grant { whom: Whom { tenant, email }, role }) => {
                let change = operate(&settings, async |connection| {
                    administration::grant_role(connection, &tenant, &email, role.into()).await
                })?;
                let change = change.map_err(|refusal| refused(refusal, &tenant, &email))?;
                let (from, to) = (word(change.from), word(change.to));
                print_line(&if change.made {
                    format!("{email} of {tenant} has the role {to}; it was {from}")
                } else {
                    format!("nothing to do: {email} of {tenant} has the role {to} already")
                })
            }
            Self::Restore(Restore { whom: Whom { tenant, email }, role }) => {
                let change = operate(&settings, async |connection| {
                    administration::restore_user(connection, &tenant, &email, role.map(Role::from)).await
                })?;
                let change = change.map_err(|refusal| refused(refusal, &tenant, &email))?;
                let (from, to) = (word(change.from), word(change.to));
                print_line(&match (change.made, from == to) {
                    (false, _) => format!("nothing to do: {email} of {tenant} is not deleted and has the role {to}"),
                    (true, true) => format!("{email} of {tenant} is restored and has the role {to}"),
                    (true, false) => format!("{email} of {tenant} is restored and has the role {to}; it was {from}"),
                })
            }
        }
    }
}

fn table(users: Vec<user::Model>) -> Result<(), Failure> {
    let heads = ["EMAIL", "ROLE", "ID", "CREATED", "DELETED", "LAST LOGIN", "EXTERNAL IDP ID", "FULL NAME"];
    let rows = users.into_iter().map(|user| {
        let (created, deleted) = (moment(Some(user.created_at)), moment(user.deleted_at));
        let known = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let (subject, name) = (known(user.external_idp_id), known(user.full_name));
        let login = moment(user.last_login_at);
        [user.email, word(user.role), user.id.to_string(), created, deleted, login, subject, name]
    });
    print_table(heads, &rows.collect::<Vec<_>>())
}

fn refused(refusal: Refusal, tenant: &str, email: &str) -> Failure {
    match refusal {
        Refusal::NoTenant => Failure::Refused(format!("--tenant: there is no tenant {tenant}")),
        Refusal::TenantDeleted => anyhow!("--tenant: {tenant} is deleted").into(),
        Refusal::NoUser => Failure::Refused(format!("--email: {tenant} has no user {email}")),
        Refusal::UserDeleted => {
            anyhow!("--email: {email} of {tenant} is deleted: `bulkhead user restore` brings them back").into()
        }
        Refusal::NotDeleted => {
            anyhow!("--role: {email} of {tenant} is not deleted: `bulkhead user grant` changes the role").into()
        }
        Refusal::EmailTaken => {
            anyhow!("--email: {tenant} has a user {email} who is not deleted, and an address is one user's").into()
        }
        Refusal::SubjectTaken => {
            anyhow!("--email: another user of {tenant} has the external_idp_id of {email}, and it is one user's").into()
        }
        Refusal::ChainHolds => anyhow!("--tenant: the audit log of {tenant} holds").into(),
        Refusal::LastAdmin => {
            anyhow!("--role: {tenant} would have no admin left: make another user an admin first").into()
        }
    }
}
