//! Refusals that repeat: the first is recorded at once; those that equal it within a minute are counted, and the count is
//! recorded as one entry. Whoever is refused could otherwise fill a log from which nobody may delete.

use super::event::{ClientInfo, EventDraft};
use super::recorder::Recorder;
use crate::error::ApiError;
use futures_util::future::join_all;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long equal refusals are counted before their number is recorded.
const WINDOW: Duration = Duration::from_mins(1);

/// The most kinds of refusal that are counted at once, some 5 MB at worst; what is of none of them is recorded at once.
const MOST_KINDS: usize = 4096;

/// How often counts are looked at that are due.
const LOOK: Duration = Duration::from_secs(5);

/// What equal refusals have in common: all of the event but its client.
type Kind = EventDraft;

fn kind(event: &EventDraft) -> Kind {
    event.clone().from_client(ClientInfo::default())
}

/// Refusals of one kind that are not recorded yet.
#[derive(Debug, Clone)]
struct Counted {
    /// When the first of them was recorded, which is not counted here.
    since: Instant,
    count: u64,
    /// The client that all of them came from; of what differs between them, nothing.
    client: ClientInfo,
}

impl Counted {
    fn add(&mut self, count: u64, client: &ClientInfo) {
        if self.count == 0 {
            self.client = client.clone();
        }
        if self.client.ip != client.ip {
            self.client.ip = None;
        }
        if self.client.user_agent != client.user_agent {
            self.client.user_agent = None;
        }
        self.count = self.count.saturating_add(count);
    }

    /// The one entry for all of them.
    fn entry(&self, kind: &Kind) -> EventDraft {
        kind.clone().from_client(self.client.clone()).with("count", self.count)
    }
}

/// What is counted. Not a cache: a count that made room for another would be lost.
#[derive(Debug, Default)]
struct Counts(HashMap<Kind, Counted>);

impl Counts {
    /// Counts a refusal where an equal one is kept; `false` where it is to be recorded.
    fn add(&mut self, event: &EventDraft, now: Instant) -> bool {
        let kind = kind(event);
        if let Some(known) = self.0.get_mut(&kind) {
            known.add(1, &event.client);
            return true;
        }
        if self.0.len() < MOST_KINDS {
            self.0.insert(kind, Counted { since: now, count: 0, client: event.client.clone() });
        }
        false
    }

    /// Counts what could not be recorded, for another try.
    fn give_back(&mut self, kind: Kind, count: u64, client: &ClientInfo, now: Instant) -> bool {
        let room = self.0.len() < MOST_KINDS || self.0.contains_key(&kind);
        if room {
            let new = || Counted { since: now, count: 0, client: client.clone() };
            self.0.entry(kind).or_insert_with(new).add(count, client);
        }
        room
    }

    /// Takes out what began by `end`: the counts, and what was refused only once.
    fn take(&mut self, end: Instant) -> Vec<(Kind, Counted)> {
        self.0.extract_if(|_, counted| counted.since <= end).filter(|(_, counted)| counted.count > 0).collect()
    }
}

/// Records refusals. One for the process.
#[derive(Debug)]
pub struct Refusals {
    recorder: Recorder,
    counts: Mutex<Counts>,
    /// Held while counts are written that nobody waits for.
    writing: tokio::sync::Mutex<()>,
}

impl Refusals {
    /// Records through this recorder. Counts are recorded for as long as the value lives. Needs a runtime.
    #[must_use]
    pub fn start(recorder: Recorder) -> Arc<Self> {
        let this = Arc::new(Self { recorder, counts: Mutex::default(), writing: tokio::sync::Mutex::default() });
        tokio::spawn(run(Arc::downgrade(&this)));
        this
    }

    /// Returns once the refusal is committed to the tenant's chain, or counted, because an equal one was recorded within
    /// the minute.
    pub async fn record(&self, event: EventDraft) -> Result<(), ApiError> {
        if self.counts().add(&event, Instant::now()) {
            return Ok(());
        }
        let recorded = self.recorder.record(event.clone()).await;
        if recorded.is_err() {
            self.counts().give_back(kind(&event), 1, &event.client, Instant::now());
        }
        recorded
    }

    /// Records every count there is; returns once that is committed, or has failed.
    pub async fn flush(&self) {
        self.write_all(Instant::now()).await;
    }

    async fn write_all(&self, end: Instant) {
        let _one_at_a_time = self.writing.lock().await;
        let over = self.counts().take(end);
        join_all(over.into_iter().map(|(kind, counted)| self.write(kind, counted))).await;
    }

    async fn write(&self, kind: Kind, counted: Counted) {
        if let Err(error) = self.recorder.record(counted.entry(&kind)).await {
            let kept = self.counts().give_back(kind, counted.count, &counted.client, Instant::now());
            tracing::error!(?error, count = counted.count, kept, "counted refusals are not in the audit log");
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records counts as their minute ends.
async fn run(refusals: Weak<Refusals>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(refusals) = refusals.upgrade() else { return };
        if let Some(end) = Instant::now().checked_sub(WINDOW) {
            refusals.write_all(end).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::audit::{Action, SYSTEM_TENANT};
    use crate::ids::TenantId;
    use serde_json::Value;
    use uuid::Uuid;

    fn refusal(code: &'static str, ip: &str) -> EventDraft {
        EventDraft::new(SYSTEM_TENANT, Action::AccessRefused, "api")
            .from_client(ClientInfo::new(ip.parse().ok(), Some("clinic/1.0")))
            .with("code", code)
    }

    #[test]
    fn equal_refusals_of_a_minute_are_the_first_and_a_count() {
        let (mut counts, before) = (Counts::default(), Instant::now());
        let begin = before + Duration::from_secs(1);
        let first = refusal("AUTH_008", "192.0.2.1");
        assert!(!counts.add(&first, begin), "the first is to be recorded");
        for second in 1..60 {
            assert!(counts.add(&first, begin + Duration::from_secs(second)));
        }
        // An event with another code is no repetition.
        let other = refusal("AUTH_009", "192.0.2.1");
        assert!(!counts.add(&other, begin));
        assert!(counts.take(before).is_empty(), "their minute is not over");
        let over = counts.take(begin);
        assert_eq!(over.len(), 1, "what was refused once has its entry");
        let entry = over[0].1.entry(&over[0].0);
        assert_eq!(entry, first.clone().with("count", 59));
        for event in [first, other] {
            assert!(!counts.add(&event, begin + WINDOW), "another minute begins with an entry of its own");
        }
    }

    #[test]
    fn a_count_names_no_client_that_is_not_all_of_theirs() {
        let (mut counts, now) = (Counts::default(), Instant::now());
        let [first, second, third] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|ip| refusal("AUTH_008", ip));
        let client = |counts: &Counts| counts.0[&kind(&first)].client.clone();
        assert!(!counts.add(&first, now));
        assert!(counts.add(&second, now) && counts.add(&second, now));
        assert_eq!(client(&counts), second.client, "the first has an entry of its own");
        assert!(counts.add(&third, now));
        assert_eq!(client(&counts), ClientInfo { ip: None, ..second.client });
    }

    #[test]
    fn a_refusal_that_could_not_be_recorded_is_counted() {
        let (mut counts, now) = (Counts::default(), Instant::now());
        let event = refusal("AUTH_008", "192.0.2.1");
        let count = |counts: &mut Counts| {
            let (kind, counted) = counts.take(now).pop().unwrap();
            counted.entry(&kind).metadata()["count"].clone()
        };
        assert!(!counts.add(&event, now));
        assert!(counts.give_back(kind(&event), 1, &event.client, now));
        assert!(counts.add(&event, now));
        assert_eq!(count(&mut counts), Value::from(2));
        assert!(counts.give_back(kind(&event), 2, &event.client, now));
        assert_eq!(count(&mut counts), Value::from(2));
    }

    #[test]
    fn any_number_of_kinds_takes_bounded_memory_and_none_is_lost() {
        let (mut counts, now) = (Counts::default(), Instant::now());
        let event = |number: usize| EventDraft {
            tenant_id: TenantId(Uuid::from_u128(number as u128)),
            ..refusal("AUTH_008", "192.0.2.1")
        };
        for number in 0..MOST_KINDS + 100 {
            assert!(!counts.add(&event(number), now));
        }
        assert_eq!(counts.0.len(), MOST_KINDS);
        let last = event(MOST_KINDS);
        assert!(!counts.add(&last, now), "recorded, since there is no room to count it");
        assert!(counts.add(&event(0), now));
        assert!(!counts.give_back(kind(&last), 1, &last.client, now));
    }
}
