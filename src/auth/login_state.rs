//! What a login keeps in the browser between its beginning and its end: a signed JWT (RFC 7519), the value of a cookie.

use crate::clock::unix_seconds;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

/// How long a person may take to log in, in seconds.
pub(super) const LOGIN_TTL_SECONDS: i64 = 600;

/// The random values of one login.
#[derive(Serialize, Deserialize)]
pub(super) struct LoginState {
    /// The provider sends it back with the code (RFC 6749, section 10.12).
    pub(super) state: String,
    /// The ID token repeats it (OpenID Connect Core 1.0, section 3.1.2.1).
    pub(super) nonce: String,
    /// Only the token endpoint sees it; the authorization endpoint sees [`LoginState::code_challenge`].
    pub(super) code_verifier: String,
    /// When the login expires: Unix time in seconds.
    pub(super) exp: i64,
}

impl LoginState {
    pub(super) fn random() -> Self {
        let exp = unix_seconds() + LOGIN_TTL_SECONDS;
        Self { state: random(), nonce: random(), code_verifier: random(), exp }
    }

    /// The SHA-256 of the code verifier (RFC 7636, section 4.2: S256).
    pub(super) fn code_challenge(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, self.code_verifier.as_bytes()))
    }
}

/// 256 random bits, base64url: as many as RFC 7636, section 4.1, recommends for a code verifier.
fn random() -> String {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).expect("the operating system has random bytes");
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// Signs login states.
pub(super) struct LoginStateKey {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl LoginStateKey {
    /// The key that belongs to a secret. The secret may be that of the client, with which providers sign tokens of their own
    /// (HS256): so it is no key itself.
    pub(super) fn derive(secret: &[u8]) -> Self {
        let key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), b"bulkhead login cookie");
        Self { encoding: EncodingKey::from_secret(key.as_ref()), decoding: DecodingKey::from_secret(key.as_ref()) }
    }

    pub(super) fn random() -> Self {
        Self::derive(random().as_bytes())
    }

    pub(super) fn sign(&self, state: &LoginState) -> String {
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), state, &self.encoding);
        token.expect("three texts and a number are JSON, and HMAC takes any key")
    }

    /// Returns the state, or says what is wrong.
    pub(super) fn verify(&self, token: &str) -> Result<LoginState, &'static str> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        let decoded = jsonwebtoken::decode::<LoginState>(token, &self.decoding, &validation);
        decoded.map(|decoded| decoded.claims).map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => "the login took too long",
            _ => "there is no valid login cookie",
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn code_challenge_is_that_of_the_rfc() {
        // RFC 7636, appendix B.
        let code_verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned();
        let state = LoginState { code_verifier, ..LoginState::random() };
        assert_eq!(state.code_challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn expired_and_forged_states_are_refused() {
        let key = LoginStateKey::derive(b"a secret");
        let mut state = LoginState::random();
        assert_eq!(key.verify(&key.sign(&state)).unwrap().nonce, state.nonce);
        let by_the_secret_itself = EncodingKey::from_secret(b"a secret");
        let by_the_secret_itself = jsonwebtoken::encode(&Header::default(), &state, &by_the_secret_itself).unwrap();
        for token in ["", "a.b.c", &by_the_secret_itself, &LoginStateKey::random().sign(&state)] {
            assert_eq!(key.verify(token).err(), Some("there is no valid login cookie"), "{token}");
        }
        state.exp = unix_seconds() - 1;
        assert_eq!(key.verify(&key.sign(&state)).err(), Some("the login took too long"));
    }
}
