//! The checkpoints of the tenant's audit log, and proofs that lead to them (docs/audit.md).

use crate::app::AppState;
use crate::audit::{Action, StoredCheckpoint, format_timestamp};
use crate::context::{Admin, Require, TenantContext};
use crate::error::{ApiError, ErrorCode};
use crate::merkle::{consistency, inclusion};
use crate::resource::{AuthErrors, NotFound, Parameters};
use crate::tenancy::TenantTransaction;
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE, VARY};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A checkpoint of the audit log.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditCheckpoint {
    /// Which instance's log of which tenant.
    #[schema(example = "api.example.org/01930000-0000-7000-8000-000000000001")]
    origin: String,
    /// How many entries the log had.
    #[schema(example = 42)]
    size: u64,
    /// The root of the Merkle tree over them, in base64.
    #[schema(example = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=")]
    root: String,
    /// The signed note.
    #[schema(
        example = "api.example.org/01930000-0000-7000-8000-000000000001\n42\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\u{2014} ...\n"
    )]
    note: String,
    #[schema(format = DateTime, example = "2026-11-24T09:30:00.000000Z")]
    created_at: String,
}

impl From<StoredCheckpoint> for AuditCheckpoint {
    fn from(stored: StoredCheckpoint) -> Self {
        Self {
            origin: stored.checkpoint.origin,
            size: stored.checkpoint.size,
            root: BASE64_STANDARD.encode(stored.checkpoint.root),
            note: stored.note,
            created_at: format_timestamp(stored.created_at),
        }
    }
}

/// The newest checkpoint of the audit log.
///
/// As a signed note (c2sp.org/tlog-checkpoint), or as JSON where `Accept` names `application/json`.
#[utoipa::path(
    get, path = "/audit-logs/checkpoint", operation_id = "getAuditCheckpoint", tag = "audit", security(("bearer" = [])),
    responses(
        (status = 200, description = "The checkpoint.", content((String = "text/plain"), (AuditCheckpoint = "application/json"))),
        AuthErrors, NotFound
    )
)]
pub(crate) async fn checkpoint(
    State(state): State<AppState>,
    Require(context, ..): Require<Admin>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let stored =
        context.read(context.event(Action::DataAccess, "audit_logs"), async |tx| newest(tx, &state).await).await?;
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let vary = (VARY, "accept");
    if accepted.into_iter().any(|value| value.contains("application/json")) {
        return Ok(([vary], Json(AuditCheckpoint::from(stored))).into_response());
    }
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8"), vary], stored.note).into_response())
}

async fn newest(tx: &mut TenantTransaction, state: &AppState) -> Result<StoredCheckpoint, ApiError> {
    let stored = tx.newest_checkpoint(state.settings.audit.signing_key.as_ref()).await?;
    tx.event().set_found(stored.is_some());
    stored.ok_or_else(|| ApiError::detailed(ErrorCode::NotFound, "no checkpoint has been made yet"))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ProofQuery {
    /// Prove that the entry of this number is in the tree. Either this or `from`.
    #[param(minimum = 1)]
    sequence: Option<u64>,
    /// Prove that the tree continues the one of this size. Either this or `sequence`.
    #[param(minimum = 1)]
    from: Option<u64>,
    /// The size of the tree; that of the newest checkpoint, unless a smaller one is asked for.
    #[param(minimum = 1)]
    size: Option<u64>,
}

/// A proof about the audit log (RFC 6962, sections 2.1.1 and 2.1.2).
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditProof {
    /// The size of the tree.
    #[schema(example = 42)]
    size: u64,
    /// The entry that is in the tree: leaf `sequence` - 1. Null in a proof of consistency.
    #[schema(example = 17)]
    sequence: Option<u64>,
    /// The entry's id.
    id: Option<Uuid>,
    /// The entry's hash, in hexadecimal: its 32 bytes are the leaf's data.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    hash: Option<String>,
    /// The size of the tree that this one continues. Null in a proof of inclusion.
    from: Option<u64>,
    /// The proof: hashes in base64, in the RFC's order.
    #[schema(example = json!(["CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="]))]
    hashes: Vec<String>,
    /// The signed checkpoint of this size; null where none was made of it.
    checkpoint: Option<String>,
}

/// Prove that an entry is in the log, or that the log continues an earlier one.
///
/// Verify the proof with a checkpoint that you hold, of the size that you ask for.
#[utoipa::path(
    get, path = "/audit-logs/proof", operation_id = "getAuditProof", tag = "audit", security(("bearer" = [])), params(ProofQuery),
    responses((status = 200, body = AuditProof, description = "The proof."), AuthErrors, NotFound)
)]
pub(crate) async fn proof(
    State(state): State<AppState>,
    Require(context, ..): Require<Admin>,
    Parameters(query): Parameters<ProofQuery>,
) -> Result<Json<AuditProof>, ApiError> {
    if let (None, None) | (Some(_), Some(_)) = (query.sequence, query.from) {
        let what = "either sequence or from must be there";
        return Err(ApiError::detailed(ErrorCode::MissingField, what).of_field("sequence".to_owned()));
    }
    prove(&context, &state, query).await.map(Json)
}

async fn prove(context: &TenantContext, state: &AppState, query: ProofQuery) -> Result<AuditProof, ApiError> {
    let event = context.event(Action::DataAccess, "audit_logs");
    context
        .read(event, async |tx| {
            let newest = newest(tx, state).await?;
            let size = query.size.unwrap_or(newest.checkpoint.size);
            within("size", size, newest.checkpoint.size)?;
            let mut proof = AuditProof {
                size,
                sequence: None,
                id: None,
                hash: None,
                from: None,
                hashes: Vec::new(),
                checkpoint: None,
            };
            let ranges = if let Some(sequence) = query.sequence {
                within("sequence", sequence, size)?;
                let entry = tx.entry(i64::try_from(sequence).unwrap_or(i64::MAX)).await?;
                tx.event().set_found(entry.is_some());
                let entry = entry.ok_or(ErrorCode::NotFound)?;
                tx.event().set_resource_id(entry.id.into());
                proof.id = Some(entry.id.into());
                (proof.sequence, proof.hash) = (Some(sequence), Some(entry.hash));
                inclusion(sequence - 1, size)
            } else {
                let from = query.from.unwrap_or_default();
                within("from", from, size)?;
                proof.from = Some(from);
                consistency(from, size)
            };
            let hashes = tx.hashes(&ranges).await?.ok_or(ErrorCode::NotFound)?;
            proof.hashes = hashes.iter().map(|hash| BASE64_STANDARD.encode(hash)).collect();
            proof.checkpoint = if size == newest.checkpoint.size {
                Some(newest.note)
            } else {
                tx.checkpoint_of(i64::try_from(size).unwrap_or(i64::MAX)).await?
            };
            Ok(proof)
        })
        .await
}

fn within(field: &str, number: u64, most: u64) -> Result<(), ApiError> {
    if (1..=most).contains(&number) {
        return Ok(());
    }
    let what = format!("must be 1 to {most}");
    Err(ApiError::detailed(ErrorCode::InvalidInput, what).of_field(field.to_owned()))
}
