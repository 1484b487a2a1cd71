//! Cargo asks every package for a source file; the pins of tools have none of their own.
