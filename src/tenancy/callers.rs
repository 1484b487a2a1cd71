//! Looks callers up: those who come while others are looked up share the next statement.
//!
//! What a request learns of its caller was read after the request came, so that a suspension, a deletion or a new role holds
//! from the next request on.

use super::caller::{ResolvedCaller, Subject};
use crate::database::{Pool, Trouble};
use crate::error::{ApiError, ErrorCode};
use crate::traces::Trace;
use sea_orm::{ConnectionTrait, DbBackend};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;
use tracing::{Instrument, Span};

/// How many statements look callers up at once. Each takes a connection.
const LOOKS_AT_ONCE: usize = 2;

type Answer = Result<Option<ResolvedCaller>, ApiError>;
type Waiting = HashMap<Subject, Vec<oneshot::Sender<Answer>>>;

/// Looks callers up. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Callers {
    pool: Pool,
    queue: Arc<Mutex<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Waiting,
    /// How many statements there are.
    looking: usize,
}

impl Callers {
    pub(super) fn new(pool: Pool) -> Self {
        Self { pool, queue: Arc::default() }
    }

    /// The tenant of this external id, and its user of this subject if it has one. Needs a runtime.
    pub(super) async fn find(&self, subject: Subject) -> Answer {
        if self.pool.get_database_backend() != DbBackend::Postgres {
            return ResolvedCaller::find(&self.pool, &subject).await.map_err(ApiError::of_begin);
        }
        let (answer, caller) = oneshot::channel();
        self.queue().waiting.entry(subject).or_default().push(answer);
        self.look(Span::current(), &self.pool.metrics().current_trace());
        let gone = |_| Err(ApiError::detailed(ErrorCode::Internal, "a look for callers has ended before its time"));
        caller.await.unwrap_or_else(gone)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the statement that there may be. What it logs, and its own span, are of the request that begins it, if one does.
    fn look(&self, span: Span, trace: &Trace) {
        let waiting = {
            let mut queue = self.queue();
            if queue.waiting.is_empty() || queue.looking == LOOKS_AT_ONCE {
                return;
            }
            queue.looking += 1;
            std::mem::take(&mut queue.waiting)
        };
        let looking = Looking(self.clone());
        tokio::spawn(trace.run(async move { looking.0.answer(waiting).await }).instrument(span));
    }

    async fn answer(&self, waiting: Waiting) {
        let subjects: Vec<Subject> = waiting.keys().cloned().collect();
        let found = ResolvedCaller::find_all(&self.pool, &subjects).await;
        // One that the database refuses is refused alone.
        let one_by_one = subjects.len() > 1 && found.as_ref().is_err_and(|error| Trouble::of(error).is_none());
        let found = if one_by_one { Ok(HashMap::new()) } else { found.map_err(ApiError::of_begin) };
        for (subject, answers) in waiting {
            let answer = match &found {
                Ok(_) if one_by_one => ResolvedCaller::find(&self.pool, &subject).await.map_err(ApiError::of_begin),
                Ok(found) => Ok(found.get(&subject).cloned()),
                Err(error) => Err(error.clone()),
            };
            for waiting in answers {
                // Fails where the caller has gone.
                let _ = waiting.send(answer.clone());
            }
        }
    }
}

/// A statement. When it has ended, whatever has happened, there may be the next one.
struct Looking(Callers);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.queue().looking -= 1;
        self.0.look(Span::none(), &Trace::default());
    }
}
