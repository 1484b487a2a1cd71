//! Parses the command line and runs it; nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead::cli::run(bulkhead_migration::migrations())
}
