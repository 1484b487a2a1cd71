//! What every image promises, whoever built it: `IMAGE=... cargo test -p image-contract`.
//!
//! `ENGINE` names the container engine, docker by default; podman is held to the same. `SBOM` names the SBOM to hold to
//! the image, if there is one.

#![allow(clippy::unwrap_used)]

// What the tests stand on.
mod container;
mod engine;
mod name_server;
mod saved;
mod world;

// The contract, by concern.
mod certificates;
mod clock;
mod config;
mod files;
mod life;
mod memory;
mod network;
mod refusals;
mod sbom;
mod secrets;
mod size;
