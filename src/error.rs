//! The error registry: every code with its status, message and meaning; and the error that carries one.
//!
//! Which to use: a database function returns `DbErr`; everything that a handler calls returns [`ApiError`]. What a client may
//! not see (a driver's message) goes to the log by [`ApiError::internal`]. `error_response` turns the error into HTTP.

use crate::database::{self, Trouble};
use sea_orm::DbErr;

/// Defines [`ErrorCode`] from one table, so that a code cannot lack its status, message or meaning.
macro_rules! registry {
    ($($name:ident $code:literal $status:literal $message:literal $meaning:literal;)+) => {
        /// An error as clients know it: stable code, HTTP status, message.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ErrorCode {
            $(#[doc = concat!($code, ": ", $message)] $name,)+
        }

        impl ErrorCode {
            /// Every code of the registry.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The stable code, such as `RES_001`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// The HTTP status that goes with the code: 400 to 599.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)+ }
            }

            /// The message for clients; the same for every occurrence.
            #[must_use]
            pub const fn message(self) -> &'static str {
                match self { $(Self::$name => $message,)+ }
            }

            /// When it happens and what to change, for whoever reads the documentation.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)+ }
            }
        }
    };
}

// One code a line: a table reads best unwrapped.
#[rustfmt::skip]
registry! {
    InvalidToken        "AUTH_001" 401 "The token is not valid."                    "The token is malformed, or a claim is missing or not acceptable: issuer, audience, times, lifetime, use, or it is bound to a key. 400 where a login code or the answer to it is refused.";
    StateMismatch       "AUTH_002" 403 "The login was not begun in this browser."   "The state belongs to no login cookie of this browser, or its cookie is missing or older than ten minutes: begin the login again.";
    TokenExpired        "AUTH_003" 401 "The token has expired."                     "Log in again.";
    BadSignature        "AUTH_004" 401 "The token's signature is not valid."        "The signature does not fit, the algorithm is not RS256, ES256, EdDSA or Ed25519, or the key is missing, unknown or not for signatures.";
    NoTenant            "AUTH_005" 403 "The token names no tenant."                 "Have the provider put the tenant into the token, or name the claim that holds it in JWT_TENANT_CLAIM_NAME.";
    RedirectNotAllowed  "AUTH_006" 400 "The redirect address is not allowed."       "Its origin must be one of ALLOWED_ORIGINS.";
    BadTenant           "AUTH_007" 403 "The token's tenant is not valid."           "A tenant is 3 to 128 letters, digits, `_` or `-`.";
    RoleNotSufficient   "AUTH_008" 403 "Your role does not allow this."             "The operation needs another role, or neither the token nor a user row gives the caller one.";
    TenantRefused       "AUTH_009" 403 "The tenant is not served."                  "The tenant is unknown, suspended or deleted.";
    NoToken             "AUTH_010" 401 "A token is required."                       "Send `Authorization: Bearer TOKEN`, once.";
    InvalidInput        "VAL_001"  400 "The input is not valid."                    "A value is out of range, a field is unknown or null where it may not be, a precondition is not for this operation, or the request breaks HTTP's rules, as without a Host header.";
    MissingField        "VAL_002"  400 "A field is missing."                        "Send every field that the documentation marks as required.";
    BadFormat           "VAL_003"  400 "The input is not in the expected format."   "The body is not JSON, or a parameter is not of its type.";
    TooLarge            "VAL_004"  413 "The request is too large."                  "The body is longer than MAX_BODY_BYTES. 431 and 414 where it is the headers or the address.";
    UnsupportedMedia    "VAL_005"  415 "The request body must be application/json." "Send `Content-Type: application/json`, in UTF-8 and uncompressed; `field` says which header is wrong. Other types of JSON, `application/merge-patch+json` too, are not taken.";
    BodyTooSlow         "VAL_006"  408 "The request body did not arrive in time."   "Send the whole body within BODY_TIMEOUT_SECONDS.";
    KeyOfAnother        "VAL_007"  422 "This Idempotency-Key belongs to another request." "A request with the same key and another body has succeeded within 24 hours: take a new key for a new request.";
    NotFound            "RES_001"  404 "There is nothing at this address."          "The address is wrong, or what it names is not there for this caller.";
    Conflict            "RES_002"  409 "This is in conflict with what exists."      "Another one has what must be unique; `field` says what that is.";
    Stale               "RES_003"  412 "This has been changed meanwhile."           "Read it again, and send its new ETag in If-Match.";
    MethodNotAllowed    "RES_004"  405 "This address does not take this method."    "The Allow header lists what it takes.";
    LastAdmin           "RES_005"  409 "The tenant would have no admin left."       "This user is the tenant's last admin, or the last one with an `external_idp_id`: make another user an admin first. A role that only a token's claim gives does not count.";
    KeyAtWork           "RES_006"  409 "A request with this Idempotency-Key is at work." "Wait for the seconds of the Retry-After header, and send it again: the answer is then that of the first.";
    RateLimited         "LIM_001"  429 "Too many requests."                         "Wait for the seconds of the Retry-After header. The caller, or the address of who is not known, has used up its share, or has MAX_CONCURRENT_REQUESTS_PER_CLIENT requests at work.";
    DatabaseUnreachable "SYS_001"  503 "The database cannot be reached."            "It does not answer, or the session with it has ended: try again; the log says more.";
    SecretUnavailable   "SYS_002"  503 "A secret is not available."                 "The service lacks a secret that it needs: see the log, and docs/settings.md.";
    Internal            "SYS_003"  500 "Something went wrong on our side."          "The log says more, under the same request id.";
    ProviderUnreachable "SYS_004"  503 "The identity provider cannot be reached."   "The provider does not answer, its keys are too old to trust, or none is set up: see OIDC_ISSUER_URL.";
    SchemaNotReady      "SYS_005"  503 "The database schema is not ready."          "Migrations are running or missing: try again after the seconds of the Retry-After header.";
    Overloaded          "SYS_006"  503 "The service is busy; try again shortly."    "Too many requests at once, or this one took longer than REQUEST_TIMEOUT_SECONDS, or the database held it up: a lock, or DATABASE_STATEMENT_TIMEOUT_SECONDS. Or the instance is stopping.";
    NotIsolated         "SYS_007"  503 "Tenants are not kept apart by the database." "A part of row-level security is missing, which the log names: the instance is not ready. Or its role may not be taken on; then requests are refused. See docs/tenancy.md.";
    DatabaseRefuses     "SYS_008"  503 "The database takes no changes."             "It is there, but read-only, as after a failover, or its disk is full or fails, or it lacks memory: see the log. Nothing of the request is kept, and reads are refused, too, since they cannot be recorded. Works again by itself.";
}

impl ErrorCode {
    /// Whether the client can do something about it (4xx).
    #[must_use]
    pub const fn is_client_error(self) -> bool {
        self.status() < 500
    }
}

/// What a handler fails with.
#[derive(Debug, Clone)]
pub struct ApiError {
    /// What the client is told.
    pub code: ErrorCode,
    /// The status, where it is not the code's usual one.
    pub status: Option<u16>,
    /// Which field or parameter is to be changed.
    pub field: Option<String>,
    /// What the client is told besides, in development only.
    pub detail: Option<String>,
}

impl ApiError {
    /// The same with more of it, which a client sees in development only.
    #[must_use]
    pub fn detailed(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { code, status: None, field: None, detail: Some(detail.into()) }
    }

    /// The same, naming the field or parameter to change. `None` names none.
    #[must_use]
    pub fn of_field(self, field: impl Into<Option<String>>) -> Self {
        Self { field: field.into(), ..self }
    }

    /// The same with another status than the code's usual one.
    #[must_use]
    pub fn with_status(self, status: u16) -> Self {
        Self { status: Some(status), ..self }
    }

    /// Something that is not the client's doing: the cause is logged, the client sees `SYS_003` alone.
    #[must_use]
    pub fn internal(cause: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = cause, "request failed");
        Self::detailed(ErrorCode::Internal, cause.to_string())
    }
}

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> Self {
        Self { code, status: None, field: None, detail: None }
    }
}

impl ApiError {
    /// Why a tenant's transaction could not begin. Where the connection may not take on the role of run time it is SYS_007:
    /// there is no fallback role.
    #[must_use]
    pub fn of_begin(error: DbErr) -> Self {
        if database::may_not_take_role(&error) {
            tracing::error!(%error, "DATABASE_URL: its role may not take on {0}: GRANT {0} TO it", database::APP_ROLE);
            return Self::detailed(ErrorCode::NotIsolated, error.to_string());
        }
        error.into()
    }
}

impl From<DbErr> for ApiError {
    /// What another try may come around is a 503, by what it says of the database; everything else `SYS_003`. The log says
    /// what it was.
    fn from(error: DbErr) -> Self {
        let code = match Trouble::of(&error) {
            Some(Trouble::Unreachable) => ErrorCode::DatabaseUnreachable,
            Some(Trouble::NoWrites) => ErrorCode::DatabaseRefuses,
            Some(Trouble::Busy) => ErrorCode::Overloaded,
            None => return Self::internal(&error),
        };
        let error = database::text(&error);
        tracing::warn!(error, code = code.code(), "the database could not do it");
        Self::detailed(code, error)
    }
}
