//! How the log names callers of whom there is no row.

use crate::ids::TenantId;
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use std::fmt;
use std::sync::Arc;

/// Makes names for the identity provider's subjects, which may be a person's address. The log keeps its entries for years, and
/// none of them can be changed; whoever has the key can tell which are somebody's, and nobody can without it. Cheap to clone.
#[derive(Clone, Default)]
pub struct SubjectNames(Option<Arc<Key>>);

impl fmt::Debug for SubjectNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SubjectNames").field(&self.0.is_some()).finish()
    }
}

impl SubjectNames {
    /// By a key of 32 bytes. Without one, a subject is its own name.
    #[must_use]
    pub fn new(key: Option<&[u8; 32]>) -> Self {
        Self(key.map(|key| Arc::new(Key::new(HMAC_SHA256, key))))
    }

    /// Whether names differ from subjects.
    #[must_use]
    pub fn hide(&self) -> bool {
        self.0.is_some()
    }

    /// The subject's name in the log of this tenant: HMAC-SHA-256 (RFC 2104) of the tenant's id, its 16 bytes, and the subject in
    /// UTF-8, in hexadecimal digits. Nobody is known by it in the log of another tenant.
    #[must_use]
    pub fn name(&self, tenant: TenantId, subject: &str) -> String {
        let Some(key) = &self.0 else { return subject.to_owned() };
        let text = [tenant.0.as_bytes().as_slice(), subject.as_bytes()].concat();
        format!("hmac-sha256:{}", hex::encode(sign(key, &text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_name_is_of_one_tenant_and_one_key() {
        let (one, other) = (TenantId(Uuid::from_u128(1)), TenantId(Uuid::from_u128(2)));
        let names = SubjectNames::new(Some(&[7; 32]));
        // printf '\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1jane@example.org' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0707... (32 bytes)
        assert_eq!(
            names.name(one, "jane@example.org"),
            "hmac-sha256:ec91505cd6ecf9bf3b7937dba37a25886b42767e36944d232e8e2eca0b14af91"
        );
        assert_ne!(names.name(one, "jane@example.org"), names.name(other, "jane@example.org"));
        assert_ne!(
            names.name(one, "jane@example.org"),
            SubjectNames::new(Some(&[8; 32])).name(one, "jane@example.org")
        );
        assert_eq!(SubjectNames::new(None).name(one, "jane@example.org"), "jane@example.org");
    }
}
