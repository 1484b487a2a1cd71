//! The tests of the image contract stand in `main.rs`.
