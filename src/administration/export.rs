//! All that is kept of a tenant, as files.

use super::catalogue::{TenantTable, tenant_tables};
use super::export_manifest::{
    CHECKPOINT, EXPORT, LEFT_OUT, LOG_FILE, LeftOut, MANIFEST, Manifest, Part, SIGNED_MANIFEST,
};
use super::{Operated, open, record};
use crate::audit::{self, Action, EventDraft, StoredEntry};
use crate::database::{self, Access, Pool, Transaction};
use crate::entity::tenant;
use crate::note::SigningKey;
use aws_lc_rs::digest::{Context, Digest, SHA256};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use time::OffsetDateTime;

/// What an export has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// How many rows and entries.
    pub rows: u64,
    /// How many files, without the manifest.
    pub files: usize,
    /// SHA-256 of the manifest, in hexadecimal.
    pub manifest: String,
    /// Whether the manifest is signed.
    pub signed: bool,
    /// Why no checkpoint of the log as it is now could be made.
    pub no_checkpoint: Option<String>,
}

/// Writes all rows of the tenant, deleted ones too, its audit log and the newest checkpoint of that into this folder, which it makes,
/// or which is empty. The log says so before the first row is read. What is written was there at one moment. With a key, the manifest is
/// signed, too.
pub async fn export_tenant(
    connection: &DatabaseConnection,
    external_id: &str,
    key: Option<&SigningKey>,
    folder: &Path,
) -> Operated<Exported> {
    let (transaction, tenant) = match open(connection, external_id).await? {
        Ok(opened) => opened,
        Err(refusal) => return Ok(Err(refusal)),
    };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| failed(folder, &error))?;
    let event = EventDraft::new(tenant.id, Action::DataAccess, "tenants").on(tenant.id).with("export", true);
    record(transaction, vec![event]).await?;
    let mut no_checkpoint = None;
    if let Some(key) = key {
        let pool = Pool::from(connection.clone());
        no_checkpoint = audit::checkpoint(&pool, Access::Operate, tenant.id, key, None).await?.err();
    }

    let transaction = database::begin(connection, tenant.id, Access::Snapshot).await?;
    let mut parts = Vec::new();
    for table in tenant_tables(&transaction).await? {
        if LEFT_OUT.iter().any(|(name, _)| *name == table.name) {
            continue;
        }
        let mut file = PartFile::create(folder, format!("{}.jsonl", table.name))?;
        if file.name == LOG_FILE {
            write_log(&transaction, &tenant, &mut file).await?;
        } else {
            write_rows(&transaction, &tenant, &table, &mut file).await?;
        }
        parts.push(file.end()?);
    }
    if let Some(newest) = audit::newest_checkpoint(&transaction, tenant.id, key).await? {
        let mut file = PartFile::create(folder, CHECKPOINT.to_owned())?;
        file.write(newest.note.as_bytes())?;
        parts.push(Part { rows: None, ..file.end()? });
    }
    let (rows, files) = (parts.iter().filter_map(|part| part.rows).sum(), parts.len());
    let manifest = Manifest {
        bulkhead: env!("CARGO_PKG_VERSION").to_owned(),
        exported_at: OffsetDateTime::now_utc(),
        database: transaction.get_database_backend().as_str().to_owned(),
        tenant_id: tenant.id,
        external_id: external_id.to_owned(),
        files: parts,
        archived: audit::archived_end(&transaction, tenant.id).await?,
        left_out: LeftOut::all(),
    };
    let manifest = serde_json::to_string_pretty(&manifest).map_err(|error| DbErr::Json(error.to_string()))? + "\n";
    Ok(Ok(Exported {
        rows,
        files,
        manifest: finish(folder, &manifest, key)?,
        signed: key.is_some(),
        no_checkpoint: no_checkpoint.map(|refused| refused.to_string()),
    }))
}

async fn write_rows(
    transaction: &Transaction,
    tenant: &tenant::Model,
    table: &TenantTable,
    file: &mut PartFile<'_>,
) -> Result<(), DbErr> {
    let rows = table.rows_as_json(transaction.get_database_backend(), tenant.id);
    // As they come: of a large table never more than some rows are in memory.
    let line = |row: sea_orm::QueryResult| file.line(row.try_get_by_index::<String>(0)?.as_bytes()).map(|()| true);
    transaction.each_row(rows, line).await
}

async fn write_log(transaction: &Transaction, tenant: &tenant::Model, file: &mut PartFile<'_>) -> Result<(), DbErr> {
    let mut last = 0;
    loop {
        let batch = audit::entries(transaction, tenant.id, last, i64::MAX).await?;
        let Some((newest, _)) = batch.last() else { return Ok(()) };
        last = newest.sequence;
        for (entry, hash) in batch {
            let line = serde_json::to_vec(&StoredEntry { entry, hash });
            file.line(&line.map_err(|error| DbErr::Json(error.to_string()))?)?;
        }
    }
}

/// Writes the manifest once all others are on the disk, and gives it its name once it is there itself; its SHA-256.
fn finish(folder: &Path, manifest: &str, key: Option<&SigningKey>) -> Result<String, DbErr> {
    if let Some(key) = key {
        let mut file = PartFile::create(folder, SIGNED_MANIFEST.to_owned())?;
        file.write(key.sign_text(&key.origin(EXPORT), manifest).as_bytes())?;
        file.end()?;
    }
    let unfinished = format!("{MANIFEST}.unfinished");
    let mut file = PartFile::create(folder, unfinished.clone())?;
    file.write(manifest.as_bytes())?;
    let part = file.end()?;
    let named = std::fs::rename(folder.join(unfinished), folder.join(MANIFEST));
    named.and_then(|()| File::open(folder)?.sync_all()).map_err(|error| failed(folder, &error))?;
    Ok(part.sha256)
}

/// A file that is being written.
struct PartFile<'f> {
    folder: &'f Path,
    name: String,
    file: BufWriter<File>,
    digest: Context,
    lines: u64,
    bytes: u64,
}

impl<'f> PartFile<'f> {
    fn create(folder: &'f Path, name: String) -> Result<Self, DbErr> {
        let path = folder.join(&name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = BufWriter::new(file.map_err(|error| failed(&path, &error))?);
        Ok(Self { folder, name, file, digest: Context::new(&SHA256), lines: 0, bytes: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), DbErr> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|error| failed(&self.folder.join(&self.name), &error))
    }

    fn line(&mut self, line: &[u8]) -> Result<(), DbErr> {
        self.lines += 1;
        self.write(line)?;
        self.write(b"\n")
    }

    /// Returns once the file is on the disk.
    fn end(mut self) -> Result<Part, DbErr> {
        let kept = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        kept.map_err(|error| failed(&self.folder.join(&self.name), &error))?;
        let digest: Digest = self.digest.finish();
        Ok(Part { name: self.name, rows: Some(self.lines), bytes: self.bytes, sha256: hex::encode(digest) })
    }
}

fn failed(path: &Path, error: &io::Error) -> DbErr {
    DbErr::Custom(format!("--output: {}: {error}", path.display()))
}
