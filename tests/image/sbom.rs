//! The list of the crates that the image's binary is made of, held to the binary: `SBOM=file` names the list.

use crate::saved::Saved;
use regex::bytes::Regex;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use test_support::skip;

/// The crates of the SBOM, as `name-version`.
fn listed() -> Option<BTreeSet<String>> {
    let Some(file) = std::env::var_os("SBOM") else {
        skip("SBOM names no file: whether it lists the crates of the image's binary");
        return None;
    };
    let sbom: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    assert_eq!(sbom["bomFormat"], "CycloneDX");
    let root = [&sbom["metadata"]["component"]];
    let components = sbom["components"].as_array().unwrap().iter().chain(root);
    let name = |component: &Value, field: &str| component[field].as_str().unwrap().to_owned();
    Some(components.map(|component| format!("{}-{}", name(component, "name"), name(component, "version"))).collect())
}

fn binary() -> Vec<u8> {
    Saved::image().extract("bin/bulkhead")
}

#[test]
fn the_sbom_lists_every_crate_whose_code_the_binary_names() {
    let Some(listed) = listed() else { return };
    // Panics and log lines say which file of which crate they come from.
    let sources = Regex::new(r"(?-u)/([a-z][a-zA-Z0-9_-]*-[0-9]+\.[0-9]+\.[0-9]+[0-9A-Za-z.+-]*)/src/").unwrap();
    let binary = binary();
    let named = sources.captures_iter(&binary).map(|hit| String::from_utf8(hit[1].to_vec()).unwrap());
    // The standard library brings crates of its own, and paths that are cut to fit begin elsewhere.
    let named: BTreeSet<String> = named.filter(|name| !name.starts_with("library-")).collect();
    assert!(named.len() > 30, "the binary names its crates: {named:?}");
    let std_only = ["addr2line", "gimli", "hashbrown", "miniz_oxide", "object", "rustc-demangle", "memchr", "adler2"];
    let missing: Vec<_> = named
        .difference(&listed)
        .filter(|name| !std_only.iter().any(|known| name.strip_prefix(known).is_some_and(|rest| rest.starts_with('-'))))
        .collect();
    assert!(missing.is_empty(), "not in the SBOM: {missing:?}");
}

#[test]
fn the_sbom_lists_no_crate_that_the_binary_was_not_built_with() {
    let Some(listed) = listed() else { return };
    let built_with = auditable_info::audit_info_from_slice(&binary(), 8 * 1024 * 1024).expect("cargo-auditable's data");
    let built_with: BTreeSet<String> =
        built_with.packages.iter().map(|package| format!("{}-{}", package.name, package.version)).collect();
    let others: Vec<_> = listed.difference(&built_with).collect();
    assert!(others.is_empty(), "in the SBOM, but not in the binary's own list: {others:?}");
    // What only builds and tests need is in neither.
    for name in ["criterion", "proptest", "tempfile", "cc", "syn", "tokio-macros", "test-support"] {
        let found = listed.iter().find(|one| one.strip_prefix(name).is_some_and(|rest| rest.starts_with('-')));
        assert_eq!(found, None, "not linked into the binary");
    }
}
