//! What must hold of any input, whoever sends it. Each function panics where it does not.
//!
//! Fuzzers make the inputs up (`fuzz/`, by `scripts/fuzz`); `cargo test` runs those in `fuzz/seeds`, to which belongs what a fuzzer
//! has found. Nothing of it is in a build of the product: it takes `--cfg fuzzing`, which cargo-fuzz sets, too.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a panic is how these say that something does not hold"
)]

mod checkpoint;
mod configuration;
mod cursor;
mod redaction;

pub use crate::auth::fuzz::token;
pub use crate::server::fuzz::client;
pub use checkpoint::checkpoint;
pub use configuration::configuration;
pub use cursor::cursor;
pub use redaction::redaction;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    type Target = fn(&[u8]);

    #[test]
    fn what_must_hold_of_any_input_holds_of_the_seeds() {
        let targets: [(&str, Target); 6] = [
            ("checkpoint", super::checkpoint),
            ("client", super::client),
            ("configuration", super::configuration),
            ("cursor", super::cursor),
            ("redaction", super::redaction),
            ("token", super::token),
        ];
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
        for (name, target) in targets {
            let seeds: Vec<_> = fs::read_dir(folder.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert!(!seeds.is_empty(), "{name}");
            for seed in seeds {
                let input = fs::read(&seed).unwrap();
                assert!(std::panic::catch_unwind(|| target(&input)).is_ok(), "{}", seed.display());
            }
        }
    }

    /// `cp Cargo.lock fuzz/ && cargo update --workspace --manifest-path fuzz/Cargo.toml` brings them back together.
    #[test]
    fn fuzzers_run_the_crates_that_the_product_is_made_of() {
        let packages = |lock: &str| -> BTreeSet<String> {
            let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(lock)).unwrap();
            let packages =
                lock.split("[[package]]\nname = ").skip(1).filter_map(|package| package.split("\n\n").next());
            packages.filter_map(|package| Some(package.split_once("source")?.0.to_owned())).collect()
        };
        let (product, fuzzers) = (packages("Cargo.lock"), packages("fuzz/Cargo.lock"));
        let own: Vec<&String> = fuzzers.difference(&product).collect();
        let names = ["\"arbitrary\"", "\"libfuzzer-sys\""];
        assert!(own.len() == 2 && own.iter().zip(names).all(|(package, name)| package.starts_with(name)), "{own:#?}");
    }
}
