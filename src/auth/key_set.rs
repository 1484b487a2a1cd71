//! The keys that tokens are checked with, from a JSON Web Key Set (RFC 7517).

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;

/// A key set as a provider sends it: each key is looked at by itself, so that one odd key spoils no other.
#[derive(Debug, Deserialize)]
pub(super) struct Document {
    keys: Vec<Value>,
}

/// A public key for signatures, and the one algorithm it is used with.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
    /// The key as it came, to see whether it has changed.
    jwk: Jwk,
}

/// Usable keys by their id.
#[derive(Debug, Default)]
pub(super) struct KeySet(HashMap<String, Key>);

impl KeySet {
    pub(super) fn find(&self, id: &str) -> Option<&Key> {
        self.0.get(id)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether every key is as in `other`, and none is missing.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self.0.iter().all(|(id, key)| other.find(id).is_some_and(|known| known.jwk == key.jwk))
    }
}

impl From<Document> for KeySet {
    /// Keys without an id, for encryption, or of another algorithm are left out.
    fn from(document: Document) -> Self {
        let keys = document.keys.into_iter().filter_map(|value| usable(serde_json::from_value(value).ok()?));
        Self(keys.collect())
    }
}

impl From<Jwk> for KeySet {
    fn from(jwk: Jwk) -> Self {
        Self(usable(jwk).into_iter().collect())
    }
}

fn usable(jwk: Jwk) -> Option<(String, Key)> {
    let common = &jwk.common;
    let for_signatures = common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        _ => return None,
    };
    // Azure's keys name no algorithm: the kind of key decides (RFC 7517, section 4.4: it is optional).
    let named = common.key_algorithm.as_ref().is_none_or(|named| *named == KeyAlgorithm::from(algorithm));
    let id = common.key_id.clone().filter(|id| !id.is_empty())?;
    if !(for_signatures && named) {
        return None;
    }
    let decoding = DecodingKey::from_jwk(&jwk).ok()?;
    Some((id, Key { algorithm, decoding, jwk }))
}
