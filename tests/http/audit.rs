//! The audit log: what leaves an entry, what an entry does not hold, that nothing is answered without one, and that
//! tampering shows.

mod append_only;
mod checkpoints;
mod concurrency;
mod entries;
mod export;
mod fails_closed;
mod full_disk;
mod logins;
mod operations;
mod privacy;
mod proofs;
mod repair;
mod rewrites;
mod search;
mod tampering;
mod time_stamp;
mod webhook;
