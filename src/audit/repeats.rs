//! Refusals that repeat: the first is recorded at once; those that equal it within a minute are counted, and the count is
//! recorded as one entry. Whoever is refused could otherwise fill a log from which nobody may delete.

use super::event::{Action, Record};
use super::recorder::Recorder;
use crate::error::ApiError;
use futures_util::future::join_all;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long equal refusals are counted before their number is recorded.
const WINDOW: Duration = Duration::from_mins(1);

/// The most kinds of refusal that are counted at once, some 5 MB at worst; what is of none of them is recorded at once.
const MOST_KINDS: usize = 4096;

/// How often counts are looked at that are due.
const LOOK: Duration = Duration::from_secs(5);

/// What equal refusals have in common: all of an entry but when and from where.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    tenant: Uuid,
    user_id: Option<Uuid>,
    action: Action,
    resource_type: &'static str,
    resource_id: Option<Uuid>,
    /// The caller's subject, the error's code, and what was asked for.
    metadata: Map<String, Value>,
}

impl Kind {
    fn of(tenant: Uuid, record: &Record) -> Self {
        let Record { user_id, action, resource_type, resource_id, metadata, .. } = record.clone();
        Self { tenant, user_id, action, resource_type, resource_id, metadata }
    }
}

/// Refusals of one kind that are not recorded yet.
#[derive(Debug, Clone)]
struct Counted {
    /// When the first of them was recorded, which is not counted here.
    since: Instant,
    count: u64,
    /// The last of them, from where all of them came: nothing where they came from different places.
    last: Record,
}

impl Counted {
    fn new(record: Record, since: Instant) -> Self {
        Self { since, count: 0, last: record }
    }

    fn add(&mut self, count: u64, record: &Record) {
        if self.count == 0 {
            self.last.origin = record.origin.clone();
        }
        if self.last.origin.ip != record.origin.ip {
            self.last.origin.ip = None;
        }
        if self.last.origin.user_agent != record.origin.user_agent {
            self.last.origin.user_agent = None;
        }
        self.last.at = self.last.at.max(record.at);
        self.count = self.count.saturating_add(count);
    }

    /// The one entry for all of them.
    fn entry(&self) -> Record {
        let mut entry = self.last.clone();
        entry.metadata.insert("count".to_owned(), self.count.into());
        entry
    }
}

/// What is counted. Not a cache: a count that made room for another would be lost.
#[derive(Debug, Default)]
struct Counts(HashMap<Kind, Counted>);

impl Counts {
    /// Counts a refusal where an equal one is kept; `false` where it is to be recorded.
    fn add(&mut self, kind: &Kind, record: &Record, now: Instant) -> bool {
        if let Some(known) = self.0.get_mut(kind) {
            known.add(1, record);
            return true;
        }
        if self.0.len() < MOST_KINDS {
            self.0.insert(kind.clone(), Counted::new(record.clone(), now));
        }
        false
    }

    /// Counts what could not be recorded, for another try.
    fn give_back(&mut self, kind: Kind, count: u64, record: &Record, now: Instant) -> bool {
        let room = self.0.len() < MOST_KINDS || self.0.contains_key(&kind);
        if room {
            self.0.entry(kind).or_insert_with(|| Counted::new(record.clone(), now)).add(count, record);
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
    pub async fn record(&self, tenant: Uuid, record: Record) -> Result<(), ApiError> {
        let kind = Kind::of(tenant, &record);
        if self.counts().add(&kind, &record, Instant::now()) {
            return Ok(());
        }
        let recorded = self.recorder.record(tenant, record.clone()).await;
        if recorded.is_err() {
            self.counts().give_back(kind, 1, &record, Instant::now());
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
        if let Err(error) = self.recorder.record(kind.tenant, counted.entry()).await {
            let kept = self.counts().give_back(kind, counted.count, &counted.last, Instant::now());
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
    use crate::audit::{Actor, Event, Origin, SYSTEM_TENANT};

    fn refusal(code: &'static str, ip: &str) -> (Kind, Record) {
        let origin = Origin::new(ip.parse().ok(), Some("clinic/1.0"));
        let event = Event::new(Action::AccessRefused, "api").with("code", code);
        let record = Actor::nobody(SYSTEM_TENANT, origin).did(event);
        (Kind::of(SYSTEM_TENANT, &record), record)
    }

    #[test]
    fn equal_refusals_of_a_minute_are_the_first_and_a_count() {
        let (mut counts, before) = (Counts::default(), Instant::now());
        let begin = before + Duration::from_secs(1);
        let (kind, record) = refusal("AUTH_008", "192.0.2.1");
        assert!(!counts.add(&kind, &record, begin), "the first is to be recorded");
        for second in 1..60 {
            assert!(counts.add(&kind, &record, begin + Duration::from_secs(second)));
        }
        // What is not equal is no repetition.
        let (other, one) = refusal("AUTH_009", "192.0.2.1");
        assert!(!counts.add(&other, &one, begin));
        assert!(counts.take(before).is_empty(), "their minute is not over");
        let over = counts.take(begin);
        assert_eq!(over.len(), 1, "what was refused once has its entry");
        let entry = over[0].1.entry();
        assert_eq!((&entry.metadata["count"], &entry.metadata["code"]), (&59.into(), &"AUTH_008".into()));
        assert_eq!((entry.origin, entry.at), (record.origin.clone(), record.at));
        for (kind, record) in [(kind, record), (other, one)] {
            assert!(!counts.add(&kind, &record, begin + WINDOW), "another minute begins with an entry of its own");
        }
    }

    #[test]
    fn a_count_names_no_place_that_is_not_all_of_theirs() {
        let (mut counts, now) = (Counts::default(), Instant::now());
        let (kind, first) = refusal("AUTH_008", "192.0.2.1");
        let (_, second) = refusal("AUTH_008", "192.0.2.2");
        let (_, third) = refusal("AUTH_008", "192.0.2.3");
        assert!(!counts.add(&kind, &first, now));
        assert!(counts.add(&kind, &second, now) && counts.add(&kind, &second, now));
        assert_eq!(counts.0[&kind].entry().origin, second.origin, "the first has an entry of its own");
        assert!(counts.add(&kind, &third, now));
        assert_eq!(counts.0[&kind].entry().origin, Origin { ip: None, ..second.origin });
    }

    #[test]
    fn what_could_not_be_recorded_is_counted() {
        let (mut counts, now) = (Counts::default(), Instant::now());
        let (kind, record) = refusal("AUTH_008", "192.0.2.1");
        assert!(!counts.add(&kind, &record, now));
        assert!(counts.give_back(kind.clone(), 1, &record, now));
        assert!(counts.add(&kind, &record, now));
        assert_eq!(counts.take(now)[0].1.count, 2);
        assert!(counts.give_back(kind, 2, &record, now));
        assert_eq!(counts.take(now)[0].1.count, 2);
    }

    #[test]
    fn any_number_of_kinds_takes_bounded_room_and_none_is_lost() {
        let (mut counts, now) = (Counts::default(), Instant::now());
        let (kind, record) = refusal("AUTH_008", "192.0.2.1");
        let of = |number: usize| Kind { tenant: Uuid::from_u128(number as u128), ..kind.clone() };
        for number in 0..MOST_KINDS + 100 {
            assert!(!counts.add(&of(number), &record, now));
        }
        assert_eq!(counts.0.len(), MOST_KINDS);
        assert!(!counts.add(&of(MOST_KINDS), &record, now), "recorded, since there is no room to count it");
        assert!(counts.add(&of(0), &record, now));
        assert!(!counts.give_back(of(MOST_KINDS), 1, &record, now));
    }
}
