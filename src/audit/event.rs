//! What an entry says: who, from where, did what to what.

use super::shown;
use crate::telemetry::redact;
use serde::Serialize;
use serde_json::{Map, Value};
use std::net::IpAddr;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// How much of a User-Agent is kept, in characters.
const LONGEST_USER_AGENT: usize = 256;

macro_rules! actions {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// What was done.
        // Not a name each: the document's macro reads none that comes from a macro.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, serde::Deserialize, ToSchema)]
        #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
        pub enum Action {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Action {
            /// As it stands in the log.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

actions! {
    /// Rows were read.
    DataAccess = "DATA_ACCESS",
    /// A row was made.
    Created = "CREATED",
    /// A row was changed.
    Updated = "UPDATED",
    /// A row was deleted; it can be restored.
    Deleted = "DELETED",
    /// A deleted row is back.
    Restored = "RESTORED",
    /// Someone has logged in.
    Login = "LOGIN",
    /// A login was not completed.
    LoginRefused = "LOGIN_REFUSED",
    /// A caller with a valid token was refused.
    AccessRefused = "ACCESS_REFUSED",
    /// A chain that did not hold was repaired by an operator.
    ChainRepaired = "CHAIN_REPAIRED",
}

/// From where something is done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The client's address.
    pub ip: Option<IpAddr>,
    /// What its program calls itself: 256 characters at most, redacted like a log line.
    pub user_agent: Option<String>,
}

impl Origin {
    /// From a client's address and User-Agent header.
    #[must_use]
    pub fn new(ip: Option<IpAddr>, user_agent: Option<&str>) -> Self {
        let kept = |text: &str| redact(text).chars().filter(|c| !c.is_control()).take(LONGEST_USER_AGENT).collect();
        Self { ip, user_agent: user_agent.map(kept) }
    }
}

/// Who does something, within which tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The tenant in whose chain it is recorded.
    pub tenant_id: Uuid,
    /// The user's row, where there is one.
    pub user_id: Option<Uuid>,
    /// The identity provider's name for whoever has no row.
    pub subject: Option<String>,
    /// From where.
    pub origin: Origin,
}

impl Actor {
    /// Someone unknown, or this program itself.
    #[must_use]
    pub const fn nobody(tenant_id: Uuid, origin: Origin) -> Self {
        Self { tenant_id, user_id: None, subject: None, origin }
    }

    /// This actor, having done `event` just now.
    #[must_use]
    pub fn did(&self, event: Event) -> Record {
        let Event { action, resource_type, resource_id, mut metadata } = event;
        if let (None, Some(subject)) = (self.user_id, &self.subject) {
            metadata.insert("subject".to_owned(), subject.as_str().into());
        }
        Record {
            user_id: self.user_id,
            action,
            resource_type,
            resource_id,
            origin: self.origin.clone(),
            metadata,
            at: OffsetDateTime::now_utc(),
        }
    }
}

/// What was done to what.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    action: Action,
    resource_type: &'static str,
    resource_id: Option<Uuid>,
    metadata: Map<String, Value>,
}

impl Event {
    /// `action` on things of this kind: `users`, `documents`.
    #[must_use]
    pub fn new(action: Action, resource_type: &'static str) -> Self {
        Self { action, resource_type, resource_id: None, metadata: Map::new() }
    }

    /// On this one.
    #[must_use]
    pub fn on(mut self, resource_id: Uuid) -> Self {
        self.resource_id = Some(resource_id);
        self
    }

    /// On these rows, which were on one page: when each was made, and its id.
    #[must_use]
    pub fn showing(mut self, rows: impl Iterator<Item = (OffsetDateTime, Uuid)>) -> Self {
        self.metadata.extend(shown::members(rows));
        self
    }

    /// With more of it: ids, codes, names of fields, and a [`change`] of a fixed word; never what another field holds.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.metadata.insert(name.to_owned(), value.into());
        self
    }
}

/// What a field of fixed words, such as a role, held before a change and holds now.
#[must_use]
pub fn change(from: impl Into<Value>, to: impl Into<Value>) -> Value {
    serde_json::json!({"from": from.into(), "to": to.into()})
}

/// An event with its actor and time: all of an entry but its place in the chain.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub(super) user_id: Option<Uuid>,
    pub(super) action: Action,
    pub(super) resource_type: &'static str,
    pub(super) resource_id: Option<Uuid>,
    pub(super) origin: Origin,
    pub(super) metadata: Map<String, Value>,
    pub(super) at: OffsetDateTime,
}
