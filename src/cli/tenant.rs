//! `bulkhead tenant`: makes tenants, shows, suspends, resumes, exports and erases them, which no caller of the API can.

use super::checkpoints::verifiers;
use super::table::{moment, print_json, print_line, print_table};
use super::{Failure, runtime};
use crate::administration::{self, Change, Erasure, Exported, NewTenant, Refusal, TenantOverview};
use crate::config::Settings;
use crate::database;
use crate::entity::tenant::{self, Status};
use crate::entity::word;
use crate::ids::TenantId;
use crate::resource::{Email, Text};
use crate::server::StartupError;
use crate::text::counted;
use anyhow::anyhow;
use clap::{Args, Subcommand};
use sea_orm::{DatabaseConnection, DbErr};
use serde::Serialize;
use std::io::ErrorKind;
use std::path::PathBuf;
use time::OffsetDateTime;

#[derive(Debug, Subcommand)]
pub(super) enum Tenant {
    /// Make a tenant, and its first user where --admin-email names one; its id goes to standard output
    Create(Create),
    /// List all tenants, deleted ones too, oldest first
    List {
        /// Print JSON, an object a line
        #[arg(long)]
        json: bool,
    },
    /// Show a tenant, and how many users, admins and documents it has
    Show {
        #[command(flatten)]
        which: Which,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Shut a tenant out: its requests are refused from the next one on
    Suspend(Which),
    /// Serve a suspended tenant again
    Resume {
        #[command(flatten)]
        which: Which,
        /// It is trying the service out
        #[arg(long)]
        trial: bool,
    },
    /// Write all that is kept of a tenant into files: its rows, deleted ones too, its audit log and a checkpoint of that
    Export(Export),
    /// Look whether an export is whole and of the installation whose keys these are; exit 1 with a line for each fault. It needs neither a
    /// database nor settings
    VerifyExport(VerifyExport),
    /// Erase all that is kept of a tenant, for good, but its audit log. It must have been suspended for some time
    Erase(Erase),
}

#[derive(Debug, Args)]
pub(super) struct Which {
    /// What the identity provider calls it
    #[arg(long, value_parser = external_id)]
    external_id: String,
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

/// A hundred years.
const DAYS_MAX: i64 = 36_500;

#[derive(Debug, Args)]
pub(super) struct Erase {
    #[command(flatten)]
    which: Which,
    /// For how many days it must have been suspended
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(..=DAYS_MAX))]
    after: u32,
    /// The external id once more: without it, nothing is erased
    #[arg(long, value_name = "EXTERNAL_ID")]
    yes_erase_all_data_of: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    #[command(flatten)]
    which: Which,
    /// A folder that is empty, or not there yet. The export is whole once it has manifest.json
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct VerifyExport {
    /// What `tenant export` wrote
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// What verifies the signatures: keys as `audit key` prints them, or files of such
    #[arg(long, value_name = "KEY_OR_FILE", required = true, num_args = 1..)]
    key: Vec<String>,
}

/// Text of one line.
pub(super) fn name(text: &str) -> Result<String, &'static str> {
    Text::<255>::try_from(text.to_owned())
        .map(String::from)
        .map_err(|_| "1 to 255 characters, without spaces around them")
}

pub(super) fn email(text: &str) -> Result<String, &'static str> {
    Email::try_from(text.to_owned()).map(String::from).map_err(|_| "an e-mail address")
}

pub(super) fn external_id(text: &str) -> Result<String, &'static str> {
    if crate::auth::is_valid_tenant_id(text) {
        Ok(text.to_owned())
    } else {
        Err("3 to 128 letters, digits, '_' or '-'; not 'system'")
    }
}

impl Tenant {
    pub(super) fn run(self) -> Result<(), Failure> {
        if let Self::VerifyExport(verify) = self {
            return verify.run();
        }
        let settings = Settings::from_env()?;
        match self {
            Self::Create(create) => create.run(&settings),
            Self::List { json } => {
                let tenants = operate(&settings, administration::list_tenants)?;
                if json { print_json(tenants.into_iter().map(Line::from)) } else { table(tenants) }
            }
            Self::Show { which: Which { external_id }, json } => {
                let shown = operate(&settings, async |connection| {
                    administration::tenant_overview(connection, &external_id).await
                })?;
                let shown = shown.map_err(|refusal| refused(refusal, &external_id))?;
                if json { print_json([Overview::from(shown)]) } else { overview(shown) }
            }
            Self::Suspend(Which { external_id }) => {
                let change = operate(&settings, async |connection| {
                    administration::suspend_tenant(connection, &external_id).await
                })?;
                changed(change, &external_id)
            }
            Self::Resume { which: Which { external_id }, trial } => {
                let to = if trial { Status::Trial } else { Status::Active };
                let change = operate(&settings, async |connection| {
                    administration::resume_tenant(connection, &external_id, to).await
                })?;
                changed(change, &external_id)
            }
            Self::Export(export) => export.run(&settings),
            Self::VerifyExport(verify) => verify.run(),
            Self::Erase(erase) => erase.run(&settings),
        }
    }
}

impl Create {
    fn run(self, settings: &Settings) -> Result<(), Failure> {
        let create = self;
        let external_id = create.external_id;
        let new = NewTenant {
            name: create.name,
            external_id: external_id.clone(),
            status: if create.trial { Status::Trial } else { Status::Active },
            admin: create.admin_email.map(|email| (email, create.admin_subject)),
        };
        let made = operate(settings, async |connection| administration::create_tenant(connection, new).await)?;
        match made {
            Some(id) => {
                print_line(&id.to_string())?;
                Ok(())
            }
            None => Err(anyhow!("--external-id: there is a tenant {external_id} already").into()),
        }
    }
}

impl Erase {
    fn run(self, settings: &Settings) -> Result<(), Failure> {
        let Self { which: Which { external_id }, after, yes_erase_all_data_of } = self;
        if yes_erase_all_data_of.as_deref() != Some(&external_id) {
            return Err(Failure::Refused(format!(
                "--yes-erase-all-data-of: must be {external_id}, too: its rows are then erased for good"
            )));
        }
        let erased =
            operate(settings, async |connection| administration::erase_tenant(connection, &external_id, after).await)?;
        match erased.map_err(|refusal| refused(refusal, &external_id))? {
            Erasure::Erased(rows) => {
                let counts: Vec<String> = rows.iter().map(|(table, count)| format!("{table} {count}")).collect();
                let rows = if counts.is_empty() { "none".to_owned() } else { counts.join(", ") };
                print_line(&format!("{external_id} is erased, but its audit log; rows: {rows}"))
            }
            Erasure::NothingLeft => {
                print_line(&format!("nothing to do: nothing is left of {external_id} but its audit log"))
            }
            Erasure::NotSuspended => {
                Err(anyhow!("--external-id: {external_id} is not suspended: `bulkhead tenant suspend` comes first")
                    .into())
            }
            Erasure::TooEarly(from) => {
                let from = moment(Some(from));
                Err(anyhow!("--after: {external_id} may be erased from {from} on: it is not suspended for so long")
                    .into())
            }
        }
    }
}

impl Export {
    fn run(self, settings: &Settings) -> Result<(), Failure> {
        let Self { which: Which { external_id }, output } = self;
        let shown = output.display();
        match output.read_dir().map(|mut files| files.next().is_none()) {
            Ok(true) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Ok(false) => return Err(Failure::Refused(format!("--output: {shown} is not empty"))),
            Err(error) => return Err(Failure::Refused(format!("--output: {shown}: {error}"))),
        }
        let key = settings.audit.signing_key.as_ref();
        let exported = operate(settings, async |connection| {
            administration::export_tenant(connection, &external_id, key, &output).await
        })?;
        let Exported { rows, files, manifest, signed, no_checkpoint } =
            exported.map_err(|refusal| refused(refusal, &external_id))?;
        if let Some(reason) = no_checkpoint {
            eprintln!("warning: no checkpoint of the log as it is now: {reason}");
        }
        if !signed {
            eprintln!("warning: the export is not signed: set AUDIT_SIGNING_KEY to sign it");
        }
        let (rows, files) = (counted(rows, "row", "rows"), counted(files as u64, "file", "files"));
        print_line(&format!(
            "{external_id} is exported to {shown}: {rows} in {files}; manifest.json is sha256:{manifest}"
        ))
    }
}

impl VerifyExport {
    fn run(self) -> Result<(), Failure> {
        let Self { folder, key } = self;
        let (verifiers, shown) = (verifiers(&key)?, folder.display());
        folder.read_dir().map_err(|error| Failure::Refused(format!("FOLDER: cannot read {shown}: {error}")))?;
        let mut faults = 0_usize;
        administration::verify_export(&folder, &verifiers, &mut |file: &str, said: Result<&str, &str>| {
            faults += usize::from(said.is_err());
            // The folder is somebody else's: a name in it may hold anything.
            let (word, file) = (if said.is_ok() { "good   " } else { "FAULT  " }, file.escape_debug());
            print_line(&format!("{word} {file}: {}", said.unwrap_or_else(|fault| fault)))
        })?;
        if faults == 0 {
            return Ok(());
        }
        Err(anyhow!("{shown} is not as it was exported: {}", counted(faults, "fault", "faults")).into())
    }
}

/// A tenant as `--json` prints it.
#[derive(Serialize)]
struct Line {
    external_id: String,
    id: TenantId,
    status: Status,
    name: String,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    deleted_at: Option<OffsetDateTime>,
}

impl From<tenant::Model> for Line {
    fn from(row: tenant::Model) -> Self {
        let tenant::Model { id, name, external_id, status, created_at, updated_at, deleted_at, .. } = row;
        Self { external_id, id, status, name, created_at, updated_at, deleted_at }
    }
}

/// The same with what the tenant holds.
#[derive(Serialize)]
struct Overview {
    #[serde(flatten)]
    tenant: Line,
    users: u64,
    admins: u64,
    documents: u64,
}

impl From<TenantOverview> for Overview {
    fn from(shown: TenantOverview) -> Self {
        let TenantOverview { tenant, users, admins, documents } = shown;
        Self { tenant: tenant.into(), users, admins, documents }
    }
}

fn table(tenants: Vec<tenant::Model>) -> Result<(), Failure> {
    let heads = ["EXTERNAL ID", "ID", "STATUS", "CREATED", "DELETED", "NAME"];
    let rows = tenants.into_iter().map(|row| {
        let (created, deleted) = (moment(Some(row.created_at)), moment(row.deleted_at));
        [row.external_id, row.id.to_string(), word(row.status), created, deleted, row.name]
    });
    print_table(heads, &rows.collect::<Vec<_>>())
}

fn overview(shown: TenantOverview) -> Result<(), Failure> {
    let TenantOverview { tenant: row, users, admins, documents } = shown;
    let rows = [
        ("ID", row.id.to_string()),
        ("STATUS", word(row.status)),
        ("NAME", row.name),
        ("CREATED", moment(Some(row.created_at))),
        ("UPDATED", moment(Some(row.updated_at))),
        ("DELETED", moment(row.deleted_at)),
        ("USERS", users.to_string()),
        ("ADMINS", admins.to_string()),
        ("DOCUMENTS", documents.to_string()),
    ];
    print_table(["EXTERNAL ID", &row.external_id], &rows.map(|(head, cell)| [head.to_owned(), cell]))
}

fn changed(change: Result<Change<Status>, Refusal>, external_id: &str) -> Result<(), Failure> {
    let Change { from, to, made } = change.map_err(|refusal| refused(refusal, external_id))?;
    let (from, to) = (word(from), word(to));
    print_line(&if made {
        format!("{external_id} is {to}; it was {from}")
    } else {
        format!("nothing to do: {external_id} is {to} already")
    })
}

fn refused(refusal: Refusal, external_id: &str) -> Failure {
    match refusal {
        Refusal::TenantDeleted => anyhow!("--external-id: {external_id} is deleted").into(),
        _ => Failure::Refused(format!("--external-id: there is no tenant {external_id}")),
    }
}

/// Does `work` on the connection that migrations use, which may do more than the API.
pub(super) fn operate<T>(
    settings: &Settings,
    work: impl AsyncFnOnce(&DatabaseConnection) -> Result<T, DbErr>,
) -> Result<T, Failure> {
    let done = runtime()?.block_on(async {
        let connection = database::migration_connection(settings).await?;
        let done = work(&connection).await;
        let _ = connection.close().await;
        done
    });
    done.map_err(|error| match error {
        error @ (DbErr::Exec(_) | DbErr::Query(_)) if bulkhead_migrator::is_missing_table(&error) => anyhow!(
            "{}: {} has no tables for this yet: run `bulkhead start` or `bulkhead migrate up` first",
            settings.migration_database_variable,
            settings.migration_database
        )
        .into(),
        error @ (DbErr::Exec(_) | DbErr::Query(_)) => anyhow!(database::text(&error)).into(),
        // Not the database's: standard output may be closed.
        DbErr::Custom(text) => anyhow!(text).into(),
        error => {
            let variable = settings.migration_database_variable;
            anyhow::Error::from(StartupError::database(variable, &settings.migration_database, &error)).into()
        }
    })
}
