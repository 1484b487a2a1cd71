//! A change's turn in a transaction that several changes of one tenant share.

use super::chain::NewEntry;
use super::event::EventDraft;
use crate::database::Transaction;
use crate::error::{ApiError, ErrorCode};
use crate::traces::Trace;
use std::ops::Deref;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A change's turn in a transaction. It is undone unless it is committed.
#[derive(Debug)]
pub struct Turn {
    transaction: Arc<Transaction>,
    /// `None` once it has ended.
    ended: Option<oneshot::Sender<End>>,
}

/// Tells who waits for an entry what has become of it.
pub(super) type Done = oneshot::Sender<Result<(), ApiError>>;

/// How a turn ends: whether the change is kept, and its entry with who waits for that, and of which request.
#[derive(Debug, Default)]
pub(super) struct End {
    pub(super) keep: bool,
    pub(super) entry: Option<(NewEntry, Done, Trace)>,
}

impl Turn {
    /// A turn in this transaction, and how it will end.
    pub(super) fn new(transaction: Arc<Transaction>) -> (Self, oneshot::Receiver<End>) {
        let (ended, end) = oneshot::channel();
        (Self { transaction, ended: Some(ended) }, end)
    }

    /// Keeps the change; returns once it is committed, together with this event in the audit log.
    pub async fn commit(self, event: EventDraft) -> Result<(), ApiError> {
        self.end(true, event).await
    }

    /// Undoes the change; returns once this event is committed to the audit log. What the change has seen of others in the
    /// same transaction is committed then, too.
    pub async fn undo(self, event: EventDraft) -> Result<(), ApiError> {
        self.end(false, event).await
    }

    async fn end(mut self, keep: bool, event: EventDraft) -> Result<(), ApiError> {
        let (done, outcome) = oneshot::channel();
        let ended = self.ended.take();
        let metrics = self.transaction.metrics().clone();
        let (timer, trace) = (metrics.append(), metrics.current_trace());
        // The transaction ends before its entry is written where nothing is kept of it.
        drop(self);
        if let Some(ended) = ended {
            // Whoever shares the transaction waits for the turn's end.
            let _ = ended.send(End { keep, entry: Some((event.into(), done, trace)) });
        }
        let outcome = outcome.await.unwrap_or_else(|_| Err(gone()));
        timer.end();
        outcome
    }
}

pub(super) fn gone() -> ApiError {
    ApiError::detailed(ErrorCode::Internal, "a transaction of the audit log has ended before its time")
}

impl Deref for Turn {
    type Target = Transaction;

    fn deref(&self) -> &Transaction {
        &self.transaction
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            let _ = ended.send(End::default());
        }
    }
}
