//! Lets calls in that carry the cluster's token; where there is none, all of them.
//!
//! Invariant: comparing takes the same time whatever the token offered, and no message shows one.

use tonic::service::Interceptor;
use tonic::{Request, Status};

/// Compares tokens.
#[derive(Clone)]
pub(in crate::orchestrator) struct Guard {
    // The hash of the token: `blake3::Hash` compares in constant time, and shows nothing.
    token: Option<blake3::Hash>,
}

impl Guard {
    pub(in crate::orchestrator) fn new(token: Option<&str>) -> Guard {
        Guard { token: token.map(|token| blake3::hash(token.as_bytes())) }
    }

    /// Whether the value of an `authorization` header lets a call in.
    pub(in crate::orchestrator) fn admits(&self, authorization: Option<&[u8]>) -> bool {
        let Some(token) = &self.token else { return true };
        let offered = authorization.and_then(|value| {
            let (scheme, rest) = value.split_at_checked(SCHEME.len())?;
            scheme.eq_ignore_ascii_case(SCHEME).then_some(rest)
        });
        offered.is_some_and(|offered| blake3::hash(offered) == *token)
    }
}

impl Interceptor for Guard {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let offered = request.metadata().get("authorization").map(|value| value.as_bytes());
        if self.admits(offered) {
            Ok(request)
        } else {
            Err(Status::unauthenticated("this orchestrator asks for `authorization: Bearer TOKEN`"))
        }
    }
}

const SCHEME: &[u8] = b"Bearer ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_lets_in() {
        let guard = Guard::new(Some("secret"));
        assert!(guard.admits(Some(b"Bearer secret")));
        assert!(guard.admits(Some(b"bearer secret")));
        for offered in ["secret", "Bearer secre", "Bearer secrets", "Basic secret", "", "Bearer "] {
            assert!(!guard.admits(Some(offered.as_bytes())), "{offered}");
        }
        assert!(!guard.admits(None));
        assert!(Guard::new(None).admits(None));
    }
}
