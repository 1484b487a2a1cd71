//! Logins under way: what was asked for, what was agreed to, and the one use of each code.

use super::keys::base64url;
use super::person::Person;
use super::shape::{CLIENT_ID, Shape};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use std::collections::HashMap;

/// The parameters of a request, by name; one that comes twice is a mistake (RFC 6749, section 3.1).
pub(super) type Parameters = HashMap<String, String>;

/// Reads a query or a form.
pub(super) fn parameters(text: &[u8]) -> Result<Parameters, Refusal> {
    let mut parameters = Parameters::new();
    for (name, value) in url::form_urlencoded::parse(text) {
        if parameters.insert(name.into_owned(), value.into_owned()).is_some() {
            return Err(Refusal("invalid_request", "a parameter comes twice"));
        }
    }
    Ok(parameters)
}

/// An error of the protocol (RFC 6749, sections 4.1.2.1 and 5.2) and what it means here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) &'static str, pub(super) &'static str);

/// A login that somebody has asked for.
#[derive(Debug, Clone)]
struct Request {
    redirect_uri: String,
    state: String,
    nonce: String,
    challenge: String,
}

/// What a code stands for.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) person: Person,
    pub(super) nonce: String,
    redirect_uri: String,
    challenge: String,
}

#[derive(Debug)]
pub(super) struct Desk {
    pub(super) person: Person,
    pub(super) redirects: Vec<String>,
    asked: HashMap<String, Request>,
    codes: HashMap<String, Grant>,
}

impl Desk {
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            person: Person::ada(shape),
            redirects: vec![super::REDIRECT_URL.to_owned()],
            asked: HashMap::new(),
            codes: HashMap::new(),
        }
    }

    /// Takes in a request for a login; gives the key by which the consent page answers to it.
    pub(super) fn ask(&mut self, query: &Parameters) -> Result<String, Refusal> {
        let get = |name: &'static str| {
            query.get(name).filter(|value| !value.is_empty()).ok_or(Refusal("invalid_request", name))
        };
        if get("client_id")? != CLIENT_ID {
            return Err(Refusal("unauthorized_client", "client_id"));
        }
        let redirect_uri = get("redirect_uri")?;
        if !self.redirects.contains(redirect_uri) {
            return Err(Refusal("invalid_request", "redirect_uri"));
        }
        if get("response_type")? != "code" {
            return Err(Refusal("unsupported_response_type", "response_type"));
        }
        if !get("scope")?.split(' ').any(|scope| scope == "openid") {
            return Err(Refusal("invalid_scope", "scope"));
        }
        let challenge = get("code_challenge")?;
        // The plain method, and the one that is meant where none is named, protect nobody.
        if get("code_challenge_method")? != "S256" || challenge.len() != 43 {
            return Err(Refusal("invalid_request", "code_challenge"));
        }
        let request = Request {
            redirect_uri: redirect_uri.clone(),
            state: get("state")?.clone(),
            nonce: get("nonce")?.clone(),
            challenge: challenge.clone(),
        };
        let key = random();
        self.asked.insert(key.clone(), request);
        Ok(key)
    }

    /// The person agrees: where the browser goes with the code.
    pub(super) fn agree(&mut self, key: &str) -> Option<String> {
        let Request { redirect_uri, state, nonce, challenge } = self.asked.remove(key)?;
        let code = random();
        let mut url = url::Url::parse(&redirect_uri).ok()?;
        url.query_pairs_mut().append_pair("code", &code).append_pair("state", &state);
        self.codes.insert(code, Grant { person: self.person.clone(), nonce, redirect_uri, challenge });
        Some(url.into())
    }

    /// Exchanges a code, which is used up by this, whatever comes of it.
    pub(super) fn redeem(&mut self, form: &Parameters) -> Result<Grant, Refusal> {
        let get = |name: &'static str| form.get(name).ok_or(Refusal("invalid_request", name));
        if get("grant_type")? != "authorization_code" {
            return Err(Refusal("unsupported_grant_type", "grant_type"));
        }
        let grant = self.codes.remove(get("code")?).ok_or(Refusal("invalid_grant", "code"))?;
        if *get("redirect_uri")? != grant.redirect_uri {
            return Err(Refusal("invalid_grant", "redirect_uri"));
        }
        // RFC 7636, section 4.6.
        let verifier = get("code_verifier")?;
        if base64url(digest(&SHA256, verifier.as_bytes())) != grant.challenge {
            return Err(Refusal("invalid_grant", "code_verifier"));
        }
        if !(43..=128).contains(&verifier.len()) {
            return Err(Refusal("invalid_request", "code_verifier"));
        }
        Ok(grant)
    }
}

/// What cannot be guessed.
fn random() -> String {
    let mut bytes = [0; 24];
    rand::fill(&mut bytes).expect("random bytes");
    base64url(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

    fn request() -> Parameters {
        // The pair of RFC 7636, appendix B.
        let text = format!(
            "client_id={CLIENT_ID}&redirect_uri={}&response_type=code&scope=openid+email&state=s&nonce=n\
             &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256",
            super::super::REDIRECT_URL
        );
        parameters(text.as_bytes()).unwrap()
    }

    fn with(parameters: &Parameters, name: &str, value: &str) -> Parameters {
        let mut parameters = parameters.clone();
        parameters.insert(name.to_owned(), value.to_owned());
        parameters
    }

    /// A desk with a code that waits, and the form that redeems it.
    fn agreed() -> (Desk, Parameters) {
        let mut desk = Desk::new(Shape::Plain);
        let key = desk.ask(&request()).unwrap();
        let url = url::Url::parse(&desk.agree(&key).unwrap()).unwrap();
        let code = url.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
        let form = format!("grant_type=authorization_code&redirect_uri={}", super::super::REDIRECT_URL);
        let form = parameters(form.as_bytes()).unwrap();
        (desk, with(&with(&form, "code", &code), "code_verifier", VERIFIER))
    }

    #[test]
    fn a_code_is_redeemed_once() {
        let (mut desk, form) = agreed();
        assert_eq!(desk.redeem(&form).unwrap().nonce, "n");
        assert_eq!(desk.redeem(&form).unwrap_err(), Refusal("invalid_grant", "code"));
    }

    #[test]
    fn a_code_needs_its_verifier_and_its_redirect() {
        for (name, value) in [
            ("code_verifier", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXl"),
            ("code_verifier", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
            ("code_verifier", ""),
            ("redirect_uri", "http://localhost:3000/other"),
        ] {
            let (mut desk, form) = agreed();
            assert_eq!(desk.redeem(&with(&form, name, value)).unwrap_err(), Refusal("invalid_grant", name));
            assert!(desk.redeem(&form).is_err(), "used up");
        }
        let (mut desk, mut form) = agreed();
        form.remove("code_verifier");
        assert_eq!(desk.redeem(&form).unwrap_err(), Refusal("invalid_request", "code_verifier"));
    }

    #[test]
    fn a_login_that_lacks_a_protection_is_not_begun() {
        for (name, value) in [
            ("client_id", "other"),
            ("redirect_uri", "http://evil.example/"),
            ("response_type", "token"),
            ("scope", "email"),
            ("state", ""),
            ("nonce", ""),
            ("code_challenge", "short"),
            ("code_challenge_method", "plain"),
        ] {
            assert!(Desk::new(Shape::Plain).ask(&with(&request(), name, value)).is_err(), "{name}={value}");
        }
        assert!(parameters(b"state=a&state=b").is_err());
    }
}
