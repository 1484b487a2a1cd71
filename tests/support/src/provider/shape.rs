//! What providers in use look like: their addresses, metadata, key sets and claims, after their own documentation.

use super::keys::{Keys, Signer, base64url};
use super::person::Person;
use serde_json::{Value, json};

/// The client id that the provider knows Bulkhead as.
pub const CLIENT_ID: &str = "bulkhead-web";

/// The directory of [`Shape::Entra`], a part of the issuer.
pub(super) const ENTRA_DIRECTORY: &str = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490";

/// Which provider this one looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// No provider in particular: keys of all three algorithms, claims by the names that Bulkhead looks for.
    Plain,
    /// Amazon Cognito: the tenant stands in the ID token alone, the access token has no audience.
    Cognito,
    /// Auth0: the issuer ends in a slash, claims of one's own have URLs for names.
    Auth0,
    /// Microsoft Entra ID (Azure AD), version 2.0: keys without `alg`, tokens for more than an hour.
    Entra,
    /// Okta with a custom authorization server: the access token's audience is the API's.
    Okta,
    /// Okta where the tenant was put into the ID token alone.
    OktaIdToken,
    /// Keycloak: a key for encryption in the key set, roles within an object.
    Keycloak,
}

/// Where things are below the provider's base.
pub(super) struct Paths {
    pub(super) issuer: String,
    pub(super) authorize: String,
    pub(super) token: String,
    pub(super) keys: String,
    pub(super) end_session: String,
}

impl Paths {
    /// Where the metadata is (OpenID Connect Discovery 1.0, section 4).
    pub(super) fn discovery(&self) -> String {
        format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'))
    }
}

/// What the claims of one token are made of.
pub(super) struct Issue<'a> {
    pub(super) issuer: &'a str,
    pub(super) person: &'a Person,
    /// Unix time in seconds.
    pub(super) now: i64,
}

impl Shape {
    pub(super) fn paths(self) -> Paths {
        let paths = |issuer: &str, authorize: &str, token: &str, keys: &str, end_session: &str| Paths {
            issuer: issuer.to_owned(),
            authorize: authorize.to_owned(),
            token: token.to_owned(),
            keys: keys.to_owned(),
            end_session: end_session.to_owned(),
        };
        match self {
            Self::Plain => paths("", "/authorize", "/token", "/keys", "/end-session"),
            // Issuer and login page are on different hosts there.
            Self::Cognito => {
                let pool = "/eu-west-1_Ab1Cd2Ef3";
                let keys = format!("{pool}/.well-known/jwks.json");
                paths(pool, "/oauth2/authorize", "/oauth2/token", &keys, "/logout")
            }
            Self::Auth0 => paths("/", "/authorize", "/oauth/token", "/.well-known/jwks.json", "/oidc/logout"),
            Self::Entra => {
                let at = |rest: &str| format!("/{ENTRA_DIRECTORY}{rest}");
                Paths {
                    issuer: at("/v2.0"),
                    authorize: at("/oauth2/v2.0/authorize"),
                    token: at("/oauth2/v2.0/token"),
                    keys: at("/discovery/v2.0/keys"),
                    end_session: at("/oauth2/v2.0/logout"),
                }
            }
            Self::Okta | Self::OktaIdToken => paths(
                "/oauth2/default",
                "/oauth2/default/v1/authorize",
                "/oauth2/default/v1/token",
                "/oauth2/default/v1/keys",
                "/oauth2/default/v1/logout",
            ),
            Self::Keycloak => {
                let at = |rest: &str| format!("/realms/clinics{rest}");
                let connect = |rest: &str| at(&format!("/protocol/openid-connect/{rest}"));
                Paths {
                    issuer: at(""),
                    authorize: connect("auth"),
                    token: connect("token"),
                    keys: connect("certs"),
                    end_session: connect("logout"),
                }
            }
        }
    }

    /// The settings with which Bulkhead takes this provider's tokens, besides issuer and client: those of docs/auth.md.
    #[must_use]
    pub fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Plain => &[],
            Self::Cognito => &[
                ("OIDC_API_TOKEN", "id_token"),
                ("JWT_TENANT_CLAIM_NAME", "custom:tenant_id"),
                ("JWT_ROLE_CLAIM_NAME", "cognito:groups"),
            ],
            Self::Auth0 => &[
                ("OIDC_AUDIENCE", "https://api.example.com"),
                ("JWT_TENANT_CLAIM_NAME", "https://example.com/tenant_id"),
                ("JWT_ROLE_CLAIM_NAME", "https://example.com/role"),
            ],
            Self::Entra => &[
                ("OIDC_SCOPES", "openid profile email api://bulkhead-web/access"),
                ("JWT_TENANT_CLAIM_NAME", "extn.tenant_id"),
                ("JWT_ROLE_CLAIM_NAME", "roles"),
                // Entra gives access tokens a random lifetime between 60 and 90 minutes.
                ("JWT_MAX_LIFETIME_MINUTES", "95"),
            ],
            Self::Okta => &[("OIDC_AUDIENCE", "api://default"), ("JWT_TENANT_CLAIM_NAME", "tenant_id")],
            Self::OktaIdToken => &[("OIDC_API_TOKEN", "id_token"), ("JWT_TENANT_CLAIM_NAME", "tenant_id")],
            Self::Keycloak => &[("JWT_TENANT_CLAIM_NAME", "tenant_id"), ("JWT_ROLE_CLAIM_NAME", "realm_access.roles")],
        }
    }

    /// How long tokens live, in seconds.
    pub(super) fn lifetime(self) -> i64 {
        match self {
            Self::Plain => 900,
            Self::Cognito | Self::Okta | Self::OktaIdToken => 3600,
            Self::Auth0 => 1800,
            Self::Entra => 75 * 60,
            Self::Keycloak => 300,
        }
    }

    /// The metadata. `issuer` is what it calls itself, `base` is where it is.
    pub(super) fn metadata(self, base: &str, issuer: &str) -> Value {
        let paths = self.paths();
        let mut metadata = json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{base}{}", paths.authorize),
            "token_endpoint": format!("{base}{}", paths.token),
            "jwks_uri": format!("{base}{}", paths.keys),
            "end_session_endpoint": format!("{base}{}", paths.end_session),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "scopes_supported": ["openid", "profile", "email"],
        });
        let more = match self {
            Self::Plain => json!({
                "id_token_signing_alg_values_supported": ["RS256", "ES256", "EdDSA"],
                "code_challenge_methods_supported": ["S256"],
            }),
            // Cognito knows PKCE, but does not say so.
            Self::Cognito => json!({
                "response_types_supported": ["code", "token"],
                "revocation_endpoint": format!("{base}/oauth2/revoke"),
                "userinfo_endpoint": format!("{base}/oauth2/userInfo"),
                "scopes_supported": ["openid", "email", "phone", "profile"],
            }),
            Self::Auth0 => json!({
                "device_authorization_endpoint": format!("{base}/oauth/device/code"),
                "userinfo_endpoint": format!("{base}/userinfo"),
                "mfa_challenge_endpoint": format!("{base}/mfa/challenge"),
                "registration_endpoint": format!("{base}/oidc/register"),
                "revocation_endpoint": format!("{base}/oauth/revoke"),
                "response_types_supported": ["code", "token", "id_token", "code token", "code id_token"],
                "code_challenge_methods_supported": ["S256", "plain"],
                "response_modes_supported": ["query", "fragment", "form_post"],
                "token_endpoint_auth_methods_supported":
                    ["client_secret_basic", "client_secret_post", "private_key_jwt"],
                "id_token_signing_alg_values_supported": ["HS256", "RS256", "PS256"],
                "request_uri_parameter_supported": false,
                "backchannel_logout_supported": true,
            }),
            // Nor does Entra name PKCE.
            Self::Entra => json!({
                "token_endpoint_auth_methods_supported":
                    ["client_secret_post", "private_key_jwt", "client_secret_basic"],
                "response_modes_supported": ["query", "fragment", "form_post"],
                "subject_types_supported": ["pairwise"],
                "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
                "scopes_supported": ["openid", "profile", "email", "offline_access"],
                "request_uri_parameter_supported": false,
                "userinfo_endpoint": "https://graph.microsoft.com/oidc/userinfo",
                "device_authorization_endpoint": format!("{base}/{ENTRA_DIRECTORY}/oauth2/v2.0/devicecode"),
                "http_logout_supported": true,
                "frontchannel_logout_supported": true,
                "kerberos_endpoint": format!("{base}/{ENTRA_DIRECTORY}/kerberos"),
                "tenant_region_scope": "EU",
                "cloud_instance_name": "microsoftonline.com",
                "cloud_graph_host_name": "graph.windows.net",
                "msgraph_host": "graph.microsoft.com",
                "rbac_url": "https://pas.windows.net",
            }),
            Self::Okta | Self::OktaIdToken => json!({
                "userinfo_endpoint": format!("{base}/oauth2/default/v1/userinfo"),
                "registration_endpoint": format!("{base}/oauth2/v1/clients"),
                "introspection_endpoint": format!("{base}/oauth2/default/v1/introspect"),
                "revocation_endpoint": format!("{base}/oauth2/default/v1/revoke"),
                "response_modes_supported": ["query", "fragment", "form_post", "okta_post_message"],
                "grant_types_supported": ["authorization_code", "refresh_token", "password"],
                "token_endpoint_auth_methods_supported":
                    ["client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt", "none"],
                "code_challenge_methods_supported": ["S256"],
                "request_parameter_supported": true,
                "dpop_signing_alg_values_supported": ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"],
            }),
            Self::Keycloak => json!({
                "introspection_endpoint": format!("{base}{}/introspect", paths.token),
                "userinfo_endpoint": format!("{base}{}/protocol/openid-connect/userinfo", paths.issuer),
                "check_session_iframe": format!("{base}{}/login-status-iframe.html", paths.issuer),
                "grant_types_supported": ["authorization_code", "client_credentials", "refresh_token"],
                "id_token_signing_alg_values_supported":
                    ["PS384", "RS384", "EdDSA", "ES384", "HS256", "HS512", "ES256", "RS256", "HS384", "ES512"],
                "id_token_encryption_alg_values_supported": ["RSA-OAEP", "RSA-OAEP-256", "RSA1_5"],
                "token_endpoint_auth_methods_supported":
                    ["private_key_jwt", "client_secret_basic", "client_secret_post", "tls_client_auth"],
                "code_challenge_methods_supported": ["plain", "S256"],
                "authorization_response_iss_parameter_supported": true,
                "mtls_endpoint_aliases": {"token_endpoint": format!("{base}{}", paths.token)},
                "acr_values_supported": ["0", "1"],
            }),
        };
        merge(&mut metadata, more);
        metadata
    }

    /// The key set.
    pub(super) fn key_set(self, keys: Keys, issuer: &str) -> Value {
        let rsa = keys.jwk(Signer::Rsa);
        // What stands for a certificate is none: whoever reads the set must go by the parameters.
        let certificate = "MIIDBTCCAe2gAwIBAgIQ";
        let thumbprint = base64url("a certificate's SHA-1");
        let set = match self {
            // The key for encryption says so in each of the ways there are (RFC 7517, sections 4.2 to 4.4).
            Self::Plain => {
                let parameters = |id: &str, how: &Value| {
                    let jwk = keys.jwk(Signer::Encryption);
                    with(json!({"kty": jwk["kty"], "n": jwk["n"], "e": jwk["e"], "kid": id}), how)
                };
                let mut set = Signer::GOOD.map(|signer| keys.jwk(signer)).to_vec();
                set.push(parameters(&keys.id(Signer::Encryption), &json!({"use": "enc"})));
                set.push(parameters("enc-by-alg", &json!({"alg": "RSA-OAEP"})));
                set.push(parameters("enc-by-ops", &json!({"key_ops": ["wrapKey", "unwrapKey"]})));
                set
            }
            // There is one key for ID tokens and one for access tokens.
            Self::Cognito => {
                let other = Keys { rotations: keys.rotations + 1, ..keys }.jwk(Signer::Rsa);
                vec![with(other, &json!({"kid": format!("access-{}", keys.rotations)})), rsa]
            }
            Self::Auth0 => vec![with(rsa, &json!({"x5t": thumbprint, "x5c": [certificate]}))],
            Self::Entra => {
                let more = json!({
                    "x5t": thumbprint, "x5c": [certificate], "issuer": issuer,
                    "cloud_instance_name": "microsoftonline.com",
                });
                let mut jwk = with(rsa, &more);
                jwk.as_object_mut().expect("an object").remove("alg");
                vec![jwk]
            }
            Self::Okta | Self::OktaIdToken => vec![rsa],
            Self::Keycloak => {
                let more = json!({"x5c": [certificate], "x5t": thumbprint, "x5t#S256": thumbprint});
                vec![with(keys.jwk(Signer::Encryption), &more), with(rsa, &more)]
            }
        };
        json!({"keys": set})
    }

    pub(super) fn access_claims(self, issue: &Issue<'_>) -> Value {
        let Issue { issuer, person, now } = *issue;
        let Person { subject, tenant, role, email, name } = person;
        let exp = now + self.lifetime();
        let common = json!({"iss": issuer, "sub": subject, "iat": now, "exp": exp});
        let more = match self {
            Self::Plain => json!({"aud": CLIENT_ID, "nbf": now, "tenant_id": tenant, "role": role}),
            Self::Cognito => json!({
                "token_use": "access", "client_id": CLIENT_ID, "scope": "openid profile email", "version": 2,
                "username": subject, "auth_time": now, "jti": subject, "event_id": subject,
            }),
            Self::Auth0 => json!({
                "aud": ["https://api.example.com", format!("{issuer}userinfo")],
                "azp": CLIENT_ID, "scope": "openid profile email",
                "https://example.com/tenant_id": tenant, "https://example.com/role": role,
            }),
            // Entra's tokens are valid from five minutes before they are made.
            Self::Entra => json!({
                "aud": CLIENT_ID, "iat": now - 300, "nbf": now - 300, "exp": exp - 300, "azp": CLIENT_ID,
                "azpacr": "1", "oid": subject, "name": name, "preferred_username": email, "rh": "0.AAAA",
                "roles": [role], "scp": "access", "tid": ENTRA_DIRECTORY, "uti": "4f9z", "ver": "2.0", "aio": "AVQAq",
                "extn.tenant_id": tenant,
            }),
            Self::Okta | Self::OktaIdToken => {
                let mut claims = json!({
                    "ver": 1, "jti": "AT.x1", "aud": "api://default", "cid": CLIENT_ID, "uid": subject, "sub": email,
                    "scp": ["openid", "profile", "email"], "auth_time": now, "role": role,
                });
                if self == Self::Okta {
                    claims["tenant_id"] = tenant.as_str().into();
                }
                claims
            }
            Self::Keycloak => json!({
                "aud": [CLIENT_ID, "account"], "azp": CLIENT_ID, "typ": "Bearer", "jti": "onrtac:1", "sid": "5e1b", "acr": "1",
                "auth_time": now, "allowed-origins": ["http://localhost"], "scope": "openid profile email",
                "realm_access": {"roles": ["offline_access", "uma_authorization", role]},
                "resource_access": {"account": {"roles": ["manage-account"]}},
                "email_verified": true, "email": email, "preferred_username": email, "tenant_id": tenant,
            }),
        };
        with(common, &more)
    }

    pub(super) fn id_claims(self, issue: &Issue<'_>, nonce: &str) -> Value {
        let Issue { issuer, person, now } = *issue;
        let Person { subject, tenant, role, email, name } = person;
        let exp = now + self.lifetime();
        let common = json!({
            "iss": issuer, "sub": subject, "aud": CLIENT_ID, "iat": now, "exp": exp, "nonce": nonce, "email": email,
        });
        let more = match self {
            Self::Plain => json!({"name": name, "tenant_id": tenant, "role": role}),
            Self::Cognito => json!({
                "token_use": "id", "cognito:username": subject, "email_verified": true, "auth_time": now,
                "at_hash": "x", "origin_jti": subject, "custom:tenant_id": tenant, "cognito:groups": [role],
            }),
            Self::Auth0 => json!({
                "name": name, "sid": "s1", "email_verified": true,
                "https://example.com/tenant_id": tenant, "https://example.com/role": role,
            }),
            Self::Entra => json!({
                "iat": now - 300, "nbf": now - 300, "exp": exp - 300, "name": name, "oid": subject,
                "preferred_username": email, "rh": "0.AAAA", "roles": [role], "tid": ENTRA_DIRECTORY,
                "uti": "4f9z", "ver": "2.0", "extn.tenant_id": tenant,
            }),
            Self::Okta | Self::OktaIdToken => json!({
                "ver": 1, "jti": "ID.x1", "amr": ["pwd"], "idp": "00o1", "auth_time": now, "at_hash": "x",
                "name": name, "preferred_username": email, "tenant_id": tenant, "role": role,
            }),
            Self::Keycloak => json!({
                "typ": "ID", "azp": CLIENT_ID, "jti": "1", "sid": "5e1b", "acr": "1", "auth_time": now,
                "at_hash": "x", "email_verified": true, "preferred_username": email, "tenant_id": tenant,
                "realm_access": {"roles": ["offline_access", role]},
            }),
        };
        with(common, &more)
    }

    /// What a refresh token says, where it is one that can be read.
    pub(super) fn refresh_claims(self, issue: &Issue<'_>) -> Option<Value> {
        let Issue { issuer, person, now } = *issue;
        (self == Self::Keycloak).then(|| {
            json!({
                "iss": issuer, "aud": issuer, "sub": person.subject, "iat": now, "exp": now + 1800, "typ": "Refresh",
                "azp": CLIENT_ID, "sid": "5e1b", "jti": "2",
            })
        })
    }

    /// Whether a logout must show an ID token.
    pub(super) fn logout_needs_hint(self) -> bool {
        matches!(self, Self::Okta | Self::OktaIdToken)
    }

    /// The parameter of the end-session endpoint that names where to go then.
    pub(super) fn logout_parameter(self) -> &'static str {
        // Cognito has its own from before the standard.
        if self == Self::Cognito { "logout_uri" } else { "post_logout_redirect_uri" }
    }
}

fn with(mut object: Value, more: &Value) -> Value {
    merge(&mut object, more.clone());
    object
}

fn merge(object: &mut Value, more: Value) {
    if let (Value::Object(members), Value::Object(more)) = (object, more) {
        members.extend(more);
    }
}
