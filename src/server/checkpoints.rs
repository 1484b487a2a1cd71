//! Makes checkpoints of the audit logs that this process writes to, and sends them to the webhook, where there is one.
//!
//! It knows of these logs alone: the role of run time cannot ask which tenants there are. Each log has a checkpoint once its newest one
//! is old enough, whichever replica made that.

use crate::app::AppState;
use crate::audit::{self, Made, NotTaken, Webhook};
use crate::database::Access;
use crate::ids::TenantId;
use crate::metrics::Metrics;
use crate::note::SigningKey;
use backon::{ExponentialBuilder, Retryable};
use sea_orm::DbErr;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// How often the process looks whether a checkpoint is due.
const TICK: Duration = Duration::from_secs(2);

/// How long a log waits after its checkpoint failed.
const AFTER_FAILURE: Duration = Duration::from_mins(1);

/// How long it waits after its checkpoint was refused, at most. Alerts look back an hour (deploy/observability/rules.yaml), and are to last
/// as long as the log is as it is.
const AFTER_REFUSAL: Duration = Duration::from_mins(15);

/// How long the webhook is left alone after it has not taken a checkpoint: at first, and at most.
const WEBHOOK_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// Makes and sends checkpoints until it is aborted. Neither waits for the other.
pub(super) async fn run(state: AppState) {
    let audit = &state.settings.audit;
    let (Some(key), Some(interval)) = (&audit.signing_key, audit.checkpoint_interval) else { return };
    let webhook = audit.webhook.clone().map(Webhook::new);
    let send = async {
        if let Some(webhook) = &webhook {
            send(webhook, state.database.metrics()).await;
        }
    };
    tokio::join!(make(&state, key, interval, webhook.as_ref()), send);
}

/// Makes checkpoints: one at a time, on one connection of the pool.
async fn make(state: &AppState, key: &SigningKey, interval: Duration, webhook: Option<&Webhook>) {
    let mut due: HashMap<TenantId, Instant> = HashMap::new();
    loop {
        tokio::time::sleep(TICK).await;
        let now = Instant::now();
        for tenant in state.tenancy.take_written() {
            due.entry(tenant).or_insert(now);
        }
        let ready: Vec<TenantId> = due.iter().filter(|(_, at)| **at <= now).map(|(tenant, _)| *tenant).collect();
        for tenant in ready {
            let made = audit::checkpoint(&state.database, Access::Write, tenant, key, Some(interval)).await;
            match (&made, webhook) {
                (Ok(Ok(Made::Note(note))), Some(webhook)) => webhook.add(tenant, note.clone()),
                (Ok(Err(refused)), _) if refused.contradicts() => state.database.metrics().checkpoint_refused(),
                _ => {}
            }
            match next(tenant, made, interval) {
                Some(wait) => due.insert(tenant, Instant::now() + wait),
                None => due.remove(&tenant),
            };
        }
    }
}

/// Sends what waits, and what comes meanwhile, again and again until it is taken.
async fn send(webhook: &Webhook, metrics: &Metrics) {
    let (first, most) = WEBHOOK_PAUSES;
    let pauses = ExponentialBuilder::default().with_min_delay(first).with_max_delay(most).without_max_times();
    let tell = |error: &NotTaken, _| {
        metrics.checkpoints_waiting(error.logs.len());
        tracing::warn!(logs = error.logs.len(), %error, "the webhook did not take checkpoints of audit logs: they are sent again");
    };
    loop {
        webhook.wanted().await;
        let _ = (|| webhook.send()).retry(pauses).notify(tell).await;
        metrics.checkpoints_waiting(0);
    }
}

/// How long to wait until the log is looked at again; not before it is written to, where there is nothing to wait for.
fn next(tenant: TenantId, made: Result<Result<Made, audit::Refused>, DbErr>, interval: Duration) -> Option<Duration> {
    match made {
        Ok(Ok(Made::NotDue(wait))) => Some(wait),
        Ok(Ok(Made::Note(_) | Made::Empty)) => None,
        Ok(Err(refused)) if !refused.contradicts() => {
            tracing::warn!(%tenant, %refused, "the audit log gets no checkpoints any more");
            Some(interval)
        }
        Ok(Err(refused)) => {
            tracing::error!(%tenant, %refused, "no checkpoint of the audit log is made: run `bulkhead audit verify`");
            Some(interval.min(AFTER_REFUSAL))
        }
        Err(error) => {
            tracing::warn!(%tenant, %error, "the checkpoint of an audit log is tried again in a minute");
            Some(AFTER_FAILURE)
        }
    }
}
