//! Which tokens the API accepts, and what it answers to the others.

mod attacks;
mod claim_names;
mod header;
mod provider_keys;
mod provider_tokens;

use test_support::provider::Shape;

/// Status and error code; `-` is none.
type Outcome = (u16, &'static str);

const INVALID: Outcome = (401, "AUTH_001");
const EXPIRED: Outcome = (401, "AUTH_003");
const SIGNATURE: Outcome = (401, "AUTH_004");
const NO_TENANT: Outcome = (403, "AUTH_005");
const BAD_TENANT: Outcome = (403, "AUTH_007");
const ROLE: Outcome = (403, "AUTH_008");
const REFUSED: Outcome = (403, "AUTH_009");
const NO_TOKEN: Outcome = (401, "AUTH_010");
const GOOD: Outcome = (200, "-");

const SHAPES: [Shape; 7] =
    [Shape::Plain, Shape::Cognito, Shape::Auth0, Shape::Entra, Shape::Okta, Shape::OktaIdToken, Shape::Keycloak];
