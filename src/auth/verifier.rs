//! Verifies tokens: RFC 7519, RFC 8725 and RFC 9068, with limits of this API.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

use super::claims::{Claims, RawClaims, RoleClaim, is_valid_tenant_id};
use super::id_token::{Expected, check_id_token};
use super::key_cache::{Asker, KeyCache, Snapshot};
use super::key_set::{KeySet, algorithm_named};
use crate::clock::unix_seconds;
use crate::config::{ApiToken, TokenType};
use crate::json::{self, Bounds};
use crate::text::is_invisible;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, crypto};
use quick_cache::sync::Cache;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The tolerated difference between clocks, in seconds.
const LEEWAY_SECONDS: i64 = 60;

/// The longest token that is accepted, in bytes.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Without a setting, the first of these claims that a token has names the tenant.
const TENANT_CLAIMS: [&str; 4] = ["tenant_id", "organization_id", "org_id", "custom:tenant_id"];

/// Claims that ID tokens alone have: OpenID Connect Core 1.0, sections 2 and 3.3.2.11; FAPI 1.0 Advanced, section 5.1. A login
/// here always asks for a nonce.
const ID_TOKEN_CLAIMS: [&str; 4] = ["nonce", "at_hash", "c_hash", "s_hash"];

/// Claims about how and when a person logged in. ID tokens have them, and so have access tokens of some providers (RFC 9068,
/// section 2.2.1), but those also have one of [`ACCESS_CLAIMS`].
const LOGIN_CLAIMS: [&str; 4] = ["auth_time", "acr", "amr", "sid"];

/// Claims that name a client or what it may do: RFC 9068, sections 2.2 and 2.2.3. Okta calls them `cid` and `scp`, Entra `scp`.
const ACCESS_CLAIMS: [&str; 4] = ["client_id", "cid", "scope", "scp"];

const NOT_FOR_AN_API: TokenError = TokenError::Invalid("the token is not for calling an API");
const MALFORMED: TokenError = TokenError::Invalid("the token is not a signed JWT");

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
    /// Which type a token's header must name.
    pub(super) token_type: TokenType,
    /// The claim that names the role.
    pub(super) role_claim: String,
    /// The longest time between `iat` and `exp`.
    pub(super) max_lifetime: Duration,
}

/// How the cache of verified tokens is used.
#[derive(Debug, Clone, Copy)]
pub struct CacheCounts {
    /// Tokens that were found in it.
    pub hits: u64,
    /// Tokens that were verified anew.
    pub misses: u64,
    /// Tokens that it holds.
    pub entries: usize,
}

/// Verifies tokens, and caches the claims of those that it has accepted.
#[derive(Debug)]
pub(super) struct Verifier {
    rules: TokenRules,
    keys: Arc<KeyCache>,
    /// By the token's SHA-256, so that no token stays in memory.
    cache: Cache<[u8; 32], CachedClaims>,
    lookups: Lookups,
}

/// How many callers' tokens were found in the cache, and how many were not.
#[derive(Debug, Default)]
struct Lookups {
    hits: AtomicU64,
    misses: AtomicU64,
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

/// What a token's header says of it.
struct Heading {
    algorithm: Algorithm,
    key_id: String,
    /// Whether it says that this is an access token: `at+jwt` (RFC 9068, section 2.1).
    is_access_token: bool,
}

/// A token whose signature and registered claims are good.
struct Signed {
    heading: Heading,
    claims: RawClaims,
    /// Of the keys that it was verified with.
    generation: u64,
}

impl Verifier {
    /// Caches the claims of `cache_capacity` tokens; with 0, every token is verified each time.
    pub(super) fn new(rules: TokenRules, keys: Arc<KeyCache>, cache_capacity: usize) -> Self {
        Self { rules, keys, cache: Cache::new(cache_capacity), lookups: Lookups::default() }
    }

    /// Verifies a caller's token.
    pub(super) async fn verify(&self, token: &str) -> Result<Arc<Claims>, TokenError> {
        check_length(token)?;
        let id = cache_id(token);
        let snapshot = self.keys.wait_for_first_fetch().await.ok_or(TokenError::NoKeys)?;
        if let Some(cached) = self.cache.get(&id).filter(|cached| cached.generation == snapshot.generation) {
            self.lookups.hits.fetch_add(1, Ordering::Relaxed);
            let valid = unix_seconds() <= cached.claims.expires_at + LEEWAY_SECONDS;
            return if valid { Ok(cached.claims) } else { Err(TokenError::Expired) };
        }
        self.lookups.misses.fetch_add(1, Ordering::Relaxed);
        let signed = self.signed(snapshot, token, &self.rules.audiences, Asker::Request).await?;
        self.accept(id, &signed)
    }

    /// How many callers' tokens were found in the cache, how many were not, and how many are there.
    pub(super) fn cache_counts(&self) -> CacheCounts {
        let Lookups { hits, misses } = &self.lookups;
        CacheCounts {
            hits: hits.load(Ordering::Relaxed),
            misses: misses.load(Ordering::Relaxed),
            entries: self.cache.len(),
        }
    }

    /// The claims of a token that was verified before and is still valid. Asks nobody.
    pub(super) fn known(&self, token: &str) -> Option<Arc<Claims>> {
        check_length(token).ok()?;
        let generation = self.keys.current()?.generation;
        let cached = self.cache.get(&cache_id(token)).filter(|cached| cached.generation == generation)?;
        let valid = unix_seconds() <= cached.claims.expires_at + LEEWAY_SECONDS;
        valid.then(|| {
            self.lookups.hits.fetch_add(1, Ordering::Relaxed);
            cached.claims
        })
    }

    /// Verifies the token of a login that callers use, as [`Verifier::verify`] does. Returns all its claims, too.
    pub(super) async fn verify_at_login(&self, token: &str) -> Result<(Arc<Claims>, RawClaims), TokenError> {
        check_length(token)?;
        let snapshot = self.keys.wait_for_first_fetch().await.ok_or(TokenError::NoKeys)?;
        let signed = self.signed(snapshot, token, &self.rules.audiences, Asker::Login).await?;
        let claims = self.accept(cache_id(token), &signed)?;
        Ok((claims, signed.claims))
    }

    /// Verifies an ID token that the provider has just sent. Returns its claims.
    pub(super) async fn verify_id_token(&self, token: &str, expected: Expected<'_>) -> Result<RawClaims, TokenError> {
        check_length(token)?;
        let snapshot = self.keys.wait_for_first_fetch().await.ok_or(TokenError::NoKeys)?;
        let signed = self.signed(snapshot, token, &[expected.client_id.to_owned()], Asker::Login).await?;
        if signed.heading.is_access_token {
            return Err(TokenError::Invalid("it is an access token (at+jwt)"));
        }
        check_id_token(&signed.claims, signed.heading.algorithm, expected).map_err(TokenError::Invalid)?;
        Ok(signed.claims)
    }

    /// Checks signature, issuer, audience, times and subject. If no key fits, the provider may have new ones: they are
    /// fetched, within the limits of [`KeyCache::look`].
    async fn signed(
        &self,
        mut snapshot: Arc<Snapshot>,
        token: &str,
        audiences: &[String],
        asker: Asker,
    ) -> Result<Signed, TokenError> {
        let heading = parse_header(token)?;
        let mut claims = read_signed(&snapshot.keys, token, &heading);
        for _ in 0..asker.looks() {
            if !matches!(claims, Err(TokenError::Signature(_))) {
                break;
            }
            let newer = self.keys.look(asker).await.ok_or(TokenError::NoKeys)?;
            if newer.generation != snapshot.generation {
                snapshot = newer;
                claims = read_signed(&snapshot.keys, token, &heading);
            }
        }
        let claims = claims?;
        check_registered_claims(&claims, &snapshot.issuer, audiences)?;
        Ok(Signed { heading, claims, generation: snapshot.generation })
    }

    /// Accepts a caller's token, if the rules of this API allow it, and caches its claims.
    fn accept(&self, id: [u8; 32], signed: &Signed) -> Result<Arc<Claims>, TokenError> {
        check_token_type(&self.rules, signed)?;
        let claims = Arc::new(self.validate_claims(&signed.claims)?);
        self.cache.insert(id, CachedClaims { generation: signed.generation, claims: Arc::clone(&claims) });
        Ok(claims)
    }

    /// Checks the rules of this API, and reads the claims of the caller.
    fn validate_claims(&self, claims: &RawClaims) -> Result<Claims, TokenError> {
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

fn check_length(token: &str) -> Result<(), TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::Invalid("the token is longer than 16 KiB"));
    }
    Ok(())
}

fn cache_id(token: &str) -> [u8; 32] {
    let mut id = [0; 32];
    id.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    id
}

/// Reads the header; the signature is not verified yet.
fn parse_header(token: &str) -> Result<Heading, TokenError> {
    let mut parts = token.split('.');
    let (Some(header), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(MALFORMED);
    };
    let header: Header = serde_json::from_value(parse_part(header)?).map_err(|_| MALFORMED)?;
    if header.crit.is_some() {
        return Err(TokenError::Invalid("the header requires an unknown extension (crit)"));
    }
    // RFC 8725, section 3.11: a token of another type is not accepted, even with a valid signature.
    let typ = header.typ.as_deref().unwrap_or("JWT").to_ascii_lowercase();
    // RFC 7515, section 4.1.9: `application/` may be left out.
    let is_access_token = match typ.strip_prefix("application/").unwrap_or(&typ) {
        "jwt" => false,
        "at+jwt" => true,
        _ => return Err(TokenError::Invalid("the token has another type (typ)")),
    };
    let algorithm = algorithm_named(&header.alg)
        .ok_or(TokenError::Signature("the algorithm is not RS256, ES256, EdDSA or Ed25519"))?;
    let key_id = header.kid.filter(|id| !id.is_empty());
    let key_id = key_id.ok_or(TokenError::Signature("the header names no key (kid)"))?;
    Ok(Heading { algorithm, key_id, is_access_token })
}

/// The JSON of a header or a payload, in which no name occurs twice.
fn parse_part(part: &str) -> Result<Value, TokenError> {
    let text = BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| MALFORMED)?;
    let text: &RawValue = serde_json::from_slice(&text).map_err(|_| MALFORMED)?;
    // The length of a token limits the number of values.
    json::parse(text, Bounds { values: usize::MAX, exact_numbers: false }).map_err(|_| MALFORMED)
}

/// Verifies the signature, and reads the claims. `jsonwebtoken::decode` would do both, but knows no `Ed25519` (RFC 9864).
fn read_signed(keys: &KeySet, token: &str, heading: &Heading) -> Result<RawClaims, TokenError> {
    let Heading { algorithm, key_id, .. } = heading;
    let key = keys.find(key_id, *algorithm).ok_or_else(|| {
        let known = keys.has_id(key_id);
        TokenError::Signature(if known {
            "the algorithm is not that of the key"
        } else {
            "the provider has no such key (kid)"
        })
    })?;
    let (message, signature) = token.rsplit_once('.').ok_or(MALFORMED)?;
    match crypto::verify(signature, message.as_bytes(), &key.decoding, *algorithm) {
        Ok(true) => {}
        Err(error) if matches!(error.kind(), ErrorKind::Base64(_)) => return Err(MALFORMED),
        _ => return Err(TokenError::Signature("the signature does not match the key")),
    }
    let (_, payload) = message.split_once('.').ok_or(MALFORMED)?;
    RawClaims::new(parse_part(payload)?).ok_or(MALFORMED)
}

/// Checks the registered claims (RFC 7519, section 4.1).
fn check_registered_claims(claims: &RawClaims, issuer: &str, audiences: &[String]) -> Result<(), TokenError> {
    let (Some(issued_at), Some(expires_at)) = (claims.date("iat"), claims.date("exp")) else {
        return Err(TokenError::Invalid("iat or exp is missing or not a date"));
    };
    let now = unix_seconds();
    if now > expires_at + LEEWAY_SECONDS {
        return Err(TokenError::Expired);
    }
    if claims.own("nbf").is_some() {
        let not_before = claims.date("nbf").ok_or(TokenError::Invalid("nbf is not a date"))?;
        if not_before > now + LEEWAY_SECONDS {
            return Err(TokenError::Invalid("the token is not valid yet (nbf)"));
        }
    }
    if claims.text("iss") != Some(issuer) {
        return Err(TokenError::Invalid("the token is from another issuer (iss)"));
    }
    let named = claims.texts("aud").unwrap_or_default();
    if !named.iter().any(|name| audiences.iter().any(|audience| audience == name)) {
        return Err(TokenError::Invalid("the token is for another audience (aud)"));
    }
    // OpenID Connect Core 1.0, section 2: at most 255 characters.
    if claims.text("sub").is_none_or(|sub| sub.is_empty() || sub.len() > 255 || sub.chars().any(is_invisible)) {
        return Err(TokenError::Invalid("the subject is missing or malformed (sub)"));
    }
    if issued_at > now + LEEWAY_SECONDS {
        return Err(TokenError::Invalid("the token was issued in the future (iat)"));
    }
    if issued_at >= expires_at {
        return Err(TokenError::Invalid("the token expires before it was issued"));
    }
    // A logout token (OpenID Connect Back-Channel Logout 1.0, section 2.4), or another security event (RFC 8417, section 2.2).
    if claims.own("events").is_some() {
        return Err(TokenError::Invalid("the token tells of events, such as a logout"));
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
fn check_token_type(rules: &TokenRules, signed: &Signed) -> Result<(), TokenError> {
    let Signed { heading: Heading { is_access_token, .. }, claims, .. } = signed;
    // RFC 7800, section 3.1; RFC 9449, section 6 (DPoP); RFC 8705, section 3.1 (mutual TLS). Whoever stole such a token could use
    // it here, since nothing here asks for the key.
    if claims.own("cnf").is_some() {
        return Err(TokenError::Invalid("the token is bound to a key (cnf), and this API takes bearer tokens only"));
    }
    if rules.token_type == TokenType::AccessToken && !is_access_token {
        return Err(TokenError::Invalid("the header has not the type that JWT_TYPE demands (typ)"));
    }
    let lowercase = |name| claims.own(name).map(|value| value.as_str().unwrap_or_default().to_ascii_lowercase());
    let (token_use, typ) = (lowercase("token_use"), lowercase("typ"));
    let has_one_of = |names: &[&str]| names.iter().any(|name| claims.own(name).is_some());
    let is_id_token = match (token_use.as_deref(), typ.as_deref()) {
        // Keycloak has a dozen others, such as those for registering clients and for links in mails.
        (_, Some(typ)) if !matches!(typ, "bearer" | "jwt" | "at+jwt" | "id") => return Err(NOT_FOR_AN_API),
        (Some("id"), _) | (_, Some("id")) => true,
        _ if *is_access_token => false,
        (Some("access"), _) | (_, Some("bearer" | "at+jwt")) => false,
        // Other providers do not state it.
        _ => has_one_of(&ID_TOKEN_CLAIMS) || (has_one_of(&LOGIN_CLAIMS) && !has_one_of(&ACCESS_CLAIMS)),
    };
    if is_id_token && rules.api_token == ApiToken::Access {
        return Err(TokenError::Invalid("it is an ID token, but OIDC_API_TOKEN is access_token"));
    }
    Ok(())
}
