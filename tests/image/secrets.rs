//! What must be in no layer and nowhere in the configuration: secrets, and traces of where it was built.

use crate::saved::Saved;
use regex::bytes::Regex;

/// How variables end whose value is nobody else's business.
const SECRET_NAMES: &str = "(?:PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|PRIVATE_?KEY|CREDENTIALS?)";

/// Where one of the patterns, each with its name, matches in one of the texts, each with its name, too.
fn find(patterns: &[(&str, &str)], texts: &[(String, Vec<u8>)], harmless: impl Fn(&[u8]) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (what, pattern) in patterns {
        let pattern = Regex::new(&format!("(?-u){pattern}")).unwrap();
        for (place, text) in texts {
            for hit in pattern.find_iter(text).filter(|hit| !harmless(hit.as_bytes())) {
                let around = &text[hit.start().saturating_sub(40)..text.len().min(hit.end() + 40)];
                found.push(format!("{what} in {place}: {}", around.escape_ascii()));
            }
        }
    }
    found
}

/// Fails where one of the patterns matches in a layer or in the configuration.
fn assert_nowhere(patterns: &[(&str, &str)], harmless: impl Fn(&[u8]) -> bool) {
    let saved = Saved::image();
    let mut texts = vec![("the configuration".to_owned(), saved.config().to_vec())];
    for (index, layer) in saved.layers().iter().enumerate() {
        texts.push((format!("layer {}", index + 1), saved.read(layer)));
    }
    let found = find(patterns, &texts, harmless);
    assert!(found.is_empty(), "{} found:\n{}", found.len(), found[..found.len().min(20)].join("\n"));
}

#[test]
fn no_layer_and_no_configuration_holds_a_secret() {
    let patterns = [
        // With a body: programs that read keys hold the first line.
        ("a private key", r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----(?:\\n|\s)+[A-Za-z0-9+/=]{16}"),
        ("an AWS key", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
        ("a GitHub token", r"\b(?:gh[opsur]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{50})"),
        ("a GitLab token", r"\bglpat-[A-Za-z0-9_-]{20}"),
        ("a Slack token", r"\bxox[abprs]-[A-Za-z0-9-]{10}"),
        ("a Stripe key", r"\b[rs]k_live_[A-Za-z0-9]{16}"),
        ("a Google key", r"\bAIza[A-Za-z0-9_-]{35}\b"),
        ("an npm token", r"\bnpm_[A-Za-z0-9]{36}\b"),
        ("a JSON web token", r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
        ("a URL with a password", r"\b(?:postgres|postgresql|https?|redis|amqp|mysql)://[\w.%-]+:[^\s@/:{}]+@\w"),
        ("a secret variable", &format!(r"(?i)\b\w*{SECRET_NAMES}=[^\s=]")),
        // podman's history names it without its value.
        ("a secret build argument", &format!(r"(?i)\bARG \w*{SECRET_NAMES}")),
    ];
    // The form of a database URL, as error messages and help show it.
    assert_nowhere(&patterns, |hit| hit.starts_with(b"postgres://USER:PASSWORD@H"));
}

const STORE_PATH: (&str, &str) = ("a store path", "/nix/store/.{33}");

/// A name of a store path's length that leads nowhere: a static glibc's own paths are replaced by it.
fn leads_nowhere(path: &[u8]) -> bool {
    path == format!("/nix/store/{}-", "e".repeat(32)).as_bytes()
}

#[test]
fn nothing_in_it_refers_to_the_nix_store() {
    assert_nowhere(&[STORE_PATH], leads_nowhere);
}

/// The comment that nixpkgs' dockerTools writes into an image's history (stream_layered_image.py), should an image be made
/// by it again.
#[test]
fn a_history_that_names_store_paths_is_found() {
    let history = |path: &str| {
        let config = format!(r#"{{"history": [{{"comment": "store paths: ['/nix/store/{path}']"}}]}}"#);
        find(&[STORE_PATH], &[("the configuration".to_owned(), config.into_bytes())], leads_nowhere)
    };
    assert_eq!(history("0c5gg5jzlwqg4cjjyfcqmxv5b8v2c3xn-bulkhead-customisation-layer").len(), 1);
    assert!(history(&format!("{}-glibc-2.40", "e".repeat(32))).is_empty());
}

#[test]
fn nothing_in_it_tells_where_or_when_or_by_whom_it_was_built() {
    let patterns = [
        ("a home", r"/(?:home|Users)/[\w.-]+/|/root/[\w.-]+"),
        ("a build folder", r"(?:release|quick|debug)?/(?:build|workspace|tmp|var/tmp)/[\w.-]+/"),
        ("cargo's home", r"/\.?cargo/(?:registry|git)/"),
        // As C's __DATE__ writes it.
        ("the time of a build", r"\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ 0-3]\d 20[2-9]\d\b"),
    ];
    assert_nowhere(&patterns, |hit| {
        // Within cargo's target folder, by profile; and two paths of PostgreSQL's sockets, side by side in the binary.
        let profiles: [&[u8]; 3] = [b"release/build/", b"quick/build/", b"debug/build/"];
        profiles.iter().any(|folder| hit.starts_with(folder)) || hit == b"/tmp/var/"
    });
}
