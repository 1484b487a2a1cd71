//! The claims of a token: as the JSON of its payload, and as this API reads them.

use crate::entity::user::Role;
use serde_json::{Map, Value};

/// The tenant id that belongs to the system itself; no token may name it.
const SYSTEM_TENANT: &str = "system";

/// The claims of an accepted token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The provider's id for the caller (`sub`).
    pub subject: String,
    /// The tenant's external id: 3 to 128 of `[A-Za-z0-9_-]`.
    pub tenant: String,
    /// The caller's role, if the token names one.
    pub role: RoleClaim,
    /// When the token expires: Unix time in seconds.
    pub expires_at: i64,
}

/// The role claim of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleClaim {
    /// The claim is missing or null.
    Absent,
    /// The claim contains no role of this API.
    Unrecognized,
    /// The highest role that the claim contains.
    Role(Role),
}

impl RoleClaim {
    pub(super) fn read(claim: Option<&Value>) -> Self {
        match claim {
            None | Some(Value::Null) => Self::Absent,
            Some(claim) => highest_role(claim).map_or(Self::Unrecognized, Self::Role),
        }
    }

    /// The caller's role. The `row`'s role counts only if the claim is absent. A claim without a known role gives no role:
    /// the provider decides, and may have taken the role away.
    #[must_use]
    pub fn or(self, row: Option<Role>) -> Option<Role> {
        match self {
            Self::Absent => row,
            Self::Unrecognized => None,
            Self::Role(role) => Some(role),
        }
    }
}

/// A role by its name, or the highest role of a list. Other names, such as groups and scopes of other services, are
/// ignored.
fn highest_role(claim: &Value) -> Option<Role> {
    let role = |value: &Value| match value.as_str()? {
        "admin" => Some(Role::Admin),
        "member" => Some(Role::Member),
        "viewer" => Some(Role::Viewer),
        _ => None,
    };
    match claim {
        Value::Array(values) => values.iter().filter_map(role).max(),
        value => role(value),
    }
}

/// Whether a token may name a tenant by this id: 3 to 128 of `[A-Za-z0-9_-]`, and not the reserved `system`.
#[must_use]
pub fn is_valid_tenant_id(id: &str) -> bool {
    (3..=128).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        && !id.eq_ignore_ascii_case(SYSTEM_TENANT)
}

/// The claims as a JSON object, in which no name occurs twice, at any depth (RFC 7519, section 4): two readers of the same
/// token could otherwise see two different claims.
#[derive(Debug)]
pub(super) struct RawClaims(Map<String, Value>);

impl RawClaims {
    /// The claims, if `json` is an object.
    pub(super) fn new(json: Value) -> Option<Self> {
        if let Value::Object(members) = json { Some(Self(members)) } else { None }
    }

    /// The claim of this name. If there is none, the name is taken as a dotted path into nested objects.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        let direct = self.0.get(name);
        direct.or_else(|| {
            let mut path = name.split('.');
            let first = self.0.get(path.next()?)?;
            path.try_fold(first, |value, part| value.get(part))
        })
    }

    /// The claim of this very name, unless it is null.
    pub(super) fn own(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A text, or each of a list of texts, such as `aud` (RFC 7519, section 4.1.3).
    pub(super) fn texts(&self, name: &str) -> Option<Vec<&str>> {
        match self.0.get(name)? {
            Value::String(text) => Some(vec![text]),
            Value::Array(items) => items.iter().map(Value::as_str).collect(),
            _ => None,
        }
    }

    /// A NumericDate (RFC 7519, section 2) from 1970 on, truncated to whole seconds.
    pub(super) fn date(&self, name: &str) -> Option<i64> {
        /// 2^53, the limit up to which JSON's numbers are exact: some 285 million years.
        const DATE_MAX: f64 = 9_007_199_254_740_992.0;
        let seconds = self.0.get(name)?.as_f64().filter(|seconds| (0.0..DATE_MAX).contains(seconds))?;
        #[allow(clippy::cast_possible_truncation, reason = "bounded above")]
        Some(seconds as i64)
    }
}
