//! Keys of requests that are to be done once. What is stored of a request is the id of the row that it made and two hashes: the
//! answer is made again from the row, so no second copy of a person's data lies about.

use super::transaction::TenantTransaction;
use crate::error::{ApiError, ErrorCode};
use crate::ids::TenantId;
use sea_orm::{ConnectionTrait, DbBackend, Statement, Value};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use time::OffsetDateTime;
use uuid::Uuid;

/// How long a key is kept, in seconds: 24 hours.
const KEPT_SECONDS: i64 = 24 * 60 * 60;

/// The most keys of a tenant; beyond them the oldest are forgotten. With their index they take some 30 MB.
const KEYS_MAX: i64 = 100_000;

/// How many expired keys each new one removes: more than one, so that there are ever fewer.
const REMOVED_EACH_TIME: i64 = 4;

/// A key, as hashes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Of the key, its caller, and what is asked for.
    pub place: [u8; 32],
    /// Of the key and the request's body.
    pub fingerprint: [u8; 32],
}

/// A key of a tenant, as its hash.
type KeyOfTenant = (TenantId, [u8; 32]);

/// The keys whose first request is at work in this process.
#[derive(Debug, Clone, Default)]
pub(super) struct KeysAtWork(Arc<Mutex<HashSet<KeyOfTenant>>>);

/// A key that is at work until this is dropped.
#[derive(Debug)]
pub(super) struct AtWork {
    keys: KeysAtWork,
    key: (TenantId, [u8; 32]),
}

impl KeysAtWork {
    pub(super) fn begin(&self, tenant: TenantId, key: &IdempotencyKey) -> Result<AtWork, ApiError> {
        let key = (tenant, key.place);
        if !self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key) {
            return Err(ErrorCode::KeyAtWork.into());
        }
        Ok(AtWork { keys: self.clone(), key })
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.keys.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl TenantTransaction {
    /// Takes a key for the request that makes this row; false if another request has it. One statement on PostgreSQL, which
    /// removes some expired keys, too.
    pub(super) async fn claim(&self, key: &IdempotencyKey, row: Uuid) -> Result<bool, ApiError> {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let place = || Value::from(key.place.to_vec());
        let tenant = || Value::from(self.tenant_id());
        let fingerprint = Value::from(key.fingerprint.to_vec());
        let expired = "DELETE FROM idempotency_keys WHERE (tenant_id, key_hash) IN (SELECT tenant_id, key_hash
            FROM idempotency_keys WHERE tenant_id = $1 AND expires_at <= $2 AND key_hash <> $3 ORDER BY expires_at LIMIT $4";
        let take = "INSERT INTO idempotency_keys (tenant_id, key_hash, fingerprint, resource_id, expires_at)
            SELECT $1, $3, $5, $6, $7";
        // A key that has expired is another one's from here on.
        let again = "ON CONFLICT (tenant_id, key_hash) DO UPDATE SET fingerprint = excluded.fingerprint,
            resource_id = excluded.resource_id, expires_at = excluded.expires_at WHERE idempotency_keys.expires_at <= $2";
        let expired_values = [tenant(), now.into(), place(), REMOVED_EACH_TIME.into()];
        let taken_values = [fingerprint, row.into(), (now + KEPT_SECONDS).into()];
        let claimed = if self.backend() == DbBackend::Postgres {
            // Another process with the same key is at work while it has the lock, whose number is a part of the hash: without it,
            // the insertion would wait for that one's end. Whoever removes expired keys at the same time takes others.
            let lock = key.place.iter().take(8).fold(0_i64, |number, byte| (number << 8) | i64::from(*byte));
            let sql = format!(
                "WITH expired AS ({expired} FOR UPDATE SKIP LOCKED))
                {take}::bytea, $6::uuid, $7::bigint WHERE pg_try_advisory_xact_lock($8) {again}",
                take = take.replace("$1, $3, $5, $6, $7", "$1::uuid, $3::bytea, $5"),
            );
            self.execute(&sql, expired_values.into_iter().chain(taken_values).chain([lock.into()])).await?
        } else {
            self.execute(&format!("{expired})"), expired_values.clone()).await?;
            // WHERE, since SQLite would else take ON for a part of a join (sqlite.org/lang_upsert.html, section 2.2).
            self.execute(&format!("{take} WHERE true {again}"), expired_values.into_iter().chain(taken_values)).await?
        };
        if claimed > 0 && key.place[0] < 16 {
            self.forget_oldest().await?;
        }
        Ok(claimed > 0)
    }

    /// Forgets the keys beyond the most that a tenant may have. To count them costs time, so only one in 16 does.
    async fn forget_oldest(&self) -> Result<(), ApiError> {
        let sql = "DELETE FROM idempotency_keys WHERE tenant_id = $1 AND expires_at < (SELECT expires_at FROM idempotency_keys
            WHERE tenant_id = $1 ORDER BY expires_at DESC LIMIT 1 OFFSET $2)";
        self.execute(sql, [self.tenant_id().into(), KEYS_MAX.into()]).await.map(drop)
    }

    /// The row that the first request with this key has made.
    ///
    /// # Errors
    /// `KeyOfAnother` where that was another request, `KeyAtWork` where it has not ended.
    pub(super) async fn claimed(&self, key: &IdempotencyKey) -> Result<Uuid, ApiError> {
        let sql = "SELECT resource_id, fingerprint FROM idempotency_keys
            WHERE tenant_id = $1 AND key_hash = $2 AND expires_at > $3";
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let values = [self.tenant_id().into(), key.place.to_vec().into(), now.into()];
        let statement = Statement::from_sql_and_values(self.backend(), sql, values);
        let Some(found) = self.connection().query_one_raw(statement).await? else {
            return Err(ErrorCode::KeyAtWork.into());
        };
        if found.try_get::<Vec<u8>>("", "fingerprint")? != key.fingerprint {
            return Err(ErrorCode::KeyOfAnother.into());
        }
        Ok(found.try_get("", "resource_id")?)
    }

    async fn execute(&self, sql: &str, values: impl IntoIterator<Item = Value>) -> Result<u64, ApiError> {
        let statement = Statement::from_sql_and_values(self.backend(), sql, values);
        Ok(self.connection().execute_raw(statement).await?.rows_affected())
    }
}
