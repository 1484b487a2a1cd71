//! Verifies tokens: RFC 7519, RFC 8725 and RFC 9068, with limits of this API.

use super::claims::{Claims, RawClaims, RoleClaim, is_valid_tenant_id};
use super::key_cache::{KeyCache, Snapshot};
use crate::clock::unix_seconds;
use crate::config::ApiToken;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use quick_cache::sync::Cache;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// The tolerated difference between clocks, in seconds.
const LEEWAY_SECONDS: i64 = 60;

/// The longest token that is accepted, in bytes.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Without a setting, the first of these claims that a token has names the tenant.
const TENANT_CLAIMS: [&str; 4] = ["tenant_id", "organization_id", "org_id", "custom:tenant_id"];

const NOT_FOR_AN_API: TokenError = TokenError::Invalid("the token is not for calling an API");

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is malformed, or a claim is missing or not acceptable.
    #[error("{0}")]
    Invalid(&'static str),
    /// It has expired.
    #[error("the token has expired")]
    Expired,
    /// Its signature, algorithm or key is not acceptable.
    #[error("{0}")]
    Signature(&'static str),
    /// No claim names a tenant.
    #[error("no claim names a tenant")]
    NoTenant,
    /// The claim that names the tenant has no valid tenant id.
    #[error("the tenant claim is not 3 to 128 letters, digits, '_' or '-', or is reserved")]
    BadTenant,
    /// There are no keys to verify it with.
    #[error("there are no keys of the identity provider")]
    NoKeys,
}

/// The rules for a caller's token.
#[derive(Debug)]
pub(super) struct TokenRules {
    /// The token must name one of these (`aud`).
    pub(super) audiences: Vec<String>,
    /// Which of the provider's tokens callers use.
    pub(super) api_token: ApiToken,
    /// The one claim that names the tenant; if None, one of [`TENANT_CLAIMS`].
    pub(super) tenant_claim: Option<String>,
    /// The claim that names the role.
    pub(super) role_claim: String,
    /// The longest time between `iat` and `exp`.
    pub(super) max_lifetime: Duration,
}

/// Verifies tokens, and caches the claims of those that it has accepted.
#[derive(Debug)]
pub(super) struct Verifier {
    rules: TokenRules,
    keys: Arc<KeyCache>,
    /// By the token's SHA-256, so that no token stays in memory.
    cache: Cache<[u8; 32], CachedClaims>,
}

#[derive(Debug, Clone)]
struct CachedClaims {
    generation: u64,
    claims: Arc<Claims>,
}

/// The fields of a token's header that are read before the signature is verified (RFC 7515, section 4.1).
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<IgnoredAny>,
}

impl Verifier {
    /// Caches the claims of `cache_capacity` tokens; with 0, every token is verified each time.
    pub(super) fn new(rules: TokenRules, keys: Arc<KeyCache>, cache_capacity: usize) -> Self {
        Self { rules, keys, cache: Cache::new(cache_capacity) }
    }

    /// Verifies a caller's token.
    pub(super) async fn verify(&self, token: &str) -> Result<Arc<Claims>, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Invalid("the token is longer than 16 KiB"));
        }
        let mut id = [0; 32];
        id.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        let snapshot = self.keys.wait_for_first_fetch().await.ok_or(TokenError::NoKeys)?;
        if let Some(cached) = self.cache.get(&id).filter(|cached| cached.generation == snapshot.generation) {
            let valid = unix_seconds() <= cached.claims.expires_at + LEEWAY_SECONDS;
            return if valid { Ok(cached.claims) } else { Err(TokenError::Expired) };
        }
        let (claims, generation) = self.signed_claims(snapshot, token, &self.rules.audiences).await?;
        let claims = Arc::new(self.validate_claims(&claims)?);
        self.cache.insert(id, CachedClaims { generation, claims: Arc::clone(&claims) });
        Ok(claims)
    }

    /// Verifies an ID token that the provider has just sent, for `client_id` and with this nonce (OpenID Connect Core 1.0,
    /// section 3.1.3.7).
    pub(super) async fn verify_id_token(&self, token: &str, client_id: &str, nonce: &str) -> Result<(), TokenError> {
        let snapshot = self.keys.wait_for_first_fetch().await.ok_or(TokenError::NoKeys)?;
        let (claims, _) = self.signed_claims(snapshot, token, &[client_id.to_owned()]).await?;
        if claims.text("nonce") != Some(nonce) {
            return Err(TokenError::Invalid("the nonce of the ID token is not that of the login"));
        }
        if claims.get("azp").is_some() && claims.text("azp") != Some(client_id) {
            return Err(TokenError::Invalid("the ID token is for another party (azp)"));
        }
        Ok(())
    }

    /// Checks signature, issuer, audience, times and subject. Returns the claims and the generation of the keys.
    async fn signed_claims(
        &self,
        mut snapshot: Arc<Snapshot>,
        token: &str,
        audiences: &[String],
    ) -> Result<(RawClaims, u64), TokenError> {
        let header = parse_header(token)?;
        let algorithm = match header.alg.as_str() {
            "RS256" => Algorithm::RS256,
            "ES256" => Algorithm::ES256,
            "EdDSA" => Algorithm::EdDSA,
            _ => return Err(TokenError::Signature("the algorithm is not RS256, ES256 or EdDSA")),
        };
        let Some(key_id) = header.kid.filter(|id| !id.is_empty()) else {
            return Err(TokenError::Signature("the header names no key (kid)"));
        };
        if snapshot.find(&key_id).is_none() {
            snapshot = self.keys.refresh_for_unknown_kid().await.ok_or(TokenError::NoKeys)?;
        }
        let key = snapshot.find(&key_id).ok_or(TokenError::Signature("the provider has no such key (kid)"))?;
        if key.algorithm != algorithm {
            return Err(TokenError::Signature("the algorithm is not that of the key"));
        }
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY_SECONDS.unsigned_abs();
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&snapshot.issuer]);
        validation.set_audience(audiences);
        let claims = jsonwebtoken::decode::<RawClaims>(token, &key.decoding, &validation)
            .map_err(|error| token_error(error.kind()))?
            .claims;
        check_registered_claims(&claims, &snapshot.issuer)?;
        Ok((claims, snapshot.generation))
    }

    /// Checks the rules of this API, and reads the claims of the caller.
    fn validate_claims(&self, claims: &RawClaims) -> Result<Claims, TokenError> {
        check_token_type(claims, self.rules.api_token)?;
        let expires_at = claims.date("exp").unwrap_or_default();
        let lifetime = expires_at - claims.date("iat").unwrap_or_default();
        if lifetime.unsigned_abs() > self.rules.max_lifetime.as_secs() {
            return Err(TokenError::Invalid("the token lives longer than JWT_MAX_LIFETIME_MINUTES"));
        }
        let tenant = self.tenant(claims).ok_or(TokenError::NoTenant)?;
        let tenant = tenant.as_str().filter(|id| is_valid_tenant_id(id)).ok_or(TokenError::BadTenant)?;
        Ok(Claims {
            subject: claims.text("sub").unwrap_or_default().to_owned(),
            tenant: tenant.to_owned(),
            role: RoleClaim::read(claims.get(&self.rules.role_claim)),
            expires_at,
        })
    }

    /// The claim that names the tenant. If one is configured, only that one counts: otherwise a user whose token lacks it
    /// could choose a tenant with another claim that users may edit.
    fn tenant<'c>(&self, claims: &'c RawClaims) -> Option<&'c Value> {
        let claim = |name: &str| claims.get(name).filter(|value| !value.is_null());
        match &self.rules.tenant_claim {
            Some(name) => claim(name),
            None => TENANT_CLAIMS.into_iter().find_map(claim),
        }
    }
}

/// Reads the header; the signature is not verified yet.
fn parse_header(token: &str) -> Result<Header, TokenError> {
    const MALFORMED: TokenError = TokenError::Invalid("the token is not a signed JWT");
    let mut parts = token.split('.');
    let (Some(header), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(MALFORMED);
    };
    let json = BASE64_URL_SAFE_NO_PAD.decode(header).map_err(|_| MALFORMED)?;
    let header: Header = serde_json::from_slice(&json).map_err(|_| MALFORMED)?;
    if header.crit.is_some() {
        return Err(TokenError::Invalid("the header requires an unknown extension (crit)"));
    }
    // RFC 8725, section 3.11: a token of another type is not accepted, even with a valid signature.
    let typ = header.typ.as_deref().unwrap_or("JWT").to_ascii_lowercase();
    if !matches!(typ.trim_start_matches("application/"), "jwt" | "at+jwt") {
        return Err(TokenError::Invalid("the token has another type (typ)"));
    }
    Ok(header)
}

/// Checks the registered claims as far as the JWT library does not.
fn check_registered_claims(claims: &RawClaims, issuer: &str) -> Result<(), TokenError> {
    // The library accepts a list of issuers that contains the right one; a token has one issuer (RFC 7519, section 4.1.1).
    if claims.text("iss") != Some(issuer) {
        return Err(TokenError::Invalid("the token is from another issuer (iss)"));
    }
    // OpenID Connect Core 1.0, section 2: at most 255 characters. A name contains no control characters.
    if claims.text("sub").is_none_or(|sub| sub.is_empty() || sub.len() > 255 || sub.chars().any(char::is_control)) {
        return Err(TokenError::Invalid("the subject is missing or malformed (sub)"));
    }
    let (Some(issued_at), Some(expires_at)) = (claims.date("iat"), claims.date("exp")) else {
        return Err(TokenError::Invalid("iat or exp is missing or not a date"));
    };
    if issued_at > unix_seconds() + LEEWAY_SECONDS {
        return Err(TokenError::Invalid("the token was issued in the future (iat)"));
    }
    if issued_at >= expires_at {
        return Err(TokenError::Invalid("the token expires before it was issued"));
    }
    // Cognito states the use of a token in token_use, Keycloak in typ.
    let has_other_use = |name: &str| {
        claims
            .text(name)
            .is_some_and(|usage| ["refresh", "offline", "logout"].iter().any(|other| usage.eq_ignore_ascii_case(other)))
    };
    if has_other_use("token_use") || has_other_use("typ") {
        return Err(NOT_FOR_AN_API);
    }
    Ok(())
}

/// Checks that the token is of the type that callers use. The audience does not tell: without `OIDC_AUDIENCE`, an ID token
/// and an access token have the same.
fn check_token_type(claims: &RawClaims, api_token: ApiToken) -> Result<(), TokenError> {
    let claim = |name: &str| claims.get(name).filter(|value| !value.is_null());
    let lowercase = |name| claim(name).map(|value| value.as_str().unwrap_or_default().to_ascii_lowercase());
    let (token_use, typ) = (lowercase("token_use"), lowercase("typ"));
    let is_id_token = match (token_use.as_deref(), typ.as_deref()) {
        // Keycloak has a dozen others, such as those for registering clients and for links in mails.
        (_, Some(typ)) if !matches!(typ, "bearer" | "jwt" | "at+jwt" | "id") => return Err(NOT_FOR_AN_API),
        (Some("id"), _) | (_, Some("id")) => true,
        (Some("access"), _) | (_, Some("bearer" | "at+jwt")) => false,
        // Other providers do not state it. Only ID tokens have these claims (OpenID Connect Core 1.0, sections 2 and
        // 3.3.2.11), and a login here always asks for a nonce.
        _ => ["nonce", "at_hash", "c_hash"].iter().any(|name| claim(name).is_some()),
    };
    if is_id_token && api_token == ApiToken::Access {
        return Err(TokenError::Invalid("it is an ID token, but OIDC_API_TOKEN is access_token"));
    }
    Ok(())
}

/// Maps the errors of the JWT library.
fn token_error(error: &ErrorKind) -> TokenError {
    match error {
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::ImmatureSignature => TokenError::Invalid("the token is not valid yet (nbf)"),
        ErrorKind::InvalidAudience => TokenError::Invalid("the token is for another audience (aud)"),
        ErrorKind::InvalidIssuer => TokenError::Invalid("the token is from another issuer (iss)"),
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => {
            TokenError::Invalid("a claim is missing or malformed: exp, iss, aud, sub or nbf")
        }
        ErrorKind::Json(_) | ErrorKind::Base64(_) | ErrorKind::Utf8(_) | ErrorKind::InvalidToken => {
            TokenError::Invalid("the token is not a signed JWT")
        }
        _ => TokenError::Signature("the signature does not match the key"),
    }
}
