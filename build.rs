//! Tells the binary which locked dependencies it was built with, for `/api/v1/version`.

use sha2::{Digest, Sha256};

fn main() {
    for (file, variable) in [("Cargo.lock", "CARGO_LOCK_SHA256"), ("flake.lock", "FLAKE_LOCK_SHA256")] {
        println!("cargo::rerun-if-changed={file}");
        // A build without the file is one that nobody can say this of.
        let hash =
            std::fs::read(file).map_or_else(|_| "unknown".to_owned(), |text| format!("{:x}", Sha256::digest(text)));
        println!("cargo::rustc-env={variable}={hash}");
    }
}
