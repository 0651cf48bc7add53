//! TLS with clients: who we are to whom, what belongs on which connection, and renewal.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use super::bed::{
    Bed, Origin, PATIENCE, Setup, block_on, eventually, field, forward, ok, read_all, read_until,
    status, with_runtime,
};
use super::http2::{ask, get, whole};
use crate::model::rule::{Action, Redirect};
use crate::proxy::certificates::Certificates;
use crate::proxy::listener::Bounds;

/// Writes a new certificate with its key; the key stands in the same file or beside it.
pub(super) fn write(
    directory: &Path,
    file: &str,
    names: &[&str],
    beside: bool,
) -> CertificateDer<'static> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let path = directory.join(file);
    if beside {
        std::fs::write(path.with_extension("key"), key).unwrap();
        std::fs::write(path, chain).unwrap();
    } else {
        std::fs::write(path, format!("{key}{chain}")).unwrap();
    }
    made.cert.der().clone()
}

/// Three certificates in a directory, in the order of their files.
pub(super) struct Wardrobe {
    directory: TempDir,
    shown: [CertificateDer<'static>; 3],
    pub(super) certificates: Arc<Certificates>,
}

impl Wardrobe {
    pub(super) fn new() -> Wardrobe {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let shown = [
            write(at, "0-first.pem", &["first.example"], false),
            write(at, "1-shop.crt", &["Shop.example", "*.shop.example"], true),
            write(at, "2-blog.pem", &["blog.example"], false),
        ];
        let certificates = Certificates::read(vec![at.to_path_buf()]).unwrap();
        Wardrobe { directory, shown, certificates: Arc::new(certificates) }
    }

    fn bed(&self, origin: &Origin) -> Bed {
        self.bed_within(origin, Bounds::default())
    }

    fn bed_within(&self, origin: &Origin, bounds: Bounds) -> Bed {
        let certificates = Some(self.certificates.clone());
        let setup = Setup { bounds, certificates, ..Setup::default() };
        Bed::set_up(forward(&[origin.address]), setup)
    }

    pub(super) fn client(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        client(&self.shown, alpn)
    }
}

pub(super) fn client(roots: &[CertificateDer<'static>], alpn: &[&str]) -> Arc<ClientConfig> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(store).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

pub(super) type Stream = StreamOwned<ClientConnection, TcpStream>;

fn connect(bed: &Bed, config: Arc<ClientConfig>, name: &str) -> Stream {
    let name = ServerName::try_from(name.to_string()).unwrap();
    let mut stream = StreamOwned::new(ClientConnection::new(config, name).unwrap(), bed.client());
    stream.conn.complete_io(&mut stream.sock).unwrap();
    stream
}

/// One exchange on a connection that stays.
fn exchange(stream: &mut Stream, host: &str) -> String {
    stream.write_all(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).unwrap();
    let head = read_until(stream, "\r\n\r\n").unwrap();
    let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    head
}

fn shown(stream: &Stream) -> CertificateDer<'static> {
    stream.conn.peer_certificates().unwrap()[0].clone()
}

#[test]
fn requests_over_tls_are_served_like_others() {
    let origin = Origin::start(ok);
    let wardrobe = Wardrobe::new();
    let bed = wardrobe.bed(&origin);
    for alpn in [&[][..], &["http/1.1"], &["http/1.1", "h2"]] {
        // The order is the server's to choose; who offers h2 gets it.
        let mut stream = connect(&bed, wardrobe.client(alpn), "shop.example");
        if alpn.contains(&"h2") {
            assert_eq!(stream.conn.alpn_protocol(), Some(&b"h2"[..]));
            continue;
        }
        for _ in 0..2 {
            assert_eq!(status(&exchange(&mut stream, "shop.example")), 200);
            let (_, head) = origin.next();
            assert_eq!(field(&head, "x-forwarded-proto"), Some("https"), "{head}");
        }
    }
}

#[test]
fn http2_is_agreed_on_and_spoken() {
    let origin = Origin::start(ok);
    let wardrobe = Wardrobe::new();
    let bed = wardrobe.bed(&origin);
    with_runtime(async {
        let stream = tokio::net::TcpStream::connect(bed.proxy.addresses()[0]).await.unwrap();
        let name = ServerName::try_from("shop.example").unwrap();
        let connector = tokio_rustls::TlsConnector::from(wardrobe.client(&["h2", "http/1.1"]));
        let stream = connector.connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let answer = ask(&sender, get("https://a.shop.example/")).await.unwrap();
        assert_eq!(whole(answer.into_body()).await.unwrap().0, "ok");
        let answer = ask(&sender, get("https://blog.example/")).await.unwrap();
        assert_eq!(answer.status(), 421, "RFC 9110 15.5.20");
    });
    assert_eq!(field(&origin.next().1, "x-forwarded-proto"), Some("https"));
    assert!(origin.is_left_alone());
}

#[test]
fn http2_is_not_spoken_over_tls_that_agreed_on_something_else() {
    let origin = Origin::start(ok);
    let wardrobe = Wardrobe::new();
    let bed = wardrobe.bed(&origin);
    for alpn in [&[][..], &["http/1.1"]] {
        let mut stream = connect(&bed, wardrobe.client(alpn), "shop.example");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        assert_eq!(read_all(&mut stream), "", "RFC 9113 3.3");
    }
    assert!(origin.is_left_alone());
}

#[test]
fn the_name_that_is_asked_for_chooses_the_certificate() {
    let origin = Origin::start(ok);
    let wardrobe = Wardrobe::new();
    let bed = wardrobe.bed(&origin);
    for (name, index) in
        [("first.example", 0), ("shop.example", 1), ("a.SHOP.example", 1), ("blog.example", 2)]
    {
        let stream = connect(&bed, wardrobe.client(&[]), name);
        assert_eq!(shown(&stream), wardrobe.shown[index], "{name}");
    }
    // Nobody is shown the wrong certificate and takes it.
    for name in ["other.example", "a.b.shop.example", "127.0.0.1"] {
        let name = ServerName::try_from(name.to_string()).unwrap();
        let connection = ClientConnection::new(wardrobe.client(&[]), name.clone()).unwrap();
        let mut stream = StreamOwned::new(connection, bed.client());
        let refused = stream.conn.complete_io(&mut stream.sock).unwrap_err();
        assert!(refused.to_string().contains("not valid for name"), "{name:?}: {refused}");
    }
}

#[test]
fn a_request_for_another_certificates_host_is_misdirected() {
    let origin = Origin::start(ok);
    let wardrobe = Wardrobe::new();
    let bed = wardrobe.bed(&origin);
    let mut shop = connect(&bed, wardrobe.client(&[]), "shop.example");
    for (host, code) in [
        ("shop.example", 200),
        ("A.Shop.Example:443", 200),
        ("a.b.shop.example", 421),
        ("blog.example", 421),
        ("elsewhere.example", 421),
        ("shop.example", 200),
    ] {
        assert_eq!(status(&exchange(&mut shop, host)), code, "RFC 9110 15.5.20: {host}");
    }
    for _ in 0..3 {
        origin.next();
    }
    assert!(origin.is_left_alone());
    // Whoever names nobody gets the first certificate, and what no other is for.
    let mut config = Arc::unwrap_or_clone(wardrobe.client(&[]));
    config.enable_sni = false;
    let mut nameless = connect(&bed, Arc::new(config), "first.example");
    for (host, code) in [("first.example", 200), ("elsewhere.example", 200), ("blog.example", 421)]
    {
        assert_eq!(status(&exchange(&mut nameless, host)), code, "{host}");
    }
}

#[test]
fn certificates_are_renewed_without_dropping_a_connection() {
    let origin = Origin::start(ok);
    let mut wardrobe = Wardrobe::new();
    let bed = wardrobe.bed(&origin);
    let mut before = connect(&bed, wardrobe.client(&[]), "shop.example");
    let directory = wardrobe.directory.path();
    assert!(!wardrobe.certificates.reload().unwrap(), "nothing has changed");
    // Half of a renewal: the chain is new, the key is not.
    let old = std::fs::read(directory.join("1-shop.key")).unwrap();
    let new = write(directory, "1-shop.crt", &["shop.example"], true);
    let key = std::fs::read(directory.join("1-shop.key")).unwrap();
    std::fs::write(directory.join("1-shop.key"), old).unwrap();
    let refused = wardrobe.certificates.reload().unwrap_err().to_string();
    assert!(refused.contains("1-shop.crt"), "{refused}");
    let still = connect(&bed, wardrobe.client(&[]), "shop.example");
    assert_eq!(shown(&still), wardrobe.shown[1], "the last good ones stay");
    // The other half.
    std::fs::write(directory.join("1-shop.key"), key).unwrap();
    assert!(wardrobe.certificates.reload().unwrap());
    wardrobe.shown[1] = new;
    let mut after = connect(&bed, wardrobe.client(&[]), "shop.example");
    assert_eq!(shown(&after), wardrobe.shown[1]);
    assert_eq!(status(&exchange(&mut after, "shop.example")), 200);
    assert_eq!(status(&exchange(&mut before, "a.shop.example")), 200, "as it was shown");
    std::fs::remove_dir_all(directory).unwrap();
    assert!(wardrobe.certificates.reload().is_err());
    assert_eq!(status(&exchange(&mut after, "shop.example")), 200);
}

#[test]
fn who_does_not_come_to_terms_is_let_go() {
    let origin = Origin::start(ok);
    let wardrobe = Wardrobe::new();
    let bounds = Bounds { handshake: Duration::from_millis(200), ..Bounds::default() };
    let bed = wardrobe.bed_within(&origin, bounds);
    let mut silent = bed.client();
    let mut slow = bed.client();
    slow.write_all(&[22, 3, 1, 1, 0]).unwrap();
    let stranger = connect(&bed, wardrobe.client(&["h2"]), "shop.example");
    assert!(read_all(&mut silent).is_empty());
    assert!(!read_all(&mut slow).contains("HTTP"));
    let answer = bed.raw("GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n");
    assert!(!answer.contains("HTTP"), "clear text is not served here: {answer}");
    stranger.sock.shutdown(std::net::Shutdown::Both).unwrap();
    let name = ServerName::try_from("shop.example").unwrap();
    let connection = ClientConnection::new(wardrobe.client(&["spdy/3"]), name).unwrap();
    let mut odd = StreamOwned::new(connection, bed.client());
    assert!(odd.conn.complete_io(&mut odd.sock).is_err(), "RFC 7301 3.2: nothing in common");
    eventually("nothing is left of them", || {
        bed.metrics.connections.load(std::sync::atomic::Ordering::Relaxed) == 0
    });
    assert!(origin.is_left_alone());
}

#[test]
fn a_websocket_goes_through_tls() {
    fn agree(_: &str, stream: &mut TcpStream) -> bool {
        let agreed = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                      upgrade: websocket\r\n\r\nhello";
        let _ = stream.write_all(agreed.as_bytes());
        let heard = read_until(stream, "there");
        let _ = stream.write_all(b" bye");
        assert_eq!(heard.as_deref(), Some("you there"));
        false
    }
    let origin = Origin::start(agree);
    let wardrobe = Wardrobe::new();
    let bed = wardrobe.bed(&origin);
    let mut stream = connect(&bed, wardrobe.client(&["http/1.1"]), "shop.example");
    let ask = "GET / HTTP/1.1\r\nhost: shop.example\r\nconnection: upgrade\r\n\
               upgrade: websocket\r\n\r\nyou ";
    stream.write_all(ask.as_bytes()).unwrap();
    let head = read_until(&mut stream, "hello").unwrap();
    assert_eq!(status(&head), 101, "{head}");
    stream.write_all(b"there").unwrap();
    assert_eq!(read_all(&mut stream), " bye");
}

#[test]
fn a_redirect_keeps_the_scheme_that_was_asked() {
    let origin = Origin::start(ok);
    let wardrobe = Wardrobe::new();
    let mut bed = wardrobe.bed(&origin);
    let mut rule = forward(&[origin.address]);
    let path = Some("/there".to_string());
    rule.action = Action::Redirect(Redirect { scheme: None, host: None, path, status: 308 });
    assert!(bed.put("one", rule).is_empty());
    let mut stream = connect(&bed, wardrobe.client(&[]), "shop.example");
    let answer = exchange(&mut stream, "shop.example:8443");
    assert_eq!(field(&answer, "location"), Some("https://shop.example:8443/there"));
}

#[test]
fn files_that_are_no_certificates_are_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let at = |file: &str| directory.path().join(file);
    write(directory.path(), "good.pem", &["a.example"], false);
    std::fs::write(at("empty.pem"), "").unwrap();
    let good = std::fs::read_to_string(at("good.pem")).unwrap();
    let chain = good.find("-----BEGIN CERTIFICATE").unwrap();
    std::fs::write(at("keyless.pem"), &good[chain..]).unwrap();
    std::fs::write(at("garbled.pem"), good.replace("MII", "MJJ")).unwrap();
    for file in ["empty.pem", "keyless.pem", "garbled.pem", "absent.pem"] {
        let refused = Certificates::read(vec![at("good.pem"), at(file)]).map(|_| ()).unwrap_err();
        assert!(refused.to_string().contains(file), "{refused}");
    }
    let none = tempfile::tempdir().unwrap();
    assert!(Certificates::read(vec![none.path().to_path_buf()]).is_err());
}

#[test]
fn a_connection_that_is_idle_for_too_long_ends_with_a_word_also_where_it_cannot_rest() {
    let (wardrobe, origin) = (Wardrobe::new(), Origin::start(ok));
    let bounds = Bounds { head: Duration::from_millis(200), ..Bounds::default() };
    let bed = wardrobe.bed_within(&origin, bounds);
    let mut client = connect(&bed, wardrobe.client(&[]), "blog.example");
    client
        .write_all(b"POST / HTTP/1.1\r\nhost: blog.example\r\ncontent-length: 4\r\n\r\nbody")
        .unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("RFC 9112 9.8: closure is announced");
    assert_eq!(status(&answer), 200, "{answer}");
}

#[test]
fn a_connection_behind_tls_rests_and_wakes_up() {
    let (wardrobe, origin) = (Wardrobe::new(), Origin::start(ok));
    let bounds = Bounds { rest: Duration::from_millis(50), ..Bounds::default() };
    let bed = wardrobe.bed_within(&origin, bounds);
    let mut stream = connect(&bed, wardrobe.client(&["http/1.1"]), "shop.example");
    for _ in 0..2 {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n").unwrap();
        assert!(read_until(&mut stream, "\r\n\r\nok").is_some());
        eventually("it rests", || bed.metrics.resting.load(Relaxed) == 1);
    }
    block_on(bed.drain(PATIENCE));
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "an end that was said, not a cut");
}
