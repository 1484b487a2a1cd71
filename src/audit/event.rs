//! What an entry says: who, from where, did what to what.

use super::shown;
use crate::ids::{RowId, TenantId, UserId};
use crate::subject_names::SubjectNames;
use crate::telemetry::redact;
use serde::Serialize;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::net::IpAddr;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// How many programs of a User-Agent are kept.
const PRODUCTS_MAX: usize = 4;

/// How much of a program's name is kept, in characters.
const PRODUCT_CHARS_MAX: usize = 32;

/// How many digits a program's name has: more are a number of something else.
const PRODUCT_DIGITS_MAX: usize = 3;

/// How many digits of each of the first two numbers of a version.
const VERSION_DIGITS_MAX: usize = 4;

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
    /// All that is kept of a tenant, but its log, was erased by an operator.
    Erased = "ERASED",
}

/// The client of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ClientInfo {
    /// The client's address.
    pub ip: Option<IpAddr>,
    /// Its programs, as the User-Agent names them: `Firefox/130.0`. Nothing else of that text is kept.
    pub user_agent: Option<String>,
}

impl ClientInfo {
    /// From a client's address and User-Agent header.
    #[must_use]
    pub fn new(ip: Option<IpAddr>, user_agent: Option<&str>) -> Self {
        Self { ip, user_agent: user_agent.and_then(products) }
    }
}

/// The programs that a User-Agent names with a version (RFC 9110, section 10.1.5), of which the first two numbers are kept. The
/// rest is free text: comments name devices, and anything may stand where programs ought to.
fn products(user_agent: &str) -> Option<String> {
    let (mut kept, mut count, mut rest) = (String::new(), 0, user_agent);
    while !rest.is_empty() && count < PRODUCTS_MAX {
        let (products, comment) = rest.split_at(rest.find('(').unwrap_or(rest.len()));
        for product in products.split(' ').filter_map(Product::of).take(PRODUCTS_MAX - count) {
            count += 1;
            product.add_to(&mut kept);
        }
        rest = behind_comment(comment);
    }
    match redact(&kept) {
        _ if kept.is_empty() => None,
        Cow::Borrowed(_) => Some(kept),
        Cow::Owned(redacted) => Some(redacted),
    }
}

/// What comes behind the comment that this begins with. Comments may hold others; a `\` takes the next character as it is
/// (RFC 9110, section 5.6.5).
fn behind_comment(text: &str) -> &str {
    let (mut depth, mut escaped) = (0_usize, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'(' => depth += 1,
            b')' if depth == 1 => return &text[at + 1..],
            b')' => depth -= 1,
            _ => {}
        }
    }
    ""
}

/// A program of a User-Agent: its name, and the first two numbers of its version.
struct Product<'t> {
    name: &'t str,
    major: &'t str,
    minor: &'t str,
}

impl<'t> Product<'t> {
    fn of(text: &'t str) -> Option<Self> {
        let (name, version) = text.split_once('/')?;
        // Neither as addresses of persons are written, nor as numbers of patients are.
        let of_names = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let is_name = name.len() <= PRODUCT_CHARS_MAX
            && name.starts_with(|first: char| first.is_ascii_alphabetic())
            && name.bytes().all(of_names)
            && name.bytes().filter(u8::is_ascii_digit).count() <= PRODUCT_DIGITS_MAX;
        let digits = |text: &'t str| {
            let digits = text.bytes().take(VERSION_DIGITS_MAX).take_while(u8::is_ascii_digit).count();
            &text[..digits]
        };
        let mut numbers = version.strip_prefix('v').unwrap_or(version).splitn(3, '.').map(digits);
        let (major, minor) = (numbers.next()?, numbers.next().unwrap_or_default());
        (is_name && !major.is_empty()).then_some(Self { name, major, minor })
    }

    fn add_to(&self, text: &mut String) {
        let Self { name, major, minor } = self;
        if !text.is_empty() {
            text.push(' ');
        }
        text.extend([name, "/", major]);
        if !minor.is_empty() {
            text.extend([".", minor]);
        }
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
    /// The name of a caller without a row.
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

    /// Done by the user of this row; where there is none, by whoever has this subject at the identity provider, of which the log
    /// keeps what `names` makes of it.
    #[must_use]
    pub fn by(mut self, user_id: Option<UserId>, subject: &str, names: &SubjectNames) -> Self {
        self.user_id = user_id;
        self.subject = user_id.is_none().then(|| names.name(self.tenant_id, subject));
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn programs_and_their_versions_are_kept() {
        for (user_agent, kept) in [
            ("curl/8.5.0", "curl/8.5"),
            ("clinic-app/v2 okhttp/4.12.0", "clinic-app/2 okhttp/4.12"),
            (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.6668.100 Safari/537.36",
                "Mozilla/5.0 AppleWebKit/537.36 Chrome/129.0 Safari/537.36",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 Version/17.6 Mobile/15E148 Safari/604.1",
                "Mozilla/5.0 AppleWebKit/605.1 Version/17.6 Mobile/15",
            ),
            ("Mozilla/5.0 (X11; rv:130.0) Gecko/20100101 Firefox/130.0", "Mozilla/5.0 Gecko/2010 Firefox/130.0"),
            ("a/1 b/2 c/3 d/4 e/5", "a/1 b/2 c/3 d/4"),
            ("clinic/1.0 (a (b) \\) c/7) d/8", "clinic/1.0 d/8"),
            ("clinic/1.0 219-09-9999 Grace MRN 00123456 jane/x mrn/", "clinic/1.0"),
            ("evil\u{fffd}/1.0 clinic/1.0", "clinic/1.0"),
            ("jane.doe/1.0 MRN00123456/1 u219-09-9999/1 python3-requests/2.31.0", "python3-requests/2.31"),
        ] {
            assert_eq!(products(user_agent).as_deref(), Some(kept), "{user_agent}");
        }
        for user_agent in ["", "Grace", "(clinic/1.0", "/1.0", "7/1.0", "clinic/x", "clinic\t/1.0"] {
            assert_eq!(products(user_agent), None, "{user_agent}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever comes: names of programs and short numbers, and not many.
        #[test]
        fn nothing_else_is_kept(user_agent in ".{0,300}", word in "[A-Za-z@ ()/0-9.\\\\-]{0,200}") {
            for kept in [products(&user_agent), products(&word)].into_iter().flatten() {
                prop_assert!(kept.len() <= PRODUCTS_MAX * (PRODUCT_CHARS_MAX + 2 * VERSION_DIGITS_MAX + 3), "{kept}");
                for product in kept.split(' ').filter(|product| !product.contains("[redacted]")) {
                    let (name, version) = product.split_once('/').unwrap_or_default();
                    prop_assert!(name.len() <= PRODUCT_CHARS_MAX && !name.is_empty(), "{kept}");
                    let numbers: Vec<&str> = version.split('.').collect();
                    let short = |number: &&str| (1..=VERSION_DIGITS_MAX).contains(&number.len());
                    prop_assert!(numbers.len() <= 2 && numbers.iter().all(short), "{kept}");
                    prop_assert!(version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'), "{kept}");
                }
            }
        }
    }
}
