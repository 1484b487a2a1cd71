//! Tokens, e-mail addresses, and user and password of URLs.

use super::normalize::CONTROL;
use super::{Match, compile};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use regex::bytes::Regex;
use std::sync::LazyLock;

static BEARER: LazyLock<Regex> = LazyLock::new(|| compile(r#"(?i-u)bearer[\s\x01+]{1,8}([^\s"\\&;,\x02]+)"#));
/// What stands before a user and a password in base64 (RFC 7617).
static BASIC: LazyLock<Regex> = LazyLock::new(|| compile(r"(?i-u)basic[\s\x01+]{1,8}"));
/// A JSON object in base64url: the parts of a JWT begin with one (RFC 7519).
static JWT: LazyLock<Regex> = LazyLock::new(|| compile(r"(?-u)eyJ[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)*"));

/// Finds tokens, e-mail addresses, and user and password of URLs.
pub(super) fn find(line: &[u8], matches: &mut Vec<Match>) {
    matches.extend(BEARER.captures_iter(line).filter_map(|groups| Some(Match::new(groups.get(1)?.range()))));
    find_users_and_passwords(line, matches);
    matches.extend(JWT.find_iter(line).map(|jwt| Match::new(jwt.range())));
    find_addresses(line, matches);
}

/// How much base64 is decoded to find the end of a user's name, in characters: a bound, so that a line of nothing but the scheme's name takes
/// no longer than others.
const LONGEST_USER: usize = 512;

/// Takes what a log's line may have cut anywhere: without padding, or with bits that belong to no byte.
const CUT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// Finds base64 after `Basic`. Any word may follow it in prose, so it must hold a user and a password.
fn find_users_and_passwords(line: &[u8], matches: &mut Vec<Match>) {
    let mut from = 0;
    while let Some(scheme) = BASIC.find_at(line, from) {
        let rest = &line[scheme.end()..];
        from = scheme.end();
        if holds_user_and_password(rest) {
            let length = rest.iter().take_while(|byte| is_base64(**byte)).count();
            let padding = rest[length..].iter().take(2).take_while(|byte| **byte == b'=').count();
            from += length + padding;
            matches.push(Match::new(scheme.end()..from));
        }
    }
}

/// Whether the base64 at the beginning decodes to a text without control characters as far as to a colon (RFC 7617, section 2). What
/// follows, and whether it is whole and padded, does not matter: a log's line may be cut.
fn holds_user_and_password(text: &[u8]) -> bool {
    let mut code = [0; LONGEST_USER];
    let mut length = 0;
    for (place, byte) in code.iter_mut().zip(text.iter().take_while(|byte| is_base64(**byte))) {
        // The alphabet of URLs has two others (RFC 4648, section 5).
        *place = match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => *other,
        };
        length += 1;
    }
    // One character behind the last four is not a whole byte yet.
    if length % 4 == 1 {
        length -= 1;
    }
    let mut decoded = [0; LONGEST_USER];
    let Ok(count) = CUT.decode_slice(&code[..length], &mut decoded) else { return false };
    let end = decoded[..count].iter().position(|byte| *byte == b':' || byte.is_ascii_control());
    end.is_some_and(|end| decoded[end] == b':')
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte)
}

/// Finds e-mail addresses, and user and password of URLs.
fn find_addresses(line: &[u8], matches: &mut Vec<Match>) {
    let local = |byte: &u8| byte.is_ascii_alphanumeric() || b"._%+-'~!#$*".contains(byte) || !byte.is_ascii();
    let domain = |byte: &u8| byte.is_ascii_alphanumeric() || b".-".contains(byte) || !byte.is_ascii();
    let user = |byte: &u8| !(byte.is_ascii_whitespace() || b"/?#\"\\<>".contains(byte) || *byte == CONTROL);
    let (mut from, mut of_url) = (0, false);
    for at in line.iter().enumerate().filter(|(_, byte)| **byte == b'@').map(|(at, _)| at) {
        let before = &line[from..at];
        let length = before.iter().rev().take_while(|byte| user(byte)).count();
        // A password may contain an @ too.
        of_url =
            if length == before.len() && from > 0 { of_url } else { before[..before.len() - length].ends_with(b"://") };
        if of_url {
            if length > 0 && &before[before.len() - length..] != b"***" {
                matches.push(Match::new(at - length..at));
            }
        } else {
            let name = before.iter().rev().take_while(|byte| local(byte)).count();
            let host = line[at + 1..].iter().take_while(|byte| domain(byte)).count();
            let host = line[at + 1..at + 1 + host].trim_ascii_end();
            let host = host.iter().rposition(|byte| *byte != b'.').map_or(&host[..0], |last| &host[..=last]);
            if name > 0 && host.contains(&b'.') {
                matches.push(Match::new(at - name..at + 1 + host.len()));
            }
        }
        from = at + 1;
    }
}
