//! The keys that tokens are verified with, from a JSON Web Key Set (RFC 7517).

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
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

/// Usable keys by their id. Keys of different types may share one (RFC 7517, section 4.5): each id has at most one key of an
/// algorithm.
#[derive(Debug, Default)]
pub(super) struct KeySet(HashMap<String, Vec<Key>>);

impl KeySet {
    pub(super) fn find(&self, id: &str, algorithm: Algorithm) -> Option<&Key> {
        self.0.get(id)?.iter().find(|key| key.algorithm == algorithm)
    }

    /// Whether there is a key of this id, whatever its algorithm.
    pub(super) fn has_id(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }

    pub(super) fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Whether both sets have the same keys under the same ids.
    pub(super) fn has_same_keys(&self, other: &Self) -> bool {
        let mut keys = self.0.iter().flat_map(|(id, keys)| keys.iter().map(move |key| (id, key)));
        self.len() == other.len()
            && keys.all(|(id, key)| other.find(id, key.algorithm).is_some_and(|known| known.jwk == key.jwk))
    }
}

impl FromIterator<(String, Key)> for KeySet {
    /// Of two keys with the same id and algorithm, the last one counts.
    fn from_iter<I: IntoIterator<Item = (String, Key)>>(keys: I) -> Self {
        let mut set = HashMap::<String, Vec<Key>>::new();
        for (id, key) in keys {
            let same_id = set.entry(id).or_default();
            same_id.retain(|other| other.algorithm != key.algorithm);
            same_id.push(key);
        }
        Self(set)
    }
}

/// The algorithm of this name, if tokens may be signed by it. RFC 9864 names EdDSA with Ed25519 `Ed25519`, and deprecates the
/// name `EdDSA`, which does not tell the curve.
pub(super) fn algorithm_named(name: &str) -> Option<Algorithm> {
    match name {
        "RS256" => Some(Algorithm::RS256),
        "ES256" => Some(Algorithm::ES256),
        "EdDSA" | "Ed25519" => Some(Algorithm::EdDSA),
        _ => None,
    }
}

impl From<JwksDocument> for KeySet {
    /// Keys without an id, for encryption, or of another algorithm are left out.
    fn from(document: JwksDocument) -> Self {
        let keys = document.keys.into_iter().filter_map(|value| {
            // The library knows no `Ed25519`, so the name is read here.
            let algorithm = value.get("alg").and_then(Value::as_str).map(str::to_owned);
            to_verification_key(serde_json::from_value(value).ok()?, algorithm.as_deref())
        });
        keys.collect()
    }
}

impl From<Jwk> for KeySet {
    fn from(jwk: Jwk) -> Self {
        to_verification_key(jwk, None).into_iter().collect()
    }
}

/// The key and its id, unless it lacks an id, is not for signatures, or names another algorithm.
fn to_verification_key(jwk: Jwk, named: Option<&str>) -> Option<(String, Key)> {
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
    let algorithm_matches = named.is_none_or(|name| algorithm_named(name) == Some(algorithm));
    let id = common.key_id.clone().filter(|id| !id.is_empty())?;
    if !(for_signatures && algorithm_matches) {
        return None;
    }
    let decoding = DecodingKey::from_jwk(&jwk).ok()?;
    Some((id, Key { algorithm, decoding, jwk }))
}
