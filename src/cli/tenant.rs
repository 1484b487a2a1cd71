//! `bulkhead tenant`: makes tenants, which no caller of the API can.

use super::{Failure, runtime};
use crate::api::is_email;
use crate::config::Settings;
use crate::database;
use crate::entity::tenant::Status;
use crate::server::PrepareError;
use crate::tenancy::{self, NewTenant};
use anyhow::anyhow;
use clap::{Args, Subcommand};
use sea_orm::{DatabaseConnection, DbErr};

#[derive(Debug, Subcommand)]
pub(super) enum Tenant {
    /// Make a tenant, and its first user where --admin-email names one; its id goes to standard output
    Create(Create),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// What people call it
    #[arg(long, value_parser = name)]
    name: String,
    /// What the identity provider calls it: tokens name the tenant by this
    #[arg(long, value_parser = external_id)]
    external_id: String,
    /// It is trying the service out
    #[arg(long)]
    trial: bool,
    /// The e-mail address of its first user, an admin
    #[arg(long, value_parser = email)]
    admin_email: Option<String>,
    /// The identity provider's name (sub) for the first user
    #[arg(long, requires = "admin_email", value_parser = name)]
    admin_subject: Option<String>,
}

fn name(text: &str) -> Result<String, &'static str> {
    let fits = (1..=255).contains(&text.chars().count()) && text.trim() == text && !text.chars().any(char::is_control);
    if fits { Ok(text.to_owned()) } else { Err("1 to 255 characters, without spaces around them") }
}

fn email(text: &str) -> Result<String, &'static str> {
    if is_email(text) { Ok(text.to_owned()) } else { Err("an e-mail address") }
}

pub(super) fn external_id(text: &str) -> Result<String, &'static str> {
    if crate::auth::is_tenant(text) {
        Ok(text.to_owned())
    } else {
        Err("3 to 128 letters, digits, '_' or '-'; not 'system'")
    }
}

impl Tenant {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self::Create(create) = self;
        let settings = Settings::from_env()?;
        let external_id = create.external_id;
        let new = NewTenant {
            name: create.name,
            external_id: external_id.clone(),
            status: if create.trial { Status::Trial } else { Status::Active },
            admin: create.admin_email.map(|email| (email, create.admin_subject)),
        };
        let made = operate(&settings, async |connection| tenancy::create_tenant(connection, new).await)?;
        match made {
            Some(id) => {
                println!("{id}");
                Ok(())
            }
            None => Err(anyhow!("--external-id: there is a tenant {external_id} already").into()),
        }
    }
}

/// Does `work` on the connection that migrations use, which may do more than the API.
pub(super) fn operate<T>(
    settings: &Settings,
    work: impl AsyncFnOnce(&DatabaseConnection) -> Result<T, DbErr>,
) -> Result<T, Failure> {
    let done = runtime()?.block_on(async {
        let connection = database::migration_connection(settings);
        let done = work(&connection).await;
        let _ = connection.close().await;
        done
    });
    done.map_err(|error| match error {
        error @ (DbErr::Exec(_) | DbErr::Query(_)) if bulkhead_migration::is_missing_table(&error) => anyhow!(
            "{}: {} has no tables for this yet: run `bulkhead start` or `bulkhead migrate up` first",
            settings.migration_database_variable,
            settings.migration_database
        )
        .into(),
        error @ (DbErr::Exec(_) | DbErr::Query(_)) => anyhow!("{error}").into(),
        error => {
            let variable = settings.migration_database_variable;
            anyhow::Error::from(PrepareError::database(variable, &settings.migration_database, &error)).into()
        }
    })
}
