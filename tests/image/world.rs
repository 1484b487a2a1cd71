//! A container with everything it needs to answer callers: a database, an identity provider over https, a tenant.

use crate::container::{Container, Run};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tempfile::TempDir;
use test_support::provider::{Person, Shape};
use test_support::{Database, Provider};

/// Where containers find the authority's certificate.
pub(crate) const AUTHORITY: &str = "/run/authority.pem";

/// A provider over https, and its authority's certificate in a file.
pub(crate) struct Identity {
    pub(crate) provider: Provider,
    folder: TempDir,
}

impl Identity {
    /// A provider on this machine that calls itself `host`.
    pub(crate) fn of(host: &str) -> Self {
        let provider = Provider::start_https(Shape::Plain, host);
        provider.register("https://app.example.org/callback");
        let identity = Self { provider, folder: tempfile::tempdir().unwrap() };
        fs::write(identity.authority(), identity.provider.authority().unwrap()).unwrap();
        // The container's user is not the one who runs the tests.
        fs::set_permissions(identity.authority(), fs::Permissions::from_mode(0o444)).unwrap();
        identity
    }

    /// The file with the authority's certificate.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// Sets what a Bulkhead needs to know of the provider, save for whom to trust.
    pub(crate) fn introduce(&self, run: Run) -> Run {
        self.provider.environment().iter().fold(run, |run, (name, value)| run.set(name, value))
    }

    /// The same, and the authority to trust.
    pub(crate) fn introduce_trusted(&self, run: Run) -> Run {
        self.introduce(run).mount(&self.authority(), AUTHORITY).set("SSL_CERT_FILE", AUTHORITY)
    }
}

/// A ready container, whose tenant's admin is Ada.
pub(crate) struct World {
    // In the order in which they go.
    pub(crate) container: Container,
    pub(crate) identity: Identity,
    pub(crate) database: Database,
}

impl World {
    /// `None`, with a skip, where there is no PostgreSQL.
    pub(crate) async fn start(adjust: impl FnOnce(Run) -> Run) -> Option<Self> {
        let database = Database::postgres().await?;
        let identity = Identity::of("127.0.0.1");
        // The tests ask in tight loops from one address.
        let run = identity.introduce_trusted(Run::with(&database)).set("RATE_LIMIT_PER_MINUTE", "0");
        let container = adjust(run).start();
        container.ready().await;
        let world = Self { container, identity, database };
        world.make_tenant(&Person::ada(Shape::Plain).tenant);
        Some(world)
    }

    /// Makes a tenant.
    pub(crate) fn make_tenant(&self, external_id: &str) {
        let made = self.container.exec(&[], &["tenant", "create", "--name", "A clinic", "--external-id", external_id]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// A token of an admin of this tenant.
    pub(crate) fn admin(&self, tenant: &str) -> String {
        let admin = Person { role: "admin".to_owned(), tenant: tenant.to_owned(), ..Person::ada(Shape::Plain) };
        let provider = &self.identity.provider;
        provider.token(&provider.claims(&admin)).encode()
    }

    /// A request of Ada's.
    pub(crate) fn request(&self, client: &reqwest::Client, path: &str) -> reqwest::RequestBuilder {
        client.get(self.container.url(path)).bearer_auth(self.admin(&Person::ada(Shape::Plain).tenant))
    }
}
