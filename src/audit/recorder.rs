//! Records what only reads: many at once share a transaction, and each waits until its entry is on disk.

use super::chain::append;
use super::event::Record;
use crate::database::{Access, Pool};
use crate::error::{ApiError, ErrorCode};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sea_orm::DbErr;
use std::collections::{HashMap, HashSet, VecDeque};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// The most records that wait; who comes then waits to be let in.
const QUEUE: usize = 1024;

/// The most records of one transaction.
const BATCH: usize = 256;

/// Chains that are appended to at once: each takes a connection.
const CHAINS_AT_ONCE: usize = 4;

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
    pub fn start(pool: Pool) -> Self {
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

/// Each chain has one transaction at work at most, and what comes for it meanwhile makes the next: a chain that is held
/// up holds up no other.
async fn run(pool: Pool, mut receiver: mpsc::Receiver<Job>) {
    let mut chains = Chains::default();
    let mut writes = FuturesUnordered::new();
    let mut jobs = Vec::with_capacity(BATCH);
    let mut open = true;
    loop {
        tokio::select! {
            count = receiver.recv_many(&mut jobs, BATCH), if open && chains.waiting < QUEUE => {
                open = count > 0;
                jobs.drain(..).for_each(|job| chains.add(job));
            }
            Some(tenant) = writes.next() => chains.written(tenant),
            else => break,
        }
        while writes.len() < CHAINS_AT_ONCE {
            let Some((tenant, batch)) = chains.next() else { break };
            writes.push(write_all(&pool, tenant, batch));
        }
    }
}

/// What waits to be written, by chain.
#[derive(Default)]
struct Chains {
    jobs: HashMap<Uuid, Vec<Job>>,
    /// Chains with jobs and no transaction, in the order in which they came.
    ready: VecDeque<Uuid>,
    /// Chains with a transaction at work.
    writing: HashSet<Uuid>,
    /// How many jobs wait.
    waiting: usize,
}

impl Chains {
    fn add(&mut self, job: Job) {
        let jobs = self.jobs.entry(job.tenant).or_default();
        if jobs.is_empty() && !self.writing.contains(&job.tenant) {
            self.ready.push_back(job.tenant);
        }
        jobs.push(job);
        self.waiting += 1;
    }

    /// The chain whose turn it is, and its jobs.
    fn next(&mut self) -> Option<(Uuid, Vec<Job>)> {
        let tenant = self.ready.pop_front()?;
        let mut batch = self.jobs.remove(&tenant)?;
        if batch.len() > BATCH {
            self.jobs.insert(tenant, batch.split_off(BATCH));
        }
        self.waiting -= batch.len();
        self.writing.insert(tenant);
        Some((tenant, batch))
    }

    fn written(&mut self, tenant: Uuid) {
        self.writing.remove(&tenant);
        if self.jobs.contains_key(&tenant) {
            self.ready.push_back(tenant);
        }
    }
}

async fn write_all(pool: &Pool, tenant: Uuid, jobs: Vec<Job>) -> Uuid {
    let (records, waiting): (Vec<_>, Vec<_>) = jobs.into_iter().map(|job| (job.record, job.done)).unzip();
    let outcome = write(pool, tenant, records).await.map_err(ApiError::from);
    for done in waiting {
        // Who has gone meanwhile is recorded all the same.
        let _ = done.send(outcome.clone());
    }
    tenant
}

async fn write(pool: &Pool, tenant: Uuid, records: Vec<Record>) -> Result<(), DbErr> {
    let transaction = pool.begin(tenant, Access::Write).await?;
    append(&transaction, tenant, records).await?;
    transaction.commit().await
}
