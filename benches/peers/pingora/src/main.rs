//! Pingora in front of one origin, in one thread, with nothing logged: for `tradewind bench proxy`.
//!
//! pingora-bench LISTEN TLS_LISTEN CERTIFICATE KEY ORIGIN

use std::error::Error;
use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::http::RequestHeader;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::upstreams::peer::HttpPeer;

/// Every request goes to the same place.
struct ToOrigin(SocketAddr);

#[async_trait]
impl ProxyHttp for ToOrigin {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        _ctx: &mut (),
    ) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }

    /// What the other proxies say of the client, too.
    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        _ctx: &mut (),
    ) -> pingora::Result<()> {
        let client = session.client_addr().and_then(|address| address.as_inet());
        match client {
            Some(address) => request.insert_header("X-Forwarded-For", address.ip().to_string()),
            None => Ok(()),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, tls_listen, certificate, key, origin] = arguments.as_slice() else {
        return Err("pingora-bench LISTEN TLS_LISTEN CERTIFICATE KEY ORIGIN".into());
    };
    let mut server = Server::new(None)?;
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, ToOrigin(origin.parse()?));
    service.add_tcp(listen);
    service.add_tls(tls_listen, certificate, key)?;
    server.add_service(service);
    server.run_forever()
}
