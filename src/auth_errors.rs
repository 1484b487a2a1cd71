//! Maps errors of authentication to errors of the API, so that `auth` knows no status codes.

use crate::auth::{LoginError, TokenError};
use crate::error::{ApiError, ErrorCode};

impl From<TokenError> for ErrorCode {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Invalid(_) => Self::InvalidToken,
            TokenError::Expired => Self::TokenExpired,
            TokenError::Signature(_) => Self::BadSignature,
            TokenError::NoTenant => Self::NoTenant,
            TokenError::BadTenant => Self::BadTenant,
            TokenError::NoKeys => Self::ProviderUnreachable,
        }
    }
}

impl From<LoginError> for ApiError {
    fn from(error: LoginError) -> Self {
        let text = error.to_string();
        let code = match error {
            // Not logged: anyone could fill the log with these.
            LoginError::Full => return Self::detailed(ErrorCode::Overloaded, text),
            LoginError::Failing => return Self::detailed(ErrorCode::ProviderUnreachable, text),
            LoginError::Cookie(_) | LoginError::State => ErrorCode::StateMismatch,
            // 400 instead of 401, which would ask for a token (RFC 9110, section 15.5.2): a login has none yet.
            LoginError::Code(_) | LoginError::IdToken(TokenError::Invalid(_) | TokenError::Expired) => {
                return Self::detailed(ErrorCode::InvalidToken, text).with_status(400);
            }
            LoginError::ApiToken { error: TokenError::NoTenant, .. } => ErrorCode::NoTenant,
            LoginError::ApiToken { error: TokenError::BadTenant, .. } => ErrorCode::BadTenant,
            LoginError::NotConfigured
            | LoginError::Provider(_)
            | LoginError::IdToken(TokenError::NoKeys)
            | LoginError::ApiToken { error: TokenError::NoKeys, .. } => ErrorCode::ProviderUnreachable,
            LoginError::IdToken(_) => {
                return Self::detailed(ErrorCode::BadSignature, text).with_status(400);
            }
            LoginError::Setting(_) | LoginError::Client(_) | LoginError::ApiToken { .. } => ErrorCode::Internal,
        };
        if !code.is_client_error() {
            tracing::error!("login: {text}");
        }
        Self::detailed(code, text)
    }
}
