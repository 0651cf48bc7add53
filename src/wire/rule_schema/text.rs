//! The small grammars of a rule: host names, paths, header names and values, labels.
//!
//! Each takes a text and gives its normal form or the flaw in it; none knows where the text
//! stands. Invariant: a normal form reads back as itself.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::uri::PathAndQuery;

use crate::model::limits::{
    FIELD_VALUE_BYTES, HEADER_NAME_BYTES, HOST_BYTES, LABEL_BYTES, PATH_BYTES,
};
use crate::model::rule::HostPattern;
use crate::wire::rule_problems::{Flaw, ProblemCode, quoted};

/// A host in a URL or a Host header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// Lower case, without trailing dot.
    Name(String),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

impl Host {
    /// Takes a name, an IPv4 address, or an IPv6 address in brackets.
    pub(super) fn parse(text: &str) -> Result<Host, Flaw> {
        let wrong = |why: &str| Flaw::new(format!("{} is not a host: {why}", quoted(text)));
        if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return inner.parse().map(Host::V6).map_err(|_| wrong("no IPv6 address in brackets"));
        }
        if text.matches(':').count() > 1 {
            return Err(wrong("an IPv6 address stands in brackets"));
        }
        if !text.is_ascii() {
            return Err(wrong("only ASCII is taken").hint("write the name in its xn-- form"));
        }
        if let Ok(address) = text.parse() {
            return Ok(Host::V4(address));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name.len() > HOST_BYTES {
            let flaw = Flaw::new(format!("a host name has at most {HOST_BYTES} bytes"));
            return Err(flaw.code(ProblemCode::TooLarge));
        }
        name.split('.').try_for_each(|label| label_of_name(label).map_err(wrong))?;
        // What resolvers take for an address in disguise (0x7f.1, 2130706433) is no name.
        let last = name.rsplit('.').next().unwrap_or_default();
        let hexadecimal =
            last.strip_prefix("0x").is_some_and(|digits| is_all(digits, |b| b.is_ascii_hexdigit()));
        if hexadecimal || is_all(last, |b| b.is_ascii_digit()) {
            return Err(wrong("neither a name nor an IPv4 address"));
        }
        Ok(Host::Name(name))
    }

    /// As it stands in a Host header: IPv6 in brackets.
    pub(super) fn in_authority(&self) -> String {
        match self {
            Host::Name(name) => name.clone(),
            Host::V4(address) => address.to_string(),
            Host::V6(address) => format!("[{address}]"),
        }
    }

    /// As it stands in a target address: IPv6 without brackets.
    pub(super) fn plain(&self) -> String {
        match self {
            Host::V6(address) => address.to_string(),
            other => other.in_authority(),
        }
    }
}

/// Reads a host pattern: a host, or `*.` and a name.
pub(super) fn host_pattern(text: &str) -> Result<HostPattern, Flaw> {
    if text == "*" {
        let flaw = Flaw::new("\"*\" is not a host pattern");
        return Err(flaw.hint("leave hosts out to match any host"));
    }
    let suffix = text.strip_prefix("*.");
    let rest = suffix.unwrap_or(text);
    if rest.contains('*') {
        return Err(Flaw::new(format!("{}: a wildcard is a leading \"*.\"", quoted(text))));
    }
    if let Some((host, port)) = split_port(rest)
        && !port.is_empty()
        && is_all(port, |b| b.is_ascii_digit())
    {
        let star = if suffix.is_some() { "*." } else { "" };
        let flaw = Flaw::new(format!("{}: ports are not matched", quoted(text)));
        return Err(flaw.hint(format!("did you mean {}?", quoted(&format!("{star}{host}")))));
    }
    match (Host::parse(rest)?, suffix) {
        (Host::Name(name), Some(_)) => Ok(HostPattern::Suffix(name)),
        (_, Some(_)) => Err(Flaw::new(format!("{}: a wildcard needs a name", quoted(text)))),
        (host, None) => Ok(HostPattern::Exact(host.in_authority())),
    }
}

/// A host pattern as it is written.
pub(super) fn show_host_pattern(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Suffix(name) => format!("*.{name}"),
    }
}

/// Reads a host with an optional port into the normal form of a Host header.
pub(super) fn authority(text: &str) -> Result<String, Flaw> {
    let Some((host, port)) = split_port(text) else {
        return Ok(Host::parse(text)?.in_authority());
    };
    Ok(format!("{}:{}", Host::parse(host)?.in_authority(), parse_port(port)?))
}

/// Splits a port off, minding the colons of an IPv6 address in brackets.
pub(super) fn split_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    let inside_brackets = port.contains(']');
    let bare_v6 = host.contains(':') && !host.starts_with('[');
    (!inside_brackets && !bare_v6).then_some((host, port))
}

/// Reads a port other than 0.
pub(super) fn parse_port(text: &str) -> Result<u16, Flaw> {
    let plain = is_all(text, |b| b.is_ascii_digit());
    let port = text.parse().ok().filter(|port| plain && *port != 0);
    port.ok_or_else(|| Flaw::new(format!("{} is not a port from 1 to 65535", quoted(text))))
}

/// Reads a path as it stands in a request line, without query.
pub(super) fn path(text: &str) -> Result<String, Flaw> {
    let path = target_path(text)?;
    let wrong = |why: &str| Flaw::new(format!("{} {why}", quoted(text)));
    if path.contains('?') {
        return Err(wrong("holds a \"?\": the query is no part of the path"));
    }
    // As in Gateway API: what clients and proxies normalise away would match by accident.
    let dots = |segment: &str| segment == "." || segment == "..";
    if path.contains("//") || path.split('/').any(dots) {
        return Err(wrong("holds an empty or a dot segment"));
    }
    if path.to_ascii_lowercase().contains("%2f") {
        return Err(wrong("holds an encoded slash"));
    }
    Ok(path)
}

/// Reads a path prefix; a trailing slash says nothing and is dropped.
pub(super) fn prefix(text: &str) -> Result<String, Flaw> {
    let path = path(text)?;
    match path.strip_suffix('/') {
        Some(shorter) if !shorter.is_empty() => Ok(shorter.to_owned()),
        _ => Ok(path),
    }
}

/// Reads a path that may carry a query.
pub(super) fn target_path(text: &str) -> Result<String, Flaw> {
    let wrong = |why: &str| Flaw::new(format!("{} {why}", quoted(text)));
    if text.len() > PATH_BYTES {
        let flaw = Flaw::new(format!("a path has at most {PATH_BYTES} bytes"));
        return Err(flaw.code(ProblemCode::TooLarge));
    }
    if !text.starts_with('/') {
        let flaw = wrong("does not begin with \"/\"");
        return Err(flaw.hint(format!("did you mean {}?", quoted(&format!("/{text}")))));
    }
    if text.contains('#') {
        return Err(wrong("holds a \"#\""));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        let flaw = wrong("holds a space, a control or a non-ASCII character");
        return Err(flaw.hint("write it percent-encoded"));
    }
    // No request line that is understood holds it, so it would match nothing, and reach nobody.
    if PathAndQuery::try_from(text).is_err() {
        let flaw = wrong("holds a character that no path can hold");
        return Err(flaw.hint("write it percent-encoded"));
    }
    Ok(text.to_owned())
}

/// Reads a header name into lower case.
pub(super) fn header_name(text: &str) -> Result<String, Flaw> {
    if text.len() > HEADER_NAME_BYTES {
        let flaw = Flaw::new(format!("a header name has at most {HEADER_NAME_BYTES} bytes"));
        return Err(flaw.code(ProblemCode::TooLarge));
    }
    if is_token(text) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(Flaw::new(format!("{} is not a header name", quoted(text))))
    }
}

/// Reads a header value: visible ASCII, with spaces and tabs only inside.
pub(super) fn header_value(text: &str) -> Result<String, Flaw> {
    let value = bounded_value(text)?;
    let visible = |b: u8| b.is_ascii_graphic() || b == b' ' || b == b'\t';
    if !value.bytes().all(visible) {
        return Err(Flaw::new(format!("{} holds what a header cannot carry", quoted(text))));
    }
    if value.trim_matches([' ', '\t']).len() != value.len() {
        return Err(Flaw::new(format!("{} begins or ends with a space", quoted(text))));
    }
    Ok(value)
}

/// Reads a query parameter's name or value.
pub(super) fn query_part(text: &str) -> Result<String, Flaw> {
    let value = bounded_value(text)?;
    if value.chars().any(char::is_control) {
        return Err(Flaw::new(format!("{} holds a control character", quoted(text))));
    }
    Ok(value)
}

/// Reads a method: an upper-case token.
pub(super) fn method(text: &str) -> Result<String, Flaw> {
    let upper = text.to_ascii_uppercase();
    if !is_token(text) || text.len() > LABEL_BYTES {
        Err(Flaw::new(format!("{} is not a method", quoted(text))))
    } else if upper != text {
        let flaw = Flaw::new(format!("{} is not in upper case", quoted(text)));
        Err(flaw.hint(format!("did you mean \"{upper}\"?")))
    } else {
        Ok(upper)
    }
}

/// Reads a region, or the name of a label.
pub(super) fn label(text: &str) -> Result<String, Flaw> {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
    let fits = text.len() <= LABEL_BYTES
        && edge(text.bytes().next())
        && edge(text.bytes().last())
        && text.bytes().all(inner);
    let wrong = || {
        let detail = format!("{} is not 1 to {LABEL_BYTES} of", quoted(text));
        Flaw::new(format!("{detail} letters, digits and, inside, any of \"-_./\""))
    };
    if fits { Ok(text.to_owned()) } else { Err(wrong()) }
}

/// Whether this is a token of RFC 9110.
pub(super) fn is_token(text: &str) -> bool {
    is_all(text, |b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

fn bounded_value(text: &str) -> Result<String, Flaw> {
    if text.len() > FIELD_VALUE_BYTES {
        let flaw = Flaw::new(format!("a value has at most {FIELD_VALUE_BYTES} bytes"));
        return Err(flaw.code(ProblemCode::TooLarge));
    }
    Ok(text.to_owned())
}

fn label_of_name(label: &str) -> Result<(), &'static str> {
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if label.is_empty() {
        Err("a label is empty")
    } else if label.len() > LABEL_BYTES {
        Err("a label is longer than 63 bytes")
    } else if label.starts_with('-') || label.ends_with('-') {
        Err("a label begins or ends with a hyphen")
    } else if !is_all(label, inner) {
        Err("only letters, digits, hyphens and dots are taken")
    } else {
        Ok(())
    }
}

fn is_all(text: &str, wanted: impl Fn(&u8) -> bool) -> bool {
    !text.is_empty() && text.as_bytes().iter().all(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_patterns_are_normalised() {
        for (text, shown) in [
            ("Shop.Example.COM.", "shop.example.com"),
            ("*.Example.com", "*.example.com"),
            ("10.0.0.1", "10.0.0.1"),
            ("[2001:DB8:0:0::1]", "[2001:db8::1]"),
            ("localhost", "localhost"),
            ("my_service", "my_service"),
        ] {
            let pattern = host_pattern(text).unwrap();
            assert_eq!(show_host_pattern(&pattern), shown);
            assert_eq!(host_pattern(shown).unwrap(), pattern);
        }
        for bad in [
            "",
            "*",
            "*.",
            "a.*.b",
            "*a.b",
            "*.*.b",
            "a..b",
            ".a",
            "-a.b",
            "a-.b",
            "ü.de",
            "a b",
            "a:80",
            "[::1]:80",
            "::1",
            "1.2.3",
            "0x7f.1",
            "*.10.0.0.1",
            "a/b",
            "user@a",
            "[::1",
        ] {
            assert!(host_pattern(bad).is_err(), "{bad}");
        }
        assert!(host_pattern(&format!("{}.de", "a".repeat(64))).is_err());
        assert!(host_pattern(&"a.".repeat(127)).is_ok());
        assert!(host_pattern(&"a.".repeat(128)).is_err());
    }

    #[test]
    fn paths_are_what_requests_can_carry() {
        assert_eq!(prefix("/api/").unwrap(), "/api");
        assert_eq!(prefix("/").unwrap(), "/");
        assert_eq!(path("/api/").unwrap(), "/api/");
        for bad in ["", "api", "/a?b", "/a#b", "/a b", "/ü", "/a//b", "/a/../b", "/.", "/%2Fa"] {
            assert!(path(bad).is_err(), "{bad}");
        }
        for bad in ["/a<b", "/a`b", "/a?b=\"c\"", "/a?b=<c>"] {
            assert!(target_path(bad).is_err(), "{bad}");
        }
        for good in ["/a!$&'()*+,;=:@-._~%20", "/a?b=c/d?e&f=%22", "/{id}", "/a|b"] {
            assert_eq!(target_path(good).unwrap(), good);
        }
    }

    #[test]
    fn authorities_keep_their_port() {
        for (text, shown) in
            [("A.de:8080", "a.de:8080"), ("a.de", "a.de"), ("[::1]:80", "[::1]:80")]
        {
            assert_eq!(authority(text).unwrap(), shown);
        }
        for bad in ["a.de:", "a.de:0", "a.de:65536", "a.de:+1", ":80", "::1:80", "a@b"] {
            assert!(authority(bad).is_err(), "{bad}");
        }
    }
}
