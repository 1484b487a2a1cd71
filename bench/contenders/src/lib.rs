//! What the contenders share: settings, the check of a token, the JSON of a document, what an audit entry says of a list.

use anyhow::Context;
use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, USER_AGENT};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use axum::{Json, Router};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Validation};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, RwLock};
use time::OffsetDateTime;
use uuid::Uuid;

/// The `iss` and the `aud` of the tokens that `bulkhead dev-token` makes.
pub const ISSUER: &str = "bulkhead-development";

/// Connections to the database, as many as Bulkhead has for requests.
pub const CONNECTIONS: u32 = 10;

/// An environment variable that must be there.
pub fn setting(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set"))
}

/// Serves on PORT of the loopback address until the process is told to stop.
pub async fn serve(router: Router) -> anyhow::Result<()> {
    let port: u16 = setting("PORT")?.parse()?;
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).await?;
    Ok(())
}

/// Answers 500, or 401 where there is no good token; says why on standard error.
#[derive(Debug)]
pub struct Fail(StatusCode, String);

impl Fail {
    /// Of the caller's making.
    #[must_use]
    pub fn caller(status: StatusCode) -> Self {
        Self(status, String::new())
    }
}

impl<E: std::fmt::Display> From<E> for Fail {
    fn from(error: E) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl IntoResponse for Fail {
    fn into_response(self) -> Response {
        if !self.1.is_empty() {
            eprintln!("{}", self.1);
        }
        self.0.into_response()
    }
}

/// What a token says.
#[derive(Debug, Clone, Deserialize)]
pub struct Claims {
    /// The user, as the provider names it.
    pub sub: String,
    /// The tenant's external id.
    pub tenant_id: String,
    /// What the user may do.
    pub role: Option<String>,
    /// When the token expires: Unix time in seconds.
    pub exp: i64,
}

/// Checks each token once, and remembers what it says until it expires.
pub struct Verifier {
    key: DecodingKey,
    rules: Validation,
    known: RwLock<HashMap<String, Arc<Claims>>>,
}

impl Verifier {
    /// With the key of DEVELOPMENT_KEY_FILE.
    pub fn new() -> anyhow::Result<Self> {
        let mut rules = Validation::new(Algorithm::EdDSA);
        rules.set_issuer(&[ISSUER]);
        rules.set_audience(&[ISSUER]);
        Ok(Self { key: DecodingKey::from_jwk(&development_key()?.1)?, rules, known: RwLock::default() })
    }

    /// The claims of a request's bearer token.
    pub fn check(&self, headers: &HeaderMap) -> Result<Arc<Claims>, Fail> {
        let refused = || Fail::caller(StatusCode::UNAUTHORIZED);
        let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.strip_prefix("Bearer ")).ok_or_else(refused)?;
        let known = self.known.read()?.get(token).cloned();
        let claims = if let Some(known) = known {
            known
        } else {
            let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &self.rules).map_err(|_| refused())?;
            let claims = Arc::new(claims.claims);
            self.known.write()?.insert(token.to_owned(), Arc::clone(&claims));
            claims
        };
        if OffsetDateTime::now_utc().unix_timestamp() > claims.exp { Err(refused()) } else { Ok(claims) }
    }
}

/// The key that signs tokens, and its public part with its id.
pub fn development_key() -> anyhow::Result<(EncodingKey, Jwk)> {
    let file = setting("DEVELOPMENT_KEY_FILE")?;
    let key = EncodingKey::from_ed_der(&std::fs::read(&file).context(file)?);
    let mut public = Jwk::from_encoding_key(&key, Algorithm::EdDSA)?;
    public.common.key_id = Some(public.thumbprint(ThumbprintHash::SHA256)?);
    Ok((key, public))
}

/// A caller whom the database knows.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// Its tenant.
    pub tenant: Uuid,
    /// Its row.
    pub user: Option<Uuid>,
}

/// A row of `find_caller`.
#[derive(Debug, sqlx::FromRow)]
#[expect(missing_docs, reason = "named as the columns are")]
pub struct CallerRow {
    pub tenant_id: Uuid,
    pub status: String,
    pub tenant_deleted: bool,
    pub user_id: Option<Uuid>,
    pub role: Option<String>,
    pub user_deleted: bool,
}

impl CallerRow {
    /// The caller, if it may read, or write where it wants to.
    pub fn authorize(self, claims: &Claims, writes: bool) -> Result<Caller, Fail> {
        let role = claims.role.as_ref().or(self.role.as_ref()).map(String::as_str);
        let able = matches!(role, Some("admin" | "member")) || !writes && role == Some("viewer");
        if self.status == "suspended" || self.tenant_deleted || self.user_deleted || !able {
            return Err(Fail::caller(StatusCode::FORBIDDEN));
        }
        Ok(Caller { tenant: self.tenant_id, user: self.user_id })
    }
}

/// From where a request comes, for its audit entry.
pub struct Client {
    /// Its address.
    pub ip: IpAddr,
    /// Its program.
    pub agent: Option<String>,
}

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = Fail;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fail> {
        let peer = parts.extensions.get::<axum::extract::ConnectInfo<SocketAddr>>();
        let ip = peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.0.ip());
        let agent = parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
        Ok(Self { ip, agent: agent.map(str::to_owned) })
    }
}

/// A document.
#[derive(Debug, Serialize, sqlx::FromRow)]
#[expect(missing_docs, reason = "named as the columns are")]
pub struct Document {
    pub id: Uuid,
    pub user_id: Uuid,
    pub storage_key: String,
    pub bucket: String,
    pub filename: String,
    pub content_type: String,
    pub size_bytes: i64,
    pub status: String,
    #[sqlx(json)]
    pub metadata: Box<RawValue>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// The columns of [`Document`], in its order.
pub const COLUMNS: &str = "id, user_id, storage_key, bucket, filename, content_type, size_bytes, status, metadata, \
                           created_at, updated_at";

/// A document that a client sends.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "named as the columns are")]
pub struct NewDocument {
    pub bucket: String,
    pub filename: String,
    pub content_type: String,
    pub size_bytes: i64,
    pub metadata: Option<Box<RawValue>>,
}

impl NewDocument {
    /// The row that it becomes; the database sets its times.
    pub fn row(self, caller: Caller) -> Result<Document, Fail> {
        let id = Uuid::now_v7();
        let now = OffsetDateTime::UNIX_EPOCH;
        Ok(Document {
            id,
            user_id: caller.user.ok_or_else(|| Fail::caller(StatusCode::BAD_REQUEST))?,
            storage_key: format!("{}/{id}", caller.tenant),
            bucket: self.bucket,
            filename: self.filename,
            content_type: self.content_type,
            size_bytes: self.size_bytes,
            status: "processing".to_owned(),
            metadata: self.metadata.map_or_else(|| RawValue::from_string("{}".to_owned()), Ok)?,
            created_at: now,
            updated_at: now,
        })
    }
}

/// How many rows of a list are asked for: one more than a page has, which tells whether there are more.
pub const PAGE: usize = 50;

/// A page of a list.
#[derive(Debug, Serialize)]
pub struct Page {
    items: Vec<Document>,
    next_cursor: Option<String>,
}

impl Page {
    /// Of at most one row more than a page has.
    #[must_use]
    pub fn new(mut items: Vec<Document>) -> Self {
        let more = items.len() > PAGE;
        items.truncate(PAGE);
        let place = |last: &Document| format!("{}/{}", last.created_at.unix_timestamp_nanos() / 1000, last.id);
        let next_cursor = items.last().filter(|_| more).map(|last| BASE64_URL_SAFE_NO_PAD.encode(place(last)));
        Self { items, next_cursor }
    }

    /// What the audit entry says of it: which rows were shown, as Bulkhead writes it (src/audit/shown.rs).
    #[must_use]
    pub fn shown(&self) -> String {
        let mut ends = String::with_capacity(7 * self.items.len());
        for item in &self.items {
            let end = BASE64_URL_SAFE_NO_PAD.encode(&item.id.as_bytes()[10..]);
            ends.push_str(&end[..7]);
        }
        let ms = |item: &Document| item.created_at.unix_timestamp() * 1000 + i64::from(item.created_at.millisecond());
        let (oldest, newest) = (self.items.iter().map(ms).min(), self.items.iter().map(ms).max());
        serde_json::json!({"count": self.items.len(), "id_ends": ends, "newest_ms": newest, "oldest_ms": oldest})
            .to_string()
    }
}

/// The answer of a liveness probe.
#[derive(Debug, Serialize)]
pub struct Live {
    status: &'static str,
    timestamp: i64,
}

/// Answers a liveness probe.
#[expect(clippy::unused_async, reason = "axum takes asynchronous handlers alone")]
pub async fn live() -> Json<Live> {
    Json(Live { status: "ok", timestamp: OffsetDateTime::now_utc().unix_timestamp() })
}

/// The answer of a readiness probe.
#[derive(Debug, Serialize)]
pub struct Ready {
    status: &'static str,
    migrations: i64,
}

impl Ready {
    /// Asks how many migrations are applied, of a server that takes changes.
    pub const SQL: &str = "SELECT count(*) FROM seaql_migrations WHERE NOT pg_is_in_recovery()";

    /// With so many migrations.
    #[must_use]
    pub fn new(migrations: i64) -> Self {
        Self { status: if migrations > 0 { "ready" } else { "unavailable" }, migrations }
    }
}
