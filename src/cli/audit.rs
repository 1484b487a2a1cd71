//! `bulkhead audit`: looks at the audit log from outside the API.

use super::Failure;
use super::checkpoints::{self, Since, not_holding};
use super::table::print_line;
use super::tenant::{name, operate};
use crate::administration::{self, Refusal, TenantRow};
use crate::audit::{self, Break, Repaired, StoredEntry, Verified};
use crate::config::Settings;
use crate::database::{self, Access};
use crate::telemetry::redact;
use crate::tenancy::audit_guard_faults;
use crate::text::counted;
use anyhow::anyhow;
use clap::{Args, Subcommand};
use sea_orm::{DatabaseConnection, DbErr};
use std::io::{self, BufWriter, Write};

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Walk the hash chains, and look at what guards them; exit 1 where something does not hold, naming the first place
    Verify(Verify),
    /// Sign what each log is now, and print it as a note to be kept elsewhere; AUDIT_CHECKPOINT_WEBHOOK, where it is set, is sent it, too
    Checkpoint(Which),
    /// Print the keys that verify checkpoints, exports of tenants, and records of backups
    Key(Which),
    /// Open a new segment of a chain that does not hold; `verify` names the break for ever
    Repair(Repair),
    /// Print the name that the log has for somebody's subject at the identity provider, where they are no user: search an export for it
    Subject(Subject),
    /// Write entries as JSON Lines to standard output, oldest first
    Export(Which),
}

#[derive(Debug, Args)]
pub(super) struct Which {
    /// Only the tenant of this external id; `system` is the log of what belongs to no tenant
    #[arg(long, value_name = "EXTERNAL_ID")]
    tenant: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    since: Since,
}

#[derive(Debug, Args)]
pub(super) struct Subject {
    /// The tenant of this external id; `system` is the log of what belongs to no tenant
    #[arg(long, value_name = "EXTERNAL_ID")]
    tenant: String,
    /// The token's `sub`
    #[arg(value_name = "SUBJECT")]
    subject: String,
}

#[derive(Debug, Args)]
pub(super) struct Repair {
    /// The tenant of this external id; `system` is the log of what belongs to no tenant
    #[arg(long, value_name = "EXTERNAL_ID")]
    tenant: String,
    /// What has happened, for whoever reads the log: 1 to 255 characters, and no patient's name
    #[arg(long, value_parser = name)]
    reason: String,
}

impl Audit {
    pub(super) fn run(self) -> Result<(), Failure> {
        if let Self::Verify(Verify { since, .. }) = &self
            && let Some(file) = since.offline()
        {
            return since.verify_file(file);
        }
        let settings = Settings::from_env()?;
        match self {
            Self::Verify(verify) => verify.run(&settings),
            Self::Checkpoint(which) => {
                let (found, done) = operate(&settings, async |connection| {
                    let tenants = chosen(connection, &which).await?;
                    Ok((tenants.len(), checkpoints::make(&settings, connection, &tenants).await?))
                })?;
                which.must_exist(found)?;
                done
            }
            Self::Key(which) => {
                let tenants = operate(&settings, async |connection| chosen(connection, &which).await)?;
                which.must_exist(tenants.len())?;
                checkpoints::print_keys(&settings, &tenants, which.tenant.is_none())
            }
            Self::Subject(subject) => subject.run(&settings),
            Self::Repair(repair) => repair.run(&settings),
            Self::Export(which) => {
                let found = operate(&settings, async |connection| {
                    let tenants = chosen(connection, &which).await?;
                    for tenant in &tenants {
                        export(connection, tenant).await?;
                    }
                    Ok(tenants.len())
                })?;
                which.must_exist(found)
            }
        }
    }
}

impl Verify {
    fn run(self, settings: &Settings) -> Result<(), Failure> {
        let Self { which, since } = self;
        let (chains, faults, misfit) = operate(settings, async |connection| {
            let tenants = chosen(connection, &which).await?;
            let mut chains = Vec::new();
            for tenant in &tenants {
                let transaction = database::begin(connection, tenant.id, Access::Operate).await?;
                let outcome = audit::verify(&transaction, tenant.id).await?;
                say(tenant, &outcome).map_err(|error| DbErr::Custom(error.to_string()))?;
                chains.push(outcome.is_ok());
            }
            let misfit = since.verify(settings, connection, &tenants, which.tenant.is_some()).await?;
            Ok((chains, audit_guard_faults(connection).await?, misfit))
        })?;
        which.must_exist(chains.len())?;
        let mut errors = Vec::new();
        let broken = chains.iter().filter(|holds| !**holds).count();
        errors.extend((broken > 0).then(|| not_holding(broken, chains.len())));
        errors.extend(misfit?);
        for fault in &faults {
            print_line(&format!("FAULT   {fault}"))?;
        }
        errors.extend((!faults.is_empty()).then(|| {
            let faults = counted(faults.len(), "fault", "faults");
            format!("the database does not guard the audit log as it should: {faults}")
        }));
        if errors.is_empty() { Ok(()) } else { Err(anyhow!(errors.join("\n")).into()) }
    }
}

impl Subject {
    fn run(self, settings: &Settings) -> Result<(), Failure> {
        let names = &settings.audit.subject_names;
        if !names.hide() {
            return Err(anyhow!("AUDIT_SUBJECT_KEY: is not set: subjects stand in the log as they are").into());
        }
        let which = Which { tenant: Some(self.tenant) };
        let tenants = operate(settings, async |connection| chosen(connection, &which).await)?;
        which.must_exist(tenants.len())?;
        tenants.iter().try_for_each(|tenant| print_line(&names.name(tenant.id, &self.subject)))
    }
}

impl Repair {
    fn run(self, settings: &Settings) -> Result<(), Failure> {
        let Self { tenant, reason } = self;
        let reason = redact(&reason);
        let done =
            operate(settings, async |connection| administration::repair_audit_log(connection, &tenant, &reason).await)?;
        match done {
            Ok(repaired) => print_line(&format!("{tenant}: {}", said(&repaired))),
            Err(Refusal::ChainHolds) => {
                Err(anyhow!("--tenant: the audit log of {tenant} holds: there is nothing to repair").into())
            }
            Err(_) => Err(Failure::Refused(format!("--tenant: there is no tenant {tenant}"))),
        }
    }
}

impl Which {
    fn must_exist(&self, found: usize) -> Result<(), Failure> {
        match &self.tenant {
            Some(tenant) if found == 0 => Err(Failure::Refused(format!("--tenant: there is no tenant {tenant}"))),
            _ => Ok(()),
        }
    }
}

async fn chosen(connection: &DatabaseConnection, which: &Which) -> Result<Vec<TenantRow>, DbErr> {
    administration::tenants(connection, which.tenant.as_deref()).await
}

fn say(tenant: &TenantRow, outcome: &Result<Verified, Break>) -> Result<(), Failure> {
    let TenantRow { id, external_id } = tenant;
    match outcome {
        Ok(Verified { archived, repairs, entries, head }) => {
            let archived =
                if *archived > 0 { format!("entries 1 to {archived} are archived; ") } else { String::new() };
            let word = if repairs.is_empty() { "good   " } else { "REPAIRED" };
            let repairs: String = repairs.iter().map(|repaired| said(repaired) + "; ").collect();
            let entries = counted(*entries, "entry", "entries");
            print_line(&format!("{word} {external_id} ({id}): {archived}{repairs}{entries}, head {head}"))
        }
        Err(broken) => print_line(&format!("BROKEN  {external_id} ({id}): {broken}")),
    }
}

/// What was broken, and who repaired it.
fn said(Repaired { repair, sequence, at }: &Repaired) -> String {
    let audit::Repair { by, reason, broken, .. } = repair;
    format!("{broken}; repaired by entry {sequence} at {at} by {by}: {reason}")
}

async fn export(connection: &DatabaseConnection, tenant: &TenantRow) -> Result<(), DbErr> {
    let failed = |error: io::Error| DbErr::Custom(format!("cannot write to standard output: {error}"));
    let mut output = BufWriter::new(io::stdout().lock());
    let mut last = 0;
    loop {
        // A transaction a batch: an export of hours holds nothing back on the server.
        let transaction = database::begin(connection, tenant.id, Access::Operate).await?;
        let batch = audit::entries(&transaction, tenant.id, last, i64::MAX).await?;
        drop(transaction);
        let Some((newest, _)) = batch.last() else { break };
        last = newest.sequence;
        for (entry, hash) in batch {
            serde_json::to_writer(&mut output, &StoredEntry { entry, hash }).map_err(|error| failed(error.into()))?;
            output.write_all(b"\n").map_err(failed)?;
        }
    }
    output.flush().map_err(failed)
}
