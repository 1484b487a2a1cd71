//! What an entry says: who, from where, did what to what.

use super::shown;
use crate::ids::{RowId, TenantId, UserId};
use crate::telemetry::redact;
use crate::text::is_invisible;
use serde::Serialize;
use serde_json::{Map, Value};
use std::net::IpAddr;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// How much of a User-Agent is kept, in characters.
const USER_AGENT_CHARS_MAX: usize = 256;

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

/// The client of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ClientInfo {
    /// The client's address.
    pub ip: Option<IpAddr>,
    /// What its program calls itself: 256 characters at most, redacted like a log line.
    pub user_agent: Option<String>,
}

impl ClientInfo {
    /// From a client's address and User-Agent header.
    #[must_use]
    pub fn new(ip: Option<IpAddr>, user_agent: Option<&str>) -> Self {
        let kept = |text: &str| redact(text).chars().filter(|c| !is_invisible(*c)).take(USER_AGENT_CHARS_MAX).collect();
        Self { ip, user_agent: user_agent.map(kept) }
    }
}

/// An entry of the audit log before it has its place in a chain: who did what to what, in which tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventDraft {
    pub(super) tenant_id: TenantId,
    pub(super) user_id: Option<UserId>,
    pub(super) action: Action,
    pub(super) resource_type: &'static str,
    pub(super) resource_id: Option<Uuid>,
    pub(super) client: ClientInfo,
    /// The identity provider's name for a caller without a row.
    pub(super) subject: Option<String>,
    /// Whether the row that was asked for is there; only entries of reads say so.
    pub(super) found: Option<bool>,
    pub(super) metadata: Map<String, Value>,
}

impl EventDraft {
    /// `action` on things of this kind (`users`, `documents`), in this tenant's chain. Nobody has done it yet: neither a
    /// user nor a client is known.
    #[must_use]
    pub fn new(tenant_id: TenantId, action: Action, resource_type: &'static str) -> Self {
        Self {
            tenant_id,
            user_id: None,
            action,
            resource_type,
            resource_id: None,
            client: ClientInfo::default(),
            subject: None,
            found: None,
            metadata: Map::new(),
        }
    }

    /// Done by the user of this row; where there is none, by whoever has this name at the identity provider.
    #[must_use]
    pub fn by(mut self, user_id: Option<UserId>, subject: &str) -> Self {
        self.user_id = user_id;
        self.subject = user_id.is_none().then(|| subject.to_owned());
        self
    }

    /// Done by a request of this client.
    #[must_use]
    pub fn from_client(mut self, client: ClientInfo) -> Self {
        self.client = client;
        self
    }

    /// The tenant in whose chain it will stand.
    #[must_use]
    pub fn tenant_id(&self) -> TenantId {
        self.tenant_id
    }

    /// On this row.
    #[must_use]
    pub fn on(mut self, resource_id: impl RowId) -> Self {
        self.resource_id = Some(resource_id.into());
        self
    }

    /// With more of it: ids, codes, names of fields, and a [`change`] of a fixed word; never what another field holds.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.add(name, value);
        self
    }

    /// As [`EventDraft::on`].
    pub fn set_resource_id(&mut self, resource_id: Uuid) {
        self.resource_id = Some(resource_id);
    }

    /// As [`EventDraft::with`].
    pub fn add(&mut self, name: &'static str, value: impl Into<Value>) {
        self.metadata.insert(name.to_owned(), value.into());
    }

    /// Adds the rows of a page: when each was made, and its id.
    pub fn add_rows(&mut self, rows: impl Iterator<Item = (OffsetDateTime, Uuid)>) {
        self.metadata.extend(shown::members(rows));
    }

    /// Says whether the row that was asked for is there.
    pub fn set_found(&mut self, found: bool) {
        self.found = Some(found);
    }

    /// Turns it into a read of this row: for what was to change something, and did not.
    pub fn turn_into_read(&mut self) {
        self.action = Action::DataAccess;
        self.metadata.clear();
    }

    /// Turns it into a read that looked for this row of this kind.
    pub fn turn_into_read_of(&mut self, resource_type: &'static str, resource_id: Uuid) {
        self.turn_into_read();
        (self.resource_type, self.resource_id) = (resource_type, Some(resource_id));
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.action == Action::DataAccess
    }

    /// The entry's metadata.
    pub(super) fn metadata(&self) -> Value {
        let mut metadata = self.metadata.clone();
        if let Some(subject) = &self.subject {
            metadata.insert("subject".to_owned(), subject.as_str().into());
        }
        if let (true, Some(found)) = (self.is_read(), self.found) {
            metadata.insert("found".to_owned(), found.into());
        }
        metadata.into()
    }
}

/// What a field of fixed words, such as a role, held before a change and holds now.
#[must_use]
pub fn change(from: impl Into<Value>, to: impl Into<Value>) -> Value {
    serde_json::json!({"from": from.into(), "to": to.into()})
}
