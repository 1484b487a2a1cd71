//! `bulkhead dev-token`: a token for local use, and a tenant for it.

use super::{Failure, runtime};
use crate::auth::DevelopmentIssuer;
use crate::config::{Issuer, Settings};
use crate::database;
use crate::entity::tenant;
use crate::entity::user::Role;
use crate::server::PrepareError;
use anyhow::anyhow;
use clap::{Args, ValueEnum};
use sea_orm::ActiveValue::Set;
use sea_orm::{DatabaseConnection, EntityTrait, TryInsertResult};
use std::io::{IsTerminal, stdout};
use std::time::Duration;
use uuid::Uuid;

/// Print a token for local use; only where ENVIRONMENT=development.
///
/// The token alone goes to standard output: `curl -H "Authorization: Bearer $(bulkhead dev-token)"`. It is signed with
/// a key in DEVELOPMENT_KEY_FILE, which is made where there is none and which the server reads.
#[derive(Debug, Args)]
pub(super) struct DevToken {
    /// The tenant's external id; the tenant is made where there is none
    #[arg(long, default_value = "development", value_parser = tenant_name)]
    tenant: String,
    /// What the token's bearer may do
    #[arg(long, default_value = "admin")]
    role: RoleName,
    /// The identity provider's name for the bearer
    #[arg(long, default_value = "developer", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    subject: String,
    /// How long the token is good; JWT_MAX_LIFETIME_MINUTES at most
    #[arg(long, default_value = "60", value_parser = clap::value_parser!(u32).range(1..))]
    minutes: u32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
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

fn tenant_name(text: &str) -> Result<String, &'static str> {
    if crate::auth::is_tenant(text) {
        Ok(text.to_owned())
    } else {
        Err("3 to 128 letters, digits, '_' or '-'; not 'system'")
    }
}

impl DevToken {
    pub(super) fn run(self) -> Result<(), Failure> {
        let settings = Settings::from_env()?;
        let key = match &settings.identity.issuer {
            Issuer::Development(key) => key.clone(),
            Issuer::Provider(_) => {
                return Err(Failure::Refused("OIDC_ISSUER_URL: is set, so tokens come from that provider".to_owned()));
            }
            Issuer::Nobody => {
                let environment = settings.environment;
                let line = format!("ENVIRONMENT: is {environment}; dev-token works in development alone");
                return Err(Failure::Refused(line));
            }
        };
        let lifetime = Duration::from_secs(60 * u64::from(self.minutes));
        if lifetime > settings.identity.max_token_lifetime {
            let most = settings.identity.max_token_lifetime.as_secs() / 60;
            return Err(Failure::Refused(format!("--minutes: at most {most}, or set JWT_MAX_LIFETIME_MINUTES")));
        }
        let made = runtime()?.block_on(async {
            let connection = database::migration_connection(&settings);
            let made = ensure_tenant(&connection, &self.tenant).await;
            let _ = connection.close().await;
            made
        });
        let made = made.map_err(|error| match error {
            sea_orm::DbErr::Exec(_) | sea_orm::DbErr::Query(_) => {
                anyhow!(
                    "DATABASE_URL: {} has no tenants yet: run `bulkhead start` or `bulkhead migrate up` first",
                    settings.database
                )
            }
            error => PrepareError::database(settings.migration_database_variable, &settings.migration_database, &error)
                .into(),
        })?;
        if made {
            eprintln!("made the tenant {}", self.tenant);
        }
        let issuer = DevelopmentIssuer::new(key);
        let token = issuer.token(&self.subject, &self.tenant, self.role.into(), lifetime);
        println!("{}", token.map_err(anyhow::Error::from)?);
        if stdout().is_terminal() {
            eprintln!("good for {} minutes, as Authorization: Bearer, or in /docs under Authorize", self.minutes);
        }
        Ok(())
    }
}

/// Whether the tenant had to be made.
async fn ensure_tenant(connection: &DatabaseConnection, external_id: &str) -> Result<bool, sea_orm::DbErr> {
    let tenant = tenant::ActiveModel {
        id: Set(Uuid::now_v7()),
        name: Set(external_id.to_owned()),
        external_id: Set(external_id.to_owned()),
        ..Default::default()
    };
    let insert = tenant::Entity::insert(tenant).on_conflict_do_nothing_on([tenant::Column::ExternalId]);
    Ok(matches!(insert.exec_without_returning(connection).await?, TryInsertResult::Inserted(rows) if rows > 0))
}
