//! An OpenID Connect provider of the tests' own: small, but with real keys and real checks.
//!
//! It serves metadata, keys, a login page, tokens and logout on a free port of this machine, in the shape of a
//! [`Shape`], and misbehaves on demand by a [`Fault`]. It runs on a thread of its own, whatever the test's runtime
//! does, and ends with its value. It speaks http, or https by a certificate authority of its own.

mod desk;
mod endpoints;
mod fault;
mod keys;
mod person;
mod shape;
#[cfg(test)]
mod tests;
mod tls;
mod token;

pub use fault::{Endpoint, Fault};
pub use keys::{PublicKeyForm, Signature, Signer};
pub use person::Person;
pub use shape::{CLIENT_ID, Shape};
pub use token::Token;

use axum::http::StatusCode;
use desk::Desk;
use keys::Keys;
use serde_json::Value;
use shape::Issue;
use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tls::{Tls, TlsListener};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use url::Url;

/// The client's secret, with characters that a form must encode: clients that forget to are refused.
pub const CLIENT_SECRET: &str = "s3cret/of:the+client&so%20on=";

/// The page of the front end that the provider sends browsers back to, unless a test registers its own.
pub const REDIRECT_URL: &str = "http://localhost:3000/callback";

/// A running provider.
#[derive(Debug)]
pub struct Provider {
    shared: Arc<Shared>,
    address: SocketAddr,
    tls: Option<Tls>,
    running: Mutex<Option<Running>>,
}

/// What the provider's thread, its requests and the test share.
#[derive(Debug)]
struct Shared {
    base: String,
    shape: Shape,
    rotations: AtomicUsize,
    replacements: AtomicUsize,
    /// How many rotations the first address of the keys knows of, where the keys have another one now.
    moved_at: Mutex<Option<usize>>,
    /// What the claims of tokens that logins get are changed to.
    changed: Mutex<Changed>,
    presses_itself: AtomicBool,
    faults: watch::Sender<HashSet<Fault>>,
    seen: [AtomicUsize; Endpoint::COUNT],
    desk: Mutex<Desk>,
}

impl Shared {
    /// As the metadata and the tokens spell it.
    fn issuer(&self) -> String {
        format!("{}{}", self.base, self.shape.paths().issuer)
    }

    fn keys(&self) -> Keys {
        let load = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        Keys { rotations: load(&self.rotations), replacements: load(&self.replacements) }
    }

    fn moved_at(&self) -> Option<usize> {
        *self.moved_at.lock().expect("whether the keys have moved")
    }

    fn fails(&self, fault: Fault) -> bool {
        self.faults.borrow().contains(&fault)
    }

    fn presses_itself(&self) -> bool {
        self.presses_itself.load(Ordering::SeqCst)
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().expect("the desk")
    }

    /// Counts a request, and holds or refuses it where the provider is to.
    async fn arrive(&self, endpoint: Endpoint) -> Result<(), StatusCode> {
        self.seen[endpoint as usize].fetch_add(1, Ordering::SeqCst);
        self.heal_of(Fault::Slow).await;
        if self.fails(Fault::Unavailable) { Err(StatusCode::SERVICE_UNAVAILABLE) } else { Ok(()) }
    }

    /// Waits until it has not this fault.
    async fn heal_of(&self, fault: Fault) {
        // The sender is here: it cannot be gone.
        drop(self.faults.subscribe().wait_for(|faults| !faults.contains(&fault)).await);
    }
}

/// Claims of the two tokens that a login gets.
#[derive(Debug, Default, Clone)]
struct Changed {
    id: Value,
    access: Value,
}

/// The thread that serves, until it is told not to.
#[derive(Debug)]
struct Running {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(!matches!(ended, Some(Err(_))) || std::thread::panicking(), "the provider's thread panicked");
    }
}

/// What the provider sent the browser back with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// To be exchanged for tokens.
    pub code: String,
    /// As the login began with.
    pub state: String,
}

impl Provider {
    /// Starts a provider on a free port.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn start(shape: Shape) -> Self {
        Self::start_as(shape, &Ipv4Addr::LOCALHOST.to_string(), None)
    }

    /// Starts a provider on a free port of this machine that calls itself `host` and speaks https alone;
    /// [`Provider::authority`] is whom to trust for it.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn start_https(shape: Shape, host: &str) -> Self {
        Self::start_as(shape, host, Some(Tls::new(host)))
    }

    fn start_as(shape: Shape, host: &str, tls: Option<Tls>) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = Arc::new(Shared {
            base: format!("{scheme}://{host}:{}", address.port()),
            shape,
            rotations: AtomicUsize::new(0),
            replacements: AtomicUsize::new(0),
            moved_at: Mutex::new(None),
            changed: Mutex::default(),
            presses_itself: AtomicBool::new(false),
            faults: watch::Sender::new(HashSet::new()),
            seen: Default::default(),
            desk: Mutex::new(Desk::new(shape)),
        });
        let running = Mutex::new(Some(serve(listener, &shared, tls.as_ref())));
        Self { shared, address, tls, running }
    }

    /// The certificate of the authority that vouches for it, in PEM; `None` where it speaks http.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        self.tls.as_ref().map(Tls::authority)
    }

    /// The issuer, as the metadata and the tokens spell it.
    #[must_use]
    pub fn issuer(&self) -> String {
        self.shared.issuer()
    }

    /// The environment of a Bulkhead that knows this provider.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let redirect = self.shared.desk().redirects.last().cloned().unwrap_or_default();
        let mut environment = vec![
            ("OIDC_ISSUER_URL", self.issuer()),
            ("OIDC_CLIENT_ID", CLIENT_ID.to_owned()),
            ("OIDC_CLIENT_SECRET", CLIENT_SECRET.to_owned()),
            ("OIDC_REDIRECT_URL", redirect),
            ("COOKIE_SECRET", "a secret for tests that is long enough, we hope: 0123456789".to_owned()),
        ];
        environment.extend(self.shared.shape.settings().iter().map(|(name, value)| (*name, (*value).to_owned())));
        environment
    }

    /// The claims of an access token for this person, made now.
    #[must_use]
    pub fn claims(&self, person: &Person) -> Value {
        self.shared.shape.access_claims(&Issue { issuer: &self.issuer(), person, now: now() })
    }

    /// The claims of an ID token for this person, made now.
    #[must_use]
    pub fn id_claims(&self, person: &Person, nonce: &str) -> Value {
        self.shared.shape.id_claims(&Issue { issuer: &self.issuer(), person, now: now() }, nonce)
    }

    /// A token with these claims; good, by the RSA key, until something is changed.
    #[must_use]
    pub fn token(&self, claims: &Value) -> Token {
        Token::new(self.shared.keys(), claims)
    }

    /// A key as the key set holds it.
    #[must_use]
    pub fn jwk(&self, signer: Signer) -> Value {
        self.shared.keys().jwk(signer)
    }

    /// How many requests have come to this endpoint.
    #[must_use]
    pub fn seen(&self, endpoint: Endpoint) -> usize {
        self.shared.seen[endpoint as usize].load(Ordering::SeqCst)
    }

    /// Misbehaves in this way from now on, besides any other.
    pub fn fail(&self, fault: Fault) {
        self.shared.faults.send_modify(|faults| {
            faults.insert(fault);
        });
    }

    /// Changes these claims of the ID tokens and the access tokens that logins get from now on; null takes one away.
    ///
    /// # Panics
    /// When another test's thread has panicked.
    pub fn change_claims(&self, id: Value, access: Value) {
        *self.shared.changed.lock().expect("the changed claims") = Changed { id, access };
    }

    /// Behaves well again, and answers what it held.
    ///
    /// # Panics
    /// When another test's thread has panicked.
    pub fn heal(&self) {
        self.change_claims(Value::Null, Value::Null);
        self.shared.faults.send_modify(HashSet::clear);
    }

    /// Takes new keys; the old ones are gone from the key set.
    pub fn rotate(&self) {
        self.shared.rotations.fetch_add(1, Ordering::SeqCst);
    }

    /// Takes new keys under the ids of the old ones.
    pub fn replace_keys(&self) {
        self.shared.replacements.fetch_add(1, Ordering::SeqCst);
    }

    /// Takes new keys, at another address, which the metadata names from now on. The old address goes on with the old ones.
    ///
    /// # Panics
    /// When another test's thread has panicked.
    pub fn move_keys(&self) {
        let before = self.shared.rotations.fetch_add(1, Ordering::SeqCst);
        *self.shared.moved_at.lock().expect("whether the keys have moved") = Some(before);
    }

    /// Sends browsers back to this page, which [`Provider::environment`] names from now on; earlier ones stay good.
    pub fn register(&self, redirect_url: impl Into<String>) {
        self.shared.desk().redirects.push(redirect_url.into());
    }

    /// Lets this person press the button from now on.
    pub fn seat(&self, person: Person) {
        self.shared.desk().person = person;
    }

    /// Has the consent page press its own button, for a browser with nobody before it.
    pub fn press_by_itself(&self) {
        self.shared.presses_itself.store(true, Ordering::SeqCst);
    }

    /// Stops listening, and cuts every connection: it is refused from now on.
    ///
    /// # Panics
    /// When its thread has panicked.
    pub fn close(&self) {
        *self.running() = None;
    }

    /// Listens again, at the same address.
    ///
    /// # Panics
    /// When somebody else has taken it.
    pub fn open(&self) {
        let started = Instant::now();
        let listener = loop {
            match std::net::TcpListener::bind(self.address) {
                Ok(listener) => break listener,
                Err(error) => assert!(started.elapsed() < crate::SOON, "{}: {error}", self.address),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        *self.running() = Some(serve(listener, &self.shared, self.tls.as_ref()));
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().expect("whether it runs")
    }

    /// What a person does whom a login has led to `authorize`: opens the page, and presses its button.
    ///
    /// # Panics
    /// When the provider refuses the login.
    pub async fn consent(&self, authorize: &str) -> Consent {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
        let page = http.get(authorize).send().await.expect("the page");
        let status = page.status();
        let page = page.text().await.expect("the page");
        assert!(status.is_success(), "{status}: {page}");
        let action = page.split_once("action=\"").and_then(|(_, rest)| rest.split_once('"')).expect("a form").0;
        let answer = http.post(format!("{}{action}", self.shared.base)).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        let location = answer.headers()["location"].to_str().expect("an address").to_owned();
        let location = Url::parse(&location).expect("an address");
        let parameter = |wanted: &str| {
            let found = location.query_pairs().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.into_owned()).expect("code and state")
        };
        Consent { code: parameter("code"), state: parameter("state") }
    }
}

fn serve(listener: std::net::TcpListener, shared: &Arc<Shared>, tls: Option<&Tls>) -> Running {
    let (stop, stopped) = oneshot::channel::<()>();
    let router = endpoints::router(Arc::clone(shared));
    let acceptor = tls.map(Tls::acceptor);
    listener.set_nonblocking(true).expect("a listener that does not block");
    // With the runtime end its connections: none is kept alive beyond.
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).expect("a listener");
            let serving = async {
                match acceptor {
                    Some(acceptor) => axum::serve(TlsListener::new(listener, acceptor), router).await,
                    None => axum::serve(listener, router).await,
                }
            };
            tokio::select! {
                served = serving => served.expect("the provider serves"),
                _ = stopped => {}
            }
        });
    });
    Running { stop: Some(stop), thread: Some(thread) }
}

/// Unix time in seconds.
///
/// # Panics
/// Before 1970.
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    since.as_secs().try_into().expect("a clock before the end of time")
}
