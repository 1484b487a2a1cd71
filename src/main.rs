//! Parses the command line and runs it; nothing else.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead::cli::Cli::parse().run(bulkhead_migration::migrations())
}
