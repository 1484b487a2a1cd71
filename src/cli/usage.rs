//! Errors of the command line, one line each.

use clap::Error;
use clap::error::ErrorKind;
use std::process::ExitCode;

/// A number of things of which there must be one.
pub(super) fn one_or_more(text: &str) -> Result<u32, &'static str> {
    text.parse().ok().filter(|number| *number > 0).ok_or("must be a whole number of 1 or more")
}

/// Says what is wrong with the command line, or prints the help or version that was asked for.
pub(super) fn report(error: &Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // A reader that has gone is no error, as for clap itself.
            let _ = error.print();
        }
        _ => eprintln!("{}", line(&error.render().to_string())),
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1))
}

/// The error as one line, with the command whose help says more. clap's text is a paragraph with the error, others with tips,
/// and one with the usage.
fn line(text: &str) -> String {
    let (error, usage) = text.split_once("Usage: ").unwrap_or((text, "bulkhead"));
    let error = error.strip_prefix("error: ").unwrap_or(error);
    let error = error.split("\n\nFor more information").next().unwrap_or_default();
    let paragraphs = error.split("\n\n").map(paragraph).filter(|text| !text.is_empty());
    let error = paragraphs.collect::<Vec<_>>().join("; ");
    let command = usage.split_whitespace().take_while(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
    let command = command.take_while(|word| !word.starts_with('-')).collect::<Vec<_>>().join(" ");
    format!("{error}: see {command} --help")
}

/// A list, such as of arguments that are missing, is indented below the line that ends with a colon.
fn paragraph(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.split_first() {
        Some((first, rest)) if first.ends_with(':') => format!("{first} {}", rest.join(", ")),
        _ => lines.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn paragraphs_become_one_line() {
        let cases = [
            (
                "error: unrecognized subcommand 'strat'\n\n  tip: a similar subcommand exists: 'start'\n\n\
                 Usage: bulkhead [COMMAND]\n\nFor more information, try '--help'.\n",
                "unrecognized subcommand 'strat'; tip: a similar subcommand exists: 'start': see bulkhead --help",
            ),
            (
                "error: the following required arguments were not provided:\n  --name <NAME>\n  --external-id <ID>\n\n\
                 Usage: bulkhead tenant create --name <NAME> --external-id <ID>\n\nFor more information, try '--help'.\n",
                "the following required arguments were not provided: --name <NAME>, --external-id <ID>: \
                 see bulkhead tenant create --help",
            ),
            (
                "error: invalid value 'x' for '--num <N>': must be a number\n\nFor more information, try '--help'.\n",
                "invalid value 'x' for '--num <N>': must be a number: see bulkhead --help",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(line(text), expected);
        }
    }
}
