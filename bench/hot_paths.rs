//! What every request pays: to have its token checked, anew by each algorithm or as one that is remembered, and to
//! have its log line redacted.
//!
//! `cargo bench --bench hot_paths`. The figures in docs/auth.md and docs/middleware.md come from here.

#![allow(clippy::unwrap_used, missing_docs)]

use bulkhead::auth::{Auth, KeyStatus};
use bulkhead::config::Settings;
use bulkhead::telemetry::redact;
use criterion::{Criterion, criterion_group, criterion_main};
use std::ffi::OsString;
use std::hint::black_box;
use std::sync::Arc;
use test_support::eventually;
use test_support::provider::{Person, Provider, Shape, Signer};
use tokio::runtime::Runtime;

/// An `Auth` that has the provider's keys and remembers so many tokens.
fn auth(runtime: &Runtime, provider: &Provider, remembered: &str) -> Arc<Auth> {
    let mut environment = provider.environment();
    environment.push(("JWT_CACHE_CAPACITY", remembered.to_owned()));
    environment.retain(|(name, _)| *name != "OIDC_REDIRECT_URL");
    let lookup = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
    let settings = Settings::read(&lookup).0.unwrap();
    let auth = runtime.block_on(async { Auth::new(&settings.auth) });
    let fetching = Arc::clone(&auth);
    runtime.spawn(async move { fetching.run().await });
    let here = async || (auth.key_status() == KeyStatus::Fresh).then_some(());
    runtime.block_on(eventually("the keys are here", here));
    auth
}

fn tokens(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let provider = Provider::start(Shape::Plain);
    let (anew, remembering) = (auth(&runtime, &provider, "0"), auth(&runtime, &provider, "10000"));
    let claims = provider.claims(&Person::ada(Shape::Plain));
    let mut group = criterion.benchmark_group("token");
    for signer in Signer::GOOD {
        let token = provider.token(&claims).by(signer).encode();
        group.bench_function(format!("{} anew", signer.algorithm()), |bencher| {
            bencher.to_async(&runtime).iter(|| async { anew.verify(&token).await.unwrap() });
        });
    }
    let token = provider.token(&claims).encode();
    group.bench_function("remembered", |bencher| {
        bencher.to_async(&runtime).iter(|| async { remembering.verify(&token).await.unwrap() });
    });
    group.finish();
}

/// An access log line as production writes it.
const LINE: &str = r#"{"timestamp":"2026-11-22T23:45:33.123456Z","level":"INFO","message":"request","request_id":"0193a1b2-7f00-7abc-8123-123456789012","method":"GET","route":"/api/v1/users/{id}","status":200,"duration_ms":0.083456,"client_ip":"203.0.113.9","target":"bulkhead::server::middleware::access_log"}"#;

fn redaction(criterion: &mut Criterion) {
    criterion.bench_function("redact an access line", |bencher| bencher.iter(|| redact(black_box(LINE))));
}

criterion_group!(benches, tokens, redaction);
criterion_main!(benches);
