//! What an export says of itself: which files it has, of whom, and what it leaves out.

use crate::audit::Place;
use crate::ids::TenantId;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// Under which name of the instance's key manifests are signed: `AUDIT_ORIGIN/export`.
pub const EXPORT: &str = "export";

/// The file that says what all others are. Without it an export is not whole.
pub(super) const MANIFEST: &str = "manifest.json";

/// The same text as a signed note.
pub(super) const SIGNED_MANIFEST: &str = "manifest.note";

/// The audit log, an entry a line.
pub(super) const LOG_FILE: &str = "audit_logs.jsonl";

/// The newest checkpoint of the log, a signed note.
pub(super) const CHECKPOINT: &str = "checkpoint";

/// The tables that an export leaves out, and why.
pub const LEFT_OUT: [(&str, &str); 3] = [
    ("audit_heads", "the end of the chain: audit_logs.jsonl ends there"),
    ("audit_nodes", "computed from the entries in audit_logs.jsonl"),
    ("idempotency_keys", "hashes of requests of the last 24 hours, which say nothing of the tenant"),
];

/// What is in `manifest.json`.
#[derive(Serialize, Deserialize)]
pub(super) struct Manifest {
    /// The version of the build that made it.
    pub(super) bulkhead: String,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) exported_at: OffsetDateTime,
    pub(super) database: String,
    pub(super) tenant_id: TenantId,
    pub(super) external_id: String,
    /// All files but the manifest.
    pub(super) files: Vec<Part>,
    /// The last entry of the log that is archived, and so not in the export; nothing where the log begins with its first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) archived: Option<Place>,
    pub(super) left_out: Vec<LeftOut>,
}

/// A file that is whole.
#[derive(Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rows: Option<u64>,
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

/// A table that is not in the export.
#[derive(Serialize, Deserialize)]
pub(super) struct LeftOut {
    pub(super) table: String,
    pub(super) reason: String,
}

impl LeftOut {
    /// All of them.
    pub(super) fn all() -> Vec<Self> {
        LEFT_OUT.map(|(table, reason)| Self { table: table.to_owned(), reason: reason.to_owned() }).into()
    }
}
