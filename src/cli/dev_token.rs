//! `bulkhead dev-token`: a token for local use, and a tenant for it.

use super::Failure;
use super::table::print_line;
use super::tenant::{external_id, operate};
use super::usage::one_or_more;
use super::user::RoleName;
use crate::administration::{self, NewTenant};
use crate::auth::DevelopmentIssuer;
use crate::config::{Issuer, Settings};
use crate::entity::tenant::Status;
use crate::text::counted;
use clap::Args;
use std::io::{IsTerminal, stdout};
use std::time::Duration;

/// The e-mail address of the first user of a tenant that is made for a token.
const FIRST_USER: &str = "developer@example.org";

/// Print a token for local use; only where ENVIRONMENT=development.
///
/// The token alone goes to standard output: `curl -H "Authorization: Bearer $(bulkhead dev-token)"`. It is signed with
/// a key in DEVELOPMENT_KEY_FILE, which is made where there is none and which the server reads.
#[derive(Debug, Args)]
pub(super) struct DevToken {
    /// The tenant's external id; where there is none, the tenant is made, with the bearer as its first user
    #[arg(long, default_value = "development", value_parser = external_id)]
    tenant: String,
    /// What the token's bearer may do
    #[arg(long, default_value = "admin")]
    role: RoleName,
    /// The identity provider's name for the bearer
    #[arg(long, default_value = "developer", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    subject: String,
    /// How long the token is good; JWT_MAX_LIFETIME_MINUTES at most
    #[arg(long, default_value = "60", value_parser = one_or_more)]
    minutes: u32,
}

impl DevToken {
    pub(super) fn run(self) -> Result<(), Failure> {
        let settings = Settings::from_env()?;
        let key = match &settings.auth.issuer {
            Issuer::Development(key) => key.clone(),
            Issuer::Provider(_) => {
                return Err(Failure::Refused("OIDC_ISSUER_URL: is set, so tokens come from that provider".to_owned()));
            }
            Issuer::Disabled => {
                let environment = settings.environment;
                let line = format!("ENVIRONMENT: is {environment}; dev-token works in development alone");
                return Err(Failure::Refused(line));
            }
        };
        let lifetime = Duration::from_secs(60 * u64::from(self.minutes));
        if lifetime > settings.auth.max_token_lifetime {
            let most = settings.auth.max_token_lifetime.as_secs() / 60;
            return Err(Failure::Refused(format!("--minutes: at most {most}, or set JWT_MAX_LIFETIME_MINUTES")));
        }
        let new = NewTenant {
            name: self.tenant.clone(),
            external_id: self.tenant.clone(),
            status: Status::Active,
            // So that the bearer may own documents, as callers of a real provider do.
            admin: Some((FIRST_USER.to_owned(), Some(self.subject.clone()))),
        };
        let made = operate(&settings, async |connection| administration::create_tenant(connection, new).await)?;
        if made.is_some() {
            eprintln!("made the tenant {}", self.tenant);
        }
        let issuer = DevelopmentIssuer::new(key);
        let token = issuer.token(&self.subject, &self.tenant, self.role.into(), lifetime);
        print_line(&token.map_err(anyhow::Error::from)?)?;
        if stdout().is_terminal() {
            let minutes = counted(self.minutes, "minute", "minutes");
            eprintln!("good for {minutes}, as Authorization: Bearer, or in /docs under Authorize");
        }
        Ok(())
    }
}
