//! Tokens, e-mail addresses, and user and password of URLs.

use super::normalize::CONTROL;
use super::{Match, compile};
use regex::bytes::Regex;
use std::sync::LazyLock;

static BEARER: LazyLock<Regex> = LazyLock::new(|| compile(r#"(?i-u)bearer[\s\x01+]{1,8}([^\s"\\&;,\x02]+)"#));
/// A user and a password in base64 (RFC 7617).
static BASIC: LazyLock<Regex> = LazyLock::new(|| compile(r"(?i-u)basic[\s\x01+]{1,8}([A-Za-z0-9+/_-]{8,}={0,2})"));
/// A JSON object in base64url: the parts of a JWT begin with one (RFC 7519).
static JWT: LazyLock<Regex> = LazyLock::new(|| compile(r"(?-u)eyJ[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)*"));

/// Finds tokens, e-mail addresses, and user and password of URLs.
pub(super) fn find(line: &[u8], matches: &mut Vec<Match>) {
    matches.extend(BEARER.captures_iter(line).filter_map(|groups| Some(Match::new(groups.get(1)?.range()))));
    matches.extend(BASIC.captures_iter(line).filter_map(|groups| Some(Match::new(groups.get(1)?.range()))));
    matches.extend(JWT.find_iter(line).map(|jwt| Match::new(jwt.range())));
    find_addresses(line, matches);
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
