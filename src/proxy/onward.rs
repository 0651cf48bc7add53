//! What a request asks its target for: the path and the Host, as they came or as the rule has them.
//! Its fields are of `headers`.

use http::header::HeaderValue;
use http::uri::PathAndQuery;
use http::{Method, Uri, Version, request, uri};

use super::authority::Authority;
use super::reply::Failure;
use super::running::Filters;
use crate::routing::table::Matched;

/// What the target is asked for.
pub(super) struct Onward {
    pub(super) uri: Uri,
    /// None: the target's own authority (the client named none).
    pub(super) host: Option<HeaderValue>,
    /// As the client sent it.
    pub(super) received_host: Option<HeaderValue>,
}

impl Onward {
    /// By this request under that rule.
    pub(super) fn of<T>(
        filters: &Filters<'_>,
        matched: &Matched<'_, T>,
        parts: &request::Parts,
        authority: &Authority<'_>,
    ) -> Result<Onward, Failure> {
        let uri = if filters.rewrite.is_none_or(|rewrite| rewrite.path.is_none()) {
            Uri::from(match parts.uri.path_and_query() {
                // What is empty shows as `/` but is no path (RFC 9113, section 8.3.1).
                Some(same) if same.as_str().starts_with('?') => {
                    path_and_query(format!("/{}", same.as_str()))?
                }
                Some(same) if same.as_str() != "/" => same.clone(),
                _ if asks_the_server(parts) => PathAndQuery::from_static("*"),
                _ => PathAndQuery::from_static("/"),
            })
        } else {
            let text = filters.path(matched, parts.uri.path(), parts.uri.query());
            Uri::from(path_and_query(text)?)
        };
        let received_host = authority.field();
        let rewritten = filters.rewrite.and_then(|rewrite| rewrite.host.as_ref());
        let host = match rewritten {
            Some(host) => Some(HeaderValue::from_str(host).map_err(|_| Failure::Internal)?),
            None => received_host.clone(),
        };
        Ok(Onward { uri, host, received_host })
    }
}

/// Whether it is OPTIONS in absolute form without a path, which the last proxy says otherwise (RFC
/// 9112, section 3.2.4). The URI type puts `/` for what is missing: its own, which does not stand
/// behind the authority in what was read.
fn asks_the_server(parts: &request::Parts) -> bool {
    let path = parts.uri.path().as_ptr();
    let follows =
        |authority: &uri::Authority| authority.as_str().as_bytes().as_ptr_range().end == path;
    parts.method == Method::OPTIONS
        && parts.version < Version::HTTP_2
        && parts.uri.authority().is_some_and(|authority| !follows(authority))
}

fn path_and_query(text: String) -> Result<PathAndQuery, Failure> {
    let long = text.len() >= usize::from(u16::MAX) - 1;
    let failure = if long { Failure::TargetTooLong } else { Failure::Internal };
    PathAndQuery::try_from(text).map_err(|_| failure)
}
