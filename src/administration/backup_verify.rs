//! Whether a restored copy is whole: its schema, what keeps tenants apart, its audit logs, and what a record says was there.
//! Changes nothing.

use super::backup_record::{BACKUP, Holdings, Record, holdings, migrations};
use super::doctor::{audit_guards, away, isolation, schema};
use super::finding::{Finding, Verdict};
use crate::audit::{self, Verified, format_timestamp};
use crate::config::Settings;
use crate::database::{self, Access, Pool};
use crate::ids::TenantId;
use crate::note::{self, SigningKey};
use crate::text::counted;
use aws_lc_rs::digest::{SHA256, digest};
use bulkhead_migrator::Runner;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};
use serde::Serialize;
use std::collections::BTreeMap;
use time::OffsetDateTime;

/// Tables of which a copy may have fewer rows than were recorded: expired keys are deleted. No other rows are (`tenancy/isolation.sql`),
/// save by `tenant erase`. The log's entries are held to their chain instead.
const MAY_SHRINK: [&str; 2] = ["audit_logs", "idempotency_keys"];

const OLDER: &str = "is the record of this backup? If so, do not use the copy: restore another backup";

/// A record, and what is thought of its signature.
#[derive(Debug, Clone)]
pub struct Given {
    record: Record,
    sha256: String,
    signature: Finding,
}

impl Given {
    /// Reads what `backup record` wrote, signed or not.
    pub fn read(text: &str, key: Option<&SigningKey>) -> Result<Self, serde_json::Error> {
        let content = note::text_unverified(text);
        let record: Record = serde_json::from_str(content)?;
        let (about, of) = ("record", format!("of {} by build {}", format_timestamp(record.at), record.build));
        let signature = match key.map(|key| note::open_text(text, BACKUP, &[key.verifier(&key.origin(BACKUP))])) {
            Some(Ok(_)) => Finding::good(about, format!("{of}, signed by AUDIT_SIGNING_KEY")),
            // A record that is not signed, too: whoever changed it may have cut the signature off.
            Some(Err(error)) => {
                let mend =
                    "find out who wrote it; or set the key that signed it, and none for a record that was made without";
                Finding::wrong(about, format!("{of}: {error}"), mend)
            }
            None => {
                let text = format!("{of}: no key to check a signature with");
                Finding::risky(about, text, "set AUDIT_SIGNING_KEY and AUDIT_ORIGIN as they were for the record")
            }
        };
        Ok(Self { record, sha256: hex::encode(digest(&SHA256, text.as_bytes())), signature })
    }
}

/// What was found of a copy.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// When it was begun.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The version of the build that looked.
    pub build: &'static str,
    /// Which database, without its secrets.
    pub database: String,
    /// SHA-256 of the record's file.
    pub record: Option<String>,
    /// How many rows each table has.
    pub rows: BTreeMap<String, i64>,
    /// Each audit log, by the tenant's id.
    pub logs: BTreeMap<TenantId, Log>,
    /// What was looked at.
    pub findings: Vec<Finding>,
    /// How much of that is wrong.
    pub wrong: usize,
}

/// An audit log of a copy.
#[derive(Debug, Clone, Serialize)]
pub struct Log {
    /// How many entries it has.
    pub entries: i64,
    /// The hash of the last of them.
    pub head: String,
}

/// Looks at the copy, which is the database that these settings migrate. `runner` knows this build's migrations.
pub async fn verify_copy(settings: &Settings, runner: &Runner, given: Option<&Given>) -> Report {
    let (database, variable) = (&settings.migration_database, settings.migration_database_variable);
    let mut report = Report {
        at: OffsetDateTime::now_utc(),
        build: env!("CARGO_PKG_VERSION"),
        database: database.to_string(),
        record: given.map(|given| given.sha256.clone()),
        rows: BTreeMap::new(),
        logs: BTreeMap::new(),
        findings: Vec::new(),
        wrong: 0,
    };
    report.findings.push(given.map_or_else(
        || {
            let text = "none is given: what is there is looked at, and nothing shows what may be missing";
            Finding::risky("record", text, "run `bulkhead backup record` before each backup, and give it as --record")
        },
        |given| given.signature.clone(),
    ));
    match database::copy_connection(settings).await {
        Ok(connection) => {
            let pool = Pool::from(connection);
            if let Err(error) = look(&mut report, &pool, variable, runner, given).await {
                report.findings.push(away(database, variable, &error));
            }
            let _ = pool.close().await;
        }
        Err(error) => report.findings.push(away(database, variable, &error)),
    }
    report.wrong = report.findings.iter().filter(|finding| finding.verdict == Verdict::Wrong).count();
    report
}

async fn look(
    report: &mut Report,
    pool: &Pool,
    variable: &str,
    runner: &Runner,
    given: Option<&Given>,
) -> Result<(), DbErr> {
    pool.execute_unprepared("SELECT 1").await?;
    report.findings.push(Finding::good("database", format!("{} answers", report.database)));
    let schema = schema(pool, runner).await;
    let fits = schema.verdict != Verdict::Wrong;
    report.findings.push(schema);
    if !fits {
        // Without its tables there is nothing to look at.
        return Ok(());
    }
    report.findings.extend(isolation(pool, Access::Operate).await);
    report.findings.extend(audit_guards(pool, variable).await);
    report.findings.extend(file(pool).await?);
    let copy = holdings(pool).await?;
    if !copy.iter().any(|tenant| tenant.id == audit::SYSTEM_TENANT) {
        let mend = "back up as a role that row-level security does not bind: docs/backup.md, \"pg_dump\"";
        report.findings.push(Finding::wrong(
            "rows",
            "not even the tenant `system` is there, which every database has",
            mend,
        ));
    }
    for tenant in &copy {
        for (table, count) in &tenant.rows {
            *report.rows.entry(table.clone()).or_default() += count;
        }
        let log = Log { entries: tenant.entries, head: tenant.head.clone() };
        report.logs.insert(tenant.id, log);
    }
    let rows: Vec<_> = report.rows.iter().map(|(table, rows)| format!("{table} {rows}")).collect();
    report.findings.push(Finding::good("tables", format!("rows of {}", rows.join(", "))));
    report.findings.extend(chains(pool, &copy).await?);
    if let Some(given) = given {
        let there = migrations(&runner.state(pool).await?);
        report.findings.extend(given.record.migrations.iter().filter(|name| !there.contains(name)).map(|name| {
            Finding::wrong("schema", format!("migration {name} was recorded and is not in the copy"), OLDER)
        }));
        report.findings.extend(compare(pool, &given.record, &copy).await?);
    }
    Ok(())
}

/// Whether the pages of a file of SQLite are whole, also those that nothing else here reads; nothing with PostgreSQL.
async fn file(pool: &Pool) -> Result<Option<Finding>, DbErr> {
    if pool.get_database_backend() == DbBackend::Postgres {
        return Ok(None);
    }
    let check = Statement::from_string(DbBackend::Sqlite, "PRAGMA integrity_check(1)");
    let row = pool.query_one_raw(check).await?;
    let said: String =
        row.ok_or_else(|| DbErr::RecordNotFound("the check of the file".to_owned()))?.try_get_by_index(0)?;
    Ok(Some(if said == "ok" {
        Finding::good("file", "its pages and indexes are whole")
    } else {
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        Finding::wrong("file", format!("it is damaged: {said}"), "do not use the copy: restore another backup")
    }))
}

/// Walks every chain, as `audit verify` does.
async fn chains(pool: &Pool, copy: &[Holdings]) -> Result<Vec<Finding>, DbErr> {
    let about = "chains";
    let (mut findings, mut good, mut entries) = (Vec::new(), 0_usize, 0);
    for tenant in copy {
        let transaction = pool.begin(tenant.id, Access::Operate).await?;
        match audit::verify(&transaction, tenant.id).await? {
            Ok(Verified { repairs, entries: of_this, .. }) => {
                (good, entries) = (good + 1, entries + of_this);
                findings.extend((!repairs.is_empty()).then(|| {
                    let breaks = counted(repairs.len(), "break", "breaks");
                    let text = format!("{}: {breaks} that an operator repaired", name(tenant));
                    Finding::risky(about, text, "`bulkhead audit verify` says what was broken, and who repaired it")
                }));
            }
            Err(broken) => {
                let mend = "do not use the copy: restore another backup; docs/audit.md, \"After tampering\"";
                findings.push(Finding::wrong(about, format!("{}: {broken}", name(tenant)), mend));
            }
        }
    }
    let (logs, entries) = (counted(good, "audit log holds", "audit logs hold"), counted(entries, "entry", "entries"));
    findings.push(Finding::good(about, format!("{logs}: {entries}")));
    Ok(findings)
}

/// Holds the copy to the record.
async fn compare(pool: &Pool, record: &Record, copy: &[Holdings]) -> Result<Vec<Finding>, DbErr> {
    let (mut findings, mut signed, mut archived) = (Vec::new(), 0_usize, 0_usize);
    for recorded in &record.tenants {
        let Some(there) = copy.iter().find(|tenant| tenant.id == recorded.id) else {
            let text = format!("{}: the copy has no such tenant", name(recorded));
            findings.push(Finding::wrong("rows", text, OLDER));
            continue;
        };
        findings.extend(end(pool, recorded, there).await?.map(|text| Finding::wrong("heads", text, OLDER)));
        if let Some(note) = &recorded.checkpoint {
            match checkpoint(pool, recorded, note).await? {
                Ok((_, audit::Verdict::Fits)) => signed += 1,
                Ok((_, audit::Verdict::Archived(_))) => archived += 1,
                Ok((size, verdict)) => {
                    let text = format!("{}: checkpoint of {size}: {verdict}", name(recorded));
                    findings.push(Finding::wrong("checkpoints", text, OLDER));
                }
                Err(text) => findings.push(Finding::wrong("checkpoints", text, OLDER)),
            }
        }
        findings.extend(fewer_rows(recorded, there).map(|text| Finding::wrong("rows", text, OLDER)));
    }
    if archived > 0 {
        let text = counted(
            archived,
            "log is archived so far that its checkpoint tells",
            "logs are archived so far that their checkpoints tell",
        );
        let mend = "look at the archived months: deploy/postgres/check-audit-logs.sql";
        findings.push(Finding::risky("checkpoints", format!("{text} nothing of what is left"), mend));
    }
    let sum = |tenants: &[Holdings]| tenants.iter().flat_map(|tenant| tenant.rows.values()).sum::<i64>();
    let (rows, recorded) = (sum(copy), sum(&record.tenants));
    for (about, text) in [
        ("heads", format!("{} as they were recorded, or longer", counted(record.tenants.len(), "log is", "logs are"))),
        ("checkpoints", format!("the entries are those of {}", counted(signed, "checkpoint", "checkpoints"))),
        ("rows", format!("{}; {recorded} were recorded", counted(rows, "row", "rows"))),
    ] {
        let is_wrong = findings.iter().any(|finding| finding.about == about && finding.verdict == Verdict::Wrong);
        if !is_wrong && (about != "checkpoints" || signed > 0) {
            findings.push(Finding::good(about, text));
        }
    }
    Ok(findings)
}

/// What the end of a log that was recorded is not, in the copy.
async fn end(pool: &Pool, recorded: &Holdings, there: &Holdings) -> Result<Option<String>, DbErr> {
    let (last, name) = (recorded.entries, name(recorded));
    if there.entries < last {
        let missing = counted(last - there.entries, "entry is", "entries are");
        let text =
            format!("{name}: the log ends with entry {}, and {last} were recorded: {missing} missing", there.entries);
        return Ok(Some(text));
    }
    if last == 0 {
        return Ok(None);
    }
    let transaction = pool.begin(recorded.id, Access::Operate).await?;
    let entry = audit::entries(&transaction, recorded.id, last - 1, last).await?.pop();
    let hash = match entry {
        Some((_, hash)) => Some(hash),
        None => {
            audit::archived_end(&transaction, recorded.id).await?.filter(|end| end.sequence == last).map(|end| end.hash)
        }
    };
    let is_same = hash.is_some_and(|hash| hash == recorded.head);
    Ok((!is_same).then(|| format!("{name}: entry {last} is not the one that was recorded: the log was rewritten")))
}

/// What the entries of the copy are, held to the checkpoint; or why it is none.
async fn checkpoint(
    pool: &Pool,
    recorded: &Holdings,
    note: &str,
) -> Result<Result<(u64, audit::Verdict), String>, DbErr> {
    // Who signed the record has signed this; anyone can check it with the tenant's key.
    let Some(checkpoint) = note::read_unverified(note).filter(|said| said.log() == recorded.id.to_string()) else {
        return Ok(Err(format!("{}: what the record has is no checkpoint of this log", name(recorded))));
    };
    let replay = audit::replay(pool, recorded.id, std::slice::from_ref(&checkpoint)).await?;
    Ok(Ok((checkpoint.size, replay.verdict(&checkpoint))))
}

/// The tables of which a tenant has fewer rows than were recorded.
fn fewer_rows(recorded: &Holdings, there: &Holdings) -> impl Iterator<Item = String> {
    let tables = recorded.rows.iter().filter(|(table, _)| !MAY_SHRINK.contains(&table.as_str()));
    tables.filter_map(|(table, before)| {
        let now = there.rows.get(table).copied().unwrap_or_default();
        let name = name(recorded);
        (now < *before).then(|| format!("{name}: {now} of {before} rows of {table}: {} missing", before - now))
    })
}

fn name(tenant: &Holdings) -> String {
    format!("{} ({})", tenant.external_id, tenant.id)
}
