//! Writes the shell completions and the man pages of bulkhead's command line into a folder:
//! `cargo run --package cli-docs -- FOLDER`.
//!
//! A program of its own, so that the server's binary has no part in it.

use anyhow::{Context, anyhow};
use bulkhead::cli;
use clap_complete::{Shell, generate_to};
use std::fs;
use std::path::{Path, PathBuf};

/// The shells, by the folder of each.
const SHELLS: [(&str, Shell); 3] = [("bash", Shell::Bash), ("fish", Shell::Fish), ("zsh", Shell::Zsh)];

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).ok_or_else(|| anyhow!("usage: cli-docs FOLDER"))?;
    write(&folder).with_context(|| format!("cannot write to {}", folder.display()))
}

/// A folder for each shell, and `man1`.
fn write(folder: &Path) -> anyhow::Result<()> {
    for (name, shell) in SHELLS {
        let folder = folder.join(name);
        fs::create_dir_all(&folder)?;
        generate_to(shell, &mut cli::command(), "bulkhead", folder)?;
    }
    let pages = folder.join("man1");
    fs::create_dir_all(&pages)?;
    clap_mangen::generate_to(cli::command(), pages)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Command;
    use std::process::Command as Process;

    /// The names of the pages of a command and of all below it.
    fn pages(command: &Command, name: &str) -> Vec<String> {
        let below = command.get_subcommands().filter(|below| !below.is_hide_set());
        let below = below.flat_map(|below| pages(below, &format!("{name}-{}", below.get_name())));
        [format!("{name}.1")].into_iter().chain(below).collect()
    }

    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        let expected = pages(&cli::command(), "bulkhead");
        assert!(expected.contains(&"bulkhead-migrate-up.1".to_owned()), "{expected:?}");
        for page in expected {
            let text = fs::read_to_string(folder.path().join("man1").join(&page)).unwrap_or_default();
            for part in [".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION"] {
                assert!(text.contains(part), "{page} lacks {part}");
            }
        }
    }

    #[test]
    fn shells_complete_commands_and_options() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        for file in ["fish/bulkhead.fish", "zsh/_bulkhead"] {
            let text = fs::read_to_string(folder.path().join(file)).unwrap();
            assert!(text.contains("dev-token") && text.contains("external-id"), "{file}");
        }
        let script = folder.path().join("bash/bulkhead.bash");
        for (words, completed) in [
            ("bulkhead migr", "migrate"),
            ("bulkhead migrate pl", "plan"),
            ("bulkhead openapi --as", "--as"),
            ("bulkhead openapi --as 3.", "3.0 3.1"),
        ] {
            // What bash does when somebody presses Tab (bash(1), "Programmable Completion").
            let ask = format!(
                "source \"$1\"; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
                 _bulkhead bulkhead \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD - 1]}}\"; echo \"${{COMPREPLY[*]}}\""
            );
            let asked = Process::new("bash").args(["-c", &ask, "bash"]).arg(&script).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&asked.stdout).trim(), completed, "{words}: {asked:?}");
        }
    }
}
