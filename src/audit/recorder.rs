//! Records what only reads: many at once share a transaction, and each waits until its entry is on disk.

use super::chain::append;
use super::event::Record;
use crate::database::{self, Access};
use crate::error::{ApiError, ErrorCode};
use futures_util::StreamExt;
use sea_orm::{DatabaseConnection, DbErr};
use std::collections::BTreeMap;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// The most records that wait; who comes then waits to be let in.
const QUEUE: usize = 1024;

/// The most records of one transaction.
const BATCH: usize = 256;

/// Chains that are appended to at once: each takes a connection.
const CHAINS_AT_ONCE: usize = 2;

struct Job {
    tenant: Uuid,
    record: Record,
    done: oneshot::Sender<Result<(), ApiError>>,
}

/// Records what is not part of a transaction of its own. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder(mpsc::Sender<Job>);

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl Recorder {
    /// A recorder that writes through this pool, for as long as it or a clone of it lives. Needs a runtime.
    #[must_use]
    pub fn start(pool: DatabaseConnection) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(run(pool, receiver));
        Self(sender)
    }

    /// Returns once the record is committed to the tenant's chain.
    pub async fn record(&self, tenant: Uuid, record: Record) -> Result<(), ApiError> {
        let (done, outcome) = oneshot::channel();
        let sent = self.0.send(Job { tenant, record, done }).await;
        let gone = || ApiError::detailed(ErrorCode::Internal, "the audit log's recorder has ended");
        sent.map_err(|_| gone())?;
        outcome.await.unwrap_or_else(|_| Err(gone()))
    }
}

async fn run(pool: DatabaseConnection, mut receiver: mpsc::Receiver<Job>) {
    let mut jobs = Vec::with_capacity(BATCH);
    while receiver.recv_many(&mut jobs, BATCH).await > 0 {
        let mut chains: BTreeMap<Uuid, (Vec<Record>, Vec<_>)> = BTreeMap::new();
        for job in jobs.drain(..) {
            let (records, waiting) = chains.entry(job.tenant).or_default();
            records.push(job.record);
            waiting.push(job.done);
        }
        futures_util::stream::iter(chains)
            .for_each_concurrent(CHAINS_AT_ONCE, async |(tenant, (records, waiting))| {
                let outcome = write(&pool, tenant, records).await.map_err(ApiError::from);
                for done in waiting {
                    // Who has gone meanwhile is recorded all the same.
                    let _ = done.send(outcome.clone());
                }
            })
            .await;
    }
}

async fn write(pool: &DatabaseConnection, tenant: Uuid, records: Vec<Record>) -> Result<(), DbErr> {
    let transaction = database::begin(pool, tenant, Access::Write).await?;
    append(&transaction, tenant, records).await?;
    transaction.commit().await
}
