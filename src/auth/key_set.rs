//! The keys that tokens are verified with, from a JSON Web Key Set (RFC 7517).

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;

/// A key set as a provider sends it. Each key is parsed on its own, so that a malformed one does not affect the others.
#[derive(Debug, Deserialize)]
pub(super) struct JwksDocument {
    keys: Vec<Value>,
}

/// A public key for signatures, and the one algorithm it is used with.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
    /// The key as the provider sent it, to detect a change.
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

    /// Whether both sets have the same keys under the same ids.
    pub(super) fn has_same_keys(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self.0.iter().all(|(id, key)| other.find(id).is_some_and(|known| known.jwk == key.jwk))
    }
}

impl From<JwksDocument> for KeySet {
    /// Keys without an id, for encryption, or of another algorithm are left out.
    fn from(document: JwksDocument) -> Self {
        let keys =
            document.keys.into_iter().filter_map(|value| to_verification_key(serde_json::from_value(value).ok()?));
        Self(keys.collect())
    }
}

impl From<Jwk> for KeySet {
    fn from(jwk: Jwk) -> Self {
        Self(to_verification_key(jwk).into_iter().collect())
    }
}

/// The key and its id, unless it lacks an id, is not for signatures, or has another algorithm.
fn to_verification_key(jwk: Jwk) -> Option<(String, Key)> {
    let common = &jwk.common;
    let for_signatures = common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        _ => return None,
    };
    // The algorithm is optional (RFC 7517, section 4.4), and Azure's keys have none: the type of the key then decides.
    let algorithm_matches = common.key_algorithm.as_ref().is_none_or(|named| *named == KeyAlgorithm::from(algorithm));
    let id = common.key_id.clone().filter(|id| !id.is_empty())?;
    if !(for_signatures && algorithm_matches) {
        return None;
    }
    let decoding = DecodingKey::from_jwk(&jwk).ok()?;
    Some((id, Key { algorithm, decoding, jwk }))
}
