//! What an ID token must say, besides what every token must: OpenID Connect Core 1.0, section 3.1.3.7.

use super::claims::RawClaims;
use aws_lc_rs::digest::{SHA256, SHA512, digest};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;

/// The longest time between `iat` and `exp` of an ID token that only ends a login, in seconds: a day. Auth0's default is ten
/// hours, and Okta allows a day.
const LIFETIME_MAX: i64 = 24 * 60 * 60;

/// What the ID token of a login is compared with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'e> {
    pub(super) client_id: &'e str,
    /// Whom the token may be for, besides the client.
    pub(super) audiences: &'e [String],
    /// The nonce that the login began with.
    pub(super) nonce: &'e str,
    /// The access token that came with it.
    pub(super) access_token: &'e str,
}

/// Checks the claims of a verified ID token.
pub(super) fn check_id_token(
    claims: &RawClaims,
    algorithm: Algorithm,
    expected: Expected<'_>,
) -> Result<(), &'static str> {
    if claims.text("nonce") != Some(expected.nonce) {
        return Err("the nonce is not that of the login");
    }
    if claims.own("azp").is_none() {
        // Rule 3: a token for further parties is refused, unless they are trusted. With azp, this client is the one that it was
        // issued to, and some providers then list other clients of the project, too.
        let trusted = |name: &str| name == expected.client_id || expected.audiences.iter().any(|known| known == name);
        if !claims.texts("aud").unwrap_or_default().into_iter().all(trusted) {
            return Err("it is for other parties, too (aud)");
        }
    } else if claims.text("azp") != Some(expected.client_id) {
        return Err("it is for another party (azp)");
    }
    if claims.date("exp").unwrap_or_default() - claims.date("iat").unwrap_or_default() > LIFETIME_MAX {
        return Err("it lives longer than a day");
    }
    if claims.own("at_hash").is_some_and(|hash| !hash.as_str().is_some_and(|hash| is_hash(hash, algorithm, expected))) {
        return Err("it came with another access token (at_hash)");
    }
    Ok(())
}

/// Whether this is the left half of the access token's hash, by the hash function of the ID token's algorithm (section 3.1.3.6).
/// With EdDSA that is SHA-512 for Ed25519; Ory's fosite takes SHA-256, as for every name without a number.
fn is_hash(hash: &str, algorithm: Algorithm, expected: Expected<'_>) -> bool {
    let functions = if algorithm == Algorithm::EdDSA { [&SHA512, &SHA256].as_slice() } else { &[&SHA256] };
    functions.iter().any(|function| {
        let full = digest(function, expected.access_token.as_bytes());
        let (left, _) = full.as_ref().split_at(full.as_ref().len() / 2);
        BASE64_URL_SAFE_NO_PAD.encode(left) == hash
    })
}

/// Whether both tokens are of one person. `sub` tells it; where the two differ, Okta has the ID token's `sub` as `uid` in the
/// access token, and Entra, whose `sub` is another one for each application, has the same `oid` in both.
pub(super) fn is_same_person(id: &RawClaims, access: &RawClaims) -> bool {
    let same = |in_id: &str, in_access: &str| id.text(in_id).is_some_and(|text| access.text(in_access) == Some(text));
    same("sub", "sub") || same("sub", "uid") || same("oid", "oid")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn at_hash_is_that_of_the_standard() {
        // OpenID Connect Core 1.0, appendix A.4, and the SHA-512 of the same token.
        let expected = Expected {
            client_id: "s6BhdRkqt3",
            audiences: &[],
            nonce: "n",
            access_token: "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y",
        };
        let sha256 = "77QmUPtjPfzWtF2AnpK9RQ";
        let sha512 = BASE64_URL_SAFE_NO_PAD.encode(&digest(&SHA512, expected.access_token.as_bytes()).as_ref()[..32]);
        for (algorithm, hash, good) in [
            (Algorithm::RS256, sha256, true),
            (Algorithm::ES256, sha256, true),
            (Algorithm::EdDSA, sha256, true),
            (Algorithm::EdDSA, &sha512, true),
            (Algorithm::RS256, &sha512, false),
            (Algorithm::RS256, "", false),
        ] {
            assert_eq!(is_hash(hash, algorithm, expected), good, "{algorithm:?} {hash}");
        }
    }

    #[test]
    fn a_person_is_known_by_what_providers_have_in_both_tokens() {
        let claims = |json| RawClaims::new(json).unwrap();
        for (id, access, same) in [
            (json!({"sub": "a"}), json!({"sub": "a"}), true),
            (json!({"sub": "a"}), json!({"sub": "b"}), false),
            (json!({"sub": "00u1"}), json!({"sub": "ada@example.org", "uid": "00u1"}), true),
            (json!({"sub": "00u1"}), json!({"sub": "ada@example.org", "uid": "00u2"}), false),
            (json!({"sub": "a", "oid": "1"}), json!({"sub": "b", "oid": "1"}), true),
            (json!({"sub": "a", "oid": "1"}), json!({"sub": "b", "oid": "2"}), false),
            (json!({"sub": "a", "oid": null}), json!({"sub": "b", "oid": null}), false),
        ] {
            assert_eq!(is_same_person(&claims(id.clone()), &claims(access.clone())), same, "{id} {access}");
        }
    }
}
