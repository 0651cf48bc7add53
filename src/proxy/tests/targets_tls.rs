//! Targets behind TLS: who they are is verified, and the protocol is agreed on.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::bed::{Bed, PATIENCE, Setup, field, forward_by, read_until, status, with_runtime};
use super::http2::connect;
use super::secure::write;
use super::tunnels::{agreement, extended};
use crate::model::rule::{Action, Rule, Scheme};
use crate::proxy::target_tls::TargetTls;

/// An origin behind TLS that tells the heads it receives; it speaks HTTP/1.1, whatever it offers.
struct Origin {
    address: SocketAddr,
    heads: Receiver<String>,
}

impl Origin {
    fn start(config: ServerConfig) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (said, heads) = channel();
        let config = Arc::new(config);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (said, config) = (said.clone(), config.clone());
                std::thread::spawn(move || {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    let connection = ServerConnection::new(config).unwrap();
                    let mut stream = StreamOwned::new(connection, stream);
                    while let Some(head) = read_until(&mut stream, "\r\n\r\n") {
                        let upgrade = field(&head, "upgrade").is_some();
                        let _ = said.send(head);
                        let answer = if upgrade {
                            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                             upgrade: websocket\r\n\r\nhello"
                        } else {
                            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
                        };
                        if stream.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Origin { address, heads }
    }

    /// Named, so that there is a name to verify.
    fn rule(&self, host: &str) -> Rule {
        let mut rule = forward_by(Scheme::Https, &[self.address]);
        if let Action::Forward(targets) = &mut rule.action {
            targets[0].address.host = host.to_string();
        }
        rule
    }
}

fn serving(certificate: &Path, asking: Option<&Path>, alpn: &[&str]) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = match asking {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(path).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(certificate).unwrap();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config
}

fn bed(rule: Rule, authorities: &[PathBuf], identity: Option<&Path>) -> Bed {
    let target_tls = Arc::new(TargetTls::new(authorities, identity).unwrap());
    Bed::set_up(rule, Setup { target_tls, ..Setup::default() })
}

#[test]
fn a_target_is_who_its_certificate_says_or_it_is_not_spoken_to() {
    let directory = tempfile::tempdir().unwrap();
    let at = |file: &str| directory.path().join(file);
    write(directory.path(), "here.pem", &["localhost", "127.0.0.1"], false);
    write(directory.path(), "other.pem", &["elsewhere.example"], false);
    let here = [at("here.pem")];
    let good = Origin::start(serving(&here[0], None, &["http/1.1"]));
    for host in ["localhost", "127.0.0.1"] {
        let bed = bed(good.rule(host), &here, None);
        for _ in 0..2 {
            assert_eq!(status(&bed.get()), 200, "{host}");
            assert_eq!(field(&good.heads.recv_timeout(PATIENCE).unwrap(), "host"), Some("a"));
        }
    }
    // An authority that nobody believes, and a name that is not the target's.
    let impostor = Origin::start(serving(&at("other.pem"), None, &[]));
    for (rule, believed) in [
        (good.rule("localhost"), vec![]),
        (good.rule("localhost"), vec![at("other.pem")]),
        (impostor.rule("localhost"), vec![at("other.pem")]),
    ] {
        let answer = bed(rule, &believed, None).get();
        assert_eq!(status(&answer), 502, "{answer}");
        assert!(answer.contains("error=tls_certificate_error"), "RFC 9209 2.3.16: {answer}");
    }
    assert!(good.heads.try_recv().is_err() && impostor.heads.try_recv().is_err());
}

/// A target of one connection, which does this once a head is there; and the files to believe.
fn once<T: Send + 'static>(
    directory: &Path,
    does: fn(&mut StreamOwned<ServerConnection, TcpStream>, &str) -> T,
) -> (Origin, [PathBuf; 1], JoinHandle<T>) {
    write(directory, "here.pem", &["localhost"], false);
    let here = [directory.join("here.pem")];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = Arc::new(serving(&here[0], None, &["http/1.1"]));
    let origin = Origin { address: listener.local_addr().unwrap(), heads: channel().1 };
    let target = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
        let head = read_until(&mut stream, "\r\n\r\n").unwrap();
        does(&mut stream, &head)
    });
    (origin, here, target)
}

#[test]
fn a_connection_to_a_target_ends_with_a_word() {
    let directory = tempfile::tempdir().unwrap();
    let (origin, here, target) = once(directory.path(), |stream, _| {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
        stream.write_all(answer.as_bytes()).unwrap();
        // An end without a word is an error to rustls.
        stream.read(&mut [0])
    });
    let bed = bed(origin.rule("localhost"), &here, None);
    assert_eq!(status(&bed.get()), 200);
    assert_eq!(target.join().unwrap().unwrap(), 0, "RFC 9112 9.8");
}

#[test]
fn a_tunnel_to_a_target_that_its_client_gives_up_ends_without_a_word() {
    let directory = tempfile::tempdir().unwrap();
    let (origin, here, target) = once(directory.path(), |stream, head| {
        stream.write_all(agreement(head).as_bytes()).unwrap();
        stream.read(&mut [0]).map_err(|error| error.kind())
    });
    let bed = bed(origin.rule("localhost"), &here, None);
    with_runtime(async {
        let sender = connect(&bed, &h2::client::Builder::new()).await;
        let mut sender = sender.ready().await.unwrap();
        while !sender.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
        let (answer, mut up) = sender.send_request(extended("/", "websocket"), false).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
        up.send_reset(h2::Reason::CANCEL);
        let heard = tokio::task::spawn_blocking(|| target.join().unwrap()).await.unwrap();
        assert_eq!(heard, Err(std::io::ErrorKind::ConnectionReset), "no close_notify");
    });
}

#[test]
fn a_target_that_asks_who_this_node_is_gets_an_answer() {
    let directory = tempfile::tempdir().unwrap();
    let at = |file: &str| directory.path().join(file);
    write(directory.path(), "here.pem", &["localhost"], false);
    write(directory.path(), "node.pem", &["node.example"], false);
    let here = [at("here.pem")];
    let node = at("node.pem");
    let origin = Origin::start(serving(&here[0], Some(&node), &[]));
    assert_eq!(status(&bed(origin.rule("localhost"), &here, Some(&node)).get()), 200);
    let answer = bed(origin.rule("localhost"), &here, None).get();
    assert_eq!(status(&answer), 502, "{answer}");
}

#[test]
fn a_target_that_speaks_no_tls_is_a_502() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let bed = Bed::start(forward_by(Scheme::Https, &[listener.local_addr().unwrap()]));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            let _ = stream.read(&mut [0; 1024]);
        }
    });
    let answer = bed.get();
    assert_eq!(status(&answer), 502, "{answer}");
    assert!(answer.contains("error=tls_protocol_error"), "RFC 9209 2.3.15: {answer}");
}

#[test]
fn a_websocket_takes_http1_where_the_target_could_do_more() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "here.pem", &["localhost"], false);
    let here = [directory.path().join("here.pem")];
    // It would speak HTTP/2 with everybody who offers it, and could not.
    let origin = Origin::start(serving(&here[0], None, &["h2", "http/1.1"]));
    let bed = bed(origin.rule("localhost"), &here, None);
    let mut client = bed.client();
    let ask = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    client.write_all(ask.as_bytes()).unwrap();
    let head = read_until(&mut BufReader::new(&mut client).by_ref(), "hello").unwrap();
    assert_eq!(status(&head), 101, "{head}");
}

#[test]
fn http2_is_agreed_on_with_targets() {
    use super::bed::with_runtime as run;
    use super::targets::fine;
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "here.pem", &["localhost"], false);
    let here = [directory.path().join("here.pem")];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor =
        tokio_rustls::TlsAcceptor::from(Arc::new(serving(&here[0], None, &["h2", "http/1.1"])));
    let (said, seen) = channel();
    std::thread::spawn(move || {
        run(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, said) = (acceptor.clone(), said.clone());
                tokio::spawn(async move {
                    let stream = acceptor.accept(stream).await.unwrap();
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        let _ = said.send(request.uri().to_string());
                        tokio::spawn(fine(0, request, respond));
                    }
                });
            }
        });
    });
    let mut rule = forward_by(Scheme::Https, &[address]);
    if let Action::Forward(targets) = &mut rule.action {
        targets[0].address.host = "localhost".to_string();
    }
    let bed = bed(rule, &here, None);
    for _ in 0..3 {
        let answer = bed.raw("GET /x HTTP/1.0\r\n\r\n");
        assert_eq!(status(&answer), 200, "{answer}");
        let uri = seen.recv_timeout(PATIENCE).unwrap();
        assert_eq!(uri, format!("https://localhost:{}/x", address.port()), "RFC 9113 8.3.1");
    }
}
