//! Whether the database is there, as far as this process knows: while it is away, what needs it fails at once.
//!
//! What waits for an answer, or has lost its session, raises a doubt; one task then asks in a session of its own. A slow
//! statement or a pool that is used up is no absence: the task gets its answer. Nothing here asks the database anything
//! while all is well.

use super::new_session::{self, Reached};
use super::{Trouble, code};
use backon::{ConstantBuilder, Retryable};
use sea_orm::sqlx::{self, postgres::PgConnectOptions};
use sea_orm::{DbErr, RuntimeErr};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// How long an answer may take before there is a doubt.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long the answer to a doubt may take. With [`PATIENCE`]: a database that hangs is known to within two seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1500);

/// How much longer than a new session's a first statement's answer may take.
const SILENCE: Duration = Duration::from_secs(1);

/// How long from one look to the next.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What is known of the database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Availability(Arc<Known>);

#[derive(Debug)]
struct Known {
    away: watch::Sender<bool>,
    doubts: mpsc::Sender<()>,
    /// When the last new session was asked for that got an answer at a time when nobody waited for the lock of a table.
    reached: watch::Sender<Instant>,
    /// How many answers have come.
    answers: Arc<AtomicU64>,
    /// Sessions that are older than this many milliseconds after `begun` are not used any more.
    renewed: AtomicU64,
    begun: Instant,
    /// Whether the last change was refused, since the disk is full, or fails, or is read-only (SQLite).
    refuses_writes: AtomicBool,
}

impl Default for Availability {
    /// Of a database that nobody watches.
    fn default() -> Self {
        Self::new().0
    }
}

impl Availability {
    fn new() -> (Self, mpsc::Receiver<()>) {
        let (doubts, doubted) = mpsc::channel(1);
        let known = Known {
            away: watch::Sender::new(false),
            doubts,
            reached: watch::Sender::new(Instant::now()),
            answers: Arc::default(),
            renewed: AtomicU64::new(0),
            begun: Instant::now(),
            refuses_writes: AtomicBool::new(false),
        };
        (Self(Arc::new(known)), doubted)
    }

    /// Of a database that is asked whenever there is a doubt, for as long as this value or a clone of it lives. Needs a
    /// runtime.
    pub(super) fn watched(options: PgConnectOptions) -> Self {
        let (this, doubts) = Self::new();
        let known = &this.0;
        tokio::spawn(look(options, doubts, known.away.clone(), known.reached.clone(), Arc::clone(&known.answers)));
        this
    }

    /// Whether it is known to be away.
    pub(crate) fn is_away(&self) -> bool {
        *self.0.away.borrow()
    }

    /// Whether the last change was refused (SQLite).
    pub(super) fn refuses_writes(&self) -> bool {
        self.0.refuses_writes.load(Ordering::Relaxed)
    }

    /// A change was taken.
    pub(super) fn took_a_write(&self) {
        if self.refuses_writes() {
            self.0.refuses_writes.store(false, Ordering::Relaxed);
        }
    }

    /// Has the database asked whether it is there.
    pub(crate) fn doubt(&self) {
        // A doubt that is there already is enough.
        let _ = self.0.doubts.try_send(());
    }

    /// What the work comes to, or, once the database is known to be away, that.
    pub(super) async fn unless_away<T>(&self, work: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
        if self.is_away() {
            return Err(away());
        }
        let outcome = tokio::select! {
            biased;
            outcome = work => outcome,
            () = self.absence() => return Err(away()),
        };
        match &outcome {
            Ok(_) => drop(self.0.answers.fetch_add(1, Ordering::Relaxed)),
            Err(error) => self.learn(error),
        }
        outcome
    }

    /// Returns when the database is known to be away, which is asked after a while.
    async fn absence(&self) {
        tokio::time::sleep(PATIENCE).await;
        self.doubt();
        // Fails only without a sender, and `self` has one.
        let _ = self.0.away.subscribe().wait_for(|away| *away).await;
    }

    /// What the first statement of a session comes to, or, once it is known that a new session gets an answer and this one
    /// does not, that it has ended. Then sessions that are as old are not used any more, either: what swallows packets, such as
    /// a firewall that has forgotten its connections, has seldom forgotten one alone.
    pub(super) async fn unless_silent<T>(
        &self,
        work: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        tokio::select! {
            biased;
            outcome = work => outcome,
            () = self.silence() => {
                self.renew_sessions();
                Err(sqlx::Error::Io(std::io::Error::new(ErrorKind::TimedOut, "no answer in this session, but in a new one")))
            }
        }
    }

    /// Returns when a new session has got an answer, and whoever waits for this has had the time to get one, too.
    async fn silence(&self) {
        tokio::time::sleep(PATIENCE).await;
        let asked = Instant::now();
        self.doubt();
        // Fails only without a sender, and `self` has one.
        let _ = self.0.reached.subscribe().wait_for(|reached| *reached >= asked).await;
        tokio::time::sleep(SILENCE).await;
    }

    fn learn(&self, error: &DbErr) {
        match Trouble::of(error) {
            Some(Trouble::Unreachable) => self.doubt(),
            // read_only_sql_transaction: the session may have been opened while that was its default.
            Some(Trouble::NoWrites) if code(error).as_deref() == Some("25006") => self.renew_sessions(),
            Some(Trouble::NoWrites) => self.0.refuses_writes.store(true, Ordering::Relaxed),
            Some(Trouble::Busy) | None => {}
        }
    }

    /// Has every session replaced that is open now; again only after a while, since new ones may be no better.
    fn renew_sessions(&self) {
        let (now, last) = (self.milliseconds(), self.0.renewed.load(Ordering::Relaxed));
        if last == 0 || now.saturating_sub(last) >= milliseconds(LOOK_AGAIN) {
            self.0.renewed.store(now.max(1), Ordering::Relaxed);
        }
    }

    /// Whether a session of this age may be used.
    pub(super) fn is_fresh(&self, age: Duration) -> bool {
        let renewed = self.0.renewed.load(Ordering::Relaxed);
        renewed == 0 || self.milliseconds().saturating_sub(milliseconds(age)) >= renewed
    }

    fn milliseconds(&self) -> u64 {
        milliseconds(self.0.begun.elapsed())
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn away() -> DbErr {
    DbErr::Conn(RuntimeErr::Internal("the database is known to be away".to_owned()))
}

/// Answers doubts, until nobody is there to have one.
async fn look(
    options: PgConnectOptions,
    mut doubts: mpsc::Receiver<()>,
    away: watch::Sender<bool>,
    reached: watch::Sender<Instant>,
    answers: Arc<AtomicU64>,
) {
    while doubts.recv().await.is_some() {
        let asked = Instant::now();
        let before = answers.load(Ordering::Relaxed);
        // Whoever ends all sessions may have met this one, too; the next one is another.
        let again = ConstantBuilder::new().with_delay(Duration::ZERO).with_max_times(1);
        let reach = || new_session::reach(&options, ANSWER_TIMEOUT);
        let found = reach.retry(again).when(new_session::was_ended).await;
        if let Ok(Reached { waits_for_tables: false }) = found {
            reached.send_replace(asked);
        }
        // Who got an answer meanwhile has proof that it is there.
        if let Err(cause) = found
            && answers.load(Ordering::Relaxed) == before
        {
            away.send_replace(true);
            tracing::error!(%cause, "the database is away: what needs it fails at once until it is back");
            let since = Instant::now();
            while !doubts.is_closed() {
                tokio::time::sleep(LOOK_AGAIN).await;
                if new_session::reach(&options, ANSWER_TIMEOUT).await.is_ok() {
                    break;
                }
            }
            away.send_replace(false);
            tracing::info!(seconds = since.elapsed().as_secs(), "the database is back");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
