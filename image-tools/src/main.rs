//! Says whether two saved images are the same, and where they are not.

use anyhow::Context;
use clap::Parser;
use image_tools::{Image, compare, compare_files};
use std::io::{Write, stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Says whether two images are the same, and where they are not.
///
/// Exit 0: the same; 1: not the same; 2: it cannot be told, and why.
#[derive(Parser)]
#[command(name = "compare-images", version)]
struct Arguments {
    /// An archive of `docker save` or `podman save`, compressed or not
    one: PathBuf,
    /// Another
    other: PathBuf,
    /// Compare the files alone, for images of unlike builders
    #[arg(long)]
    files: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            // Where this cannot be written either, the exit code says it.
            let _ = writeln!(stderr(), "compare-images: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let open = |path: &Path| Image::open(path).with_context(|| path.display().to_string());
    let (one, other) = (open(&arguments.one)?, open(&arguments.other)?);
    let comparison = if arguments.files { compare_files(&one, &other) } else { compare(&one, &other) };
    writeln!(stdout(), "{comparison}").context("cannot write the result")?;
    Ok(comparison.is_same())
}
