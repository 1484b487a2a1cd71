//! What commands print: aligned text for people, JSON Lines for programs.

use super::Failure;
use anyhow::anyhow;
use serde::Serialize;
use std::io::{self, BufWriter, Write};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Prints rows below their heads, each column as wide as its widest cell.
pub(super) fn print_table<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> Result<(), Failure> {
    let width = |at: usize| {
        let cells = rows.iter().map(|row| row[at].chars().count());
        cells.chain([heads[at].chars().count()]).max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    print(|output| {
        for row in std::iter::once(&heads.map(str::to_owned)).chain(rows) {
            let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            writeln!(output, "{}", cells.join("  ").trim_end())?;
        }
        Ok(())
    })
}

/// Prints a JSON object a line.
pub(super) fn print_json<T: Serialize>(rows: impl IntoIterator<Item = T>) -> Result<(), Failure> {
    print(|output| {
        for row in rows {
            serde_json::to_writer(&mut *output, &row)?;
            output.write_all(b"\n")?;
        }
        Ok(())
    })
}

/// Prints one line, such as what was done.
pub(super) fn print_line(line: &str) -> Result<(), Failure> {
    print(|output| writeln!(output, "{line}"))
}

fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut output = BufWriter::new(io::stdout().lock());
    let done = write(&mut output).and_then(|()| output.flush());
    done.map_err(|error| anyhow!("cannot write to standard output: {error}").into())
}

/// RFC 3339, to the second; `-` where there is no time.
pub(super) fn moment(at: Option<OffsetDateTime>) -> String {
    let text = at.and_then(|at| at.replace_nanosecond(0).ok()?.format(&Rfc3339).ok());
    text.unwrap_or_else(|| "-".to_owned())
}
