//! Tokens, e-mail addresses, and user and password of URLs.

use super::normalize::CONTROL;
use super::{Match, compile};
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

/// The longest name of a user that is looked for, in characters of base64: a bound, so that a line of nothing but the scheme's name
/// takes no longer than others.
const LONGEST_USER: usize = 512;

/// Finds base64 after `Basic`. Any word may follow it in prose, so it must hold a user and a password.
fn find_users_and_passwords(line: &[u8], matches: &mut Vec<Match>) {
    let mut from = 0;
    while let Some(scheme) = BASIC.find_at(line, from) {
        let rest = &line[scheme.end()..];
        from = scheme.end();
        if holds_user_and_password(rest) {
            let length = rest.iter().take_while(|byte| sextet(**byte).is_some()).count();
            let padding = rest[length..].iter().take(2).take_while(|byte| **byte == b'=').count();
            from += length + padding;
            matches.push(Match::new(scheme.end()..from));
        }
    }
}

/// Whether the base64 at the beginning decodes to a text without control characters as far as to a colon (RFC 7617, section 2). What
/// follows, and whether it is whole and padded, does not matter: a log's line may be cut.
fn holds_user_and_password(text: &[u8]) -> bool {
    let (mut bits, mut count) = (0_u32, 0);
    for value in text.iter().take(LONGEST_USER).map_while(|byte| sextet(*byte)) {
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            match (bits >> count) & 0xff {
                0x3a => return true,
                0..0x20 | 0x7f => return false,
                _ => {}
            }
        }
    }
    false
}

/// The six bits of a character of base64, in the alphabet of URLs, too (RFC 4648, sections 4 and 5).
fn sextet(character: u8) -> Option<u8> {
    Some(match character {
        b'A'..=b'Z' => character - b'A',
        b'a'..=b'z' => character - b'a' + 26,
        b'0'..=b'9' => character - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    })
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
