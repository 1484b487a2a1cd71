//! Sends checkpoints to whoever keeps them outside.

use crate::error_chain::root_cause;
use crate::http_client::HttpClient;
use crate::ids::TenantId;
use reqwest::header::CONTENT_TYPE;
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use tokio::sync::watch;

const SETTING: &str = "AUDIT_CHECKPOINT_WEBHOOK";

/// Posts checkpoints, a request each, to the URL of AUDIT_CHECKPOINT_WEBHOOK. Of each log the newest one waits until it is taken.
#[derive(Debug)]
pub(crate) struct Webhook {
    http: HttpClient,
    url: SecretString,
    waiting: watch::Sender<BTreeMap<TenantId, String>>,
}

/// Checkpoints were not taken. They still wait.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct NotTaken {
    /// Of which logs.
    pub(crate) logs: Vec<TenantId>,
    /// Why; it has nothing of the URL.
    reason: String,
}

impl Webhook {
    pub(crate) fn new(url: SecretString) -> Self {
        // The settings refuse http where it must not be, and a redirect leads nowhere.
        Self { http: HttpClient::new(SETTING, false), url, waiting: watch::Sender::default() }
    }

    /// Has a checkpoint wait, in place of an older one of the log: it covers all that the older one does.
    pub(crate) fn add(&self, log: TenantId, note: String) {
        self.waiting.send_modify(|waiting| drop(waiting.insert(log, note)));
    }

    /// Waits until there is something to send.
    pub(crate) async fn wanted(&self) {
        // It ends with `self` alone.
        let _ = self.waiting.subscribe().wait_for(|waiting| !waiting.is_empty()).await;
    }

    /// Posts what waits. One that is refused does not keep others back; where no answer comes, it is not waited for with each.
    pub(crate) async fn send(&self) -> Result<(), NotTaken> {
        let notes = self.waiting.borrow().clone();
        let mut failure = None;
        for (log, note) in notes {
            match self.post(&note).await {
                Ok(status) if status.is_success() => self.waiting.send_modify(|waiting| {
                    // A newer one may have come meanwhile.
                    if waiting.get(&log) == Some(&note) {
                        waiting.remove(&log);
                    }
                }),
                Ok(status) => failure = Some(format!("the answer is {status}")),
                Err(reason) => {
                    failure = Some(reason);
                    break;
                }
            }
        }
        let Some(reason) = failure else { return Ok(()) };
        Err(NotTaken { logs: self.waiting.borrow().keys().copied().collect(), reason })
    }

    /// Only the status is read of the answer: what follows it has no meaning here, and no end that is known.
    async fn post(&self, note: &str) -> Result<reqwest::StatusCode, String> {
        let client = self.http.client().await.map_err(|error| error.to_string())?;
        let request = client.post(self.url.expose_secret()).header(CONTENT_TYPE, "text/plain; charset=utf-8");
        let sent = request.body(note.to_owned()).send().await;
        sent.map(|answer| answer.status()).map_err(|error| root_cause(&error.without_url()))
    }
}
