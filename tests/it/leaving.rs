//! A node leaves, or another process takes its place, and nobody's request fails.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use crate::harness::{Process, binary, eventually, free_ports, http, respond_rule, with_rules};

/// A node with a rules file that answers `/` by itself.
struct Solo {
    directory: tempfile::TempDir,
    traffic: SocketAddr,
    peer: SocketAddr,
}

impl Solo {
    fn new() -> Solo {
        let directory = tempfile::tempdir().unwrap();
        let rules = "id: one\ndata: { respond: { body: here } }\n";
        std::fs::write(directory.path().join("rules.yaml"), rules).unwrap();
        let ports = free_ports(2);
        Solo { directory, traffic: ports[0], peer: ports[1] }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("hand-over")
    }

    fn arguments(&self, threads: u32) -> Vec<String> {
        let at = |name: &str| self.directory.path().join(name);
        let (socket, threads) = (self.socket().display().to_string(), threads.to_string());
        let more = ["--hand-over", &socket, "--traffic-threads", &threads];
        with_rules("solo", (self.traffic, self.peer), &at("data"), &at("rules.yaml"), &more)
    }

    fn start(&self, threads: u32) -> Process {
        Process::start(&self.arguments(threads))
    }

    fn answers(&self) -> bool {
        http(self.traffic, "GET", "/", None).is_some_and(|answer| answer.body == "here")
    }

    fn is_up(&self) {
        eventually(Duration::from_secs(10), "the node serves", || self.answers().then_some(()));
        eventually(Duration::from_secs(10), "it can hand over", || {
            self.socket().exists().then_some(())
        });
    }

    /// An override by hand, which needs the disk.
    fn writes(&self, name: &str) -> u16 {
        let path = format!("/v1/configuration/{name}");
        http(self.peer, "POST", &path, Some(&respond_rule(name))).map_or(0, |answer| answer.status)
    }
}

#[test]
fn another_process_takes_over_and_no_new_connection_fails() {
    let solo = Solo::new();
    let mut running = solo.start(2);
    solo.is_up();
    assert_eq!(solo.writes("before"), 200);
    let over = AtomicBool::new(false);
    let (served, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(SeqCst) {
                    let count = if solo.answers() { &served } else { &failed };
                    count.fetch_add(1, SeqCst);
                    std::thread::sleep(PACE);
                }
            });
        }
        // More threads than sockets, then fewer.
        for threads in [3, 1, 2] {
            let at = served.load(SeqCst);
            let next = solo.start(threads);
            assert_eq!(running.ended(Duration::from_secs(30)), Some(0), "the one before leaves");
            running = next;
            eventually(Duration::from_secs(10), "requests go on", || {
                (served.load(SeqCst) > at + 20).then_some(())
            });
        }
        over.store(true, SeqCst);
    });
    assert_eq!(failed.load(SeqCst), 0, "of {}", served.load(SeqCst));
    assert!(served.load(SeqCst) > 60);
    let kept = http(solo.traffic, "GET", "/before", None).unwrap();
    assert_eq!(kept.body, "before", "what was written by hand came along");
    assert_eq!(solo.writes("after"), 200, "and the disk is the new one's");
}

#[test]
fn a_newcomer_that_gives_up_changes_nothing() {
    let solo = Solo::new();
    let running = solo.start(1);
    solo.is_up();
    let mut newcomer = UnixStream::connect(solo.socket()).unwrap();
    newcomer.write_all(b"tradewind hand-over 1\n").unwrap();
    let mut word = [0; 1];
    newcomer.read_exact(&mut word).unwrap();
    assert_eq!(solo.writes("meanwhile"), 507, "the directory is lent: it happened");
    assert!(solo.answers());
    drop(newcomer);
    eventually(Duration::from_secs(10), "the disk is taken back", || {
        (solo.writes("later") == 200).then_some(())
    });
    let mut stranger = UnixStream::connect(solo.socket()).unwrap();
    stranger.write_all(b"something else entirely\n").unwrap();
    assert_eq!(stranger.read(&mut word).unwrap_or(0), 0, "strangers are let go");
    assert!(solo.answers());
    assert_eq!(running.terminate(), Some(0));
}

#[test]
fn a_newcomer_that_hangs_does_not_keep_the_node_from_leaving() {
    let solo = Solo::new();
    let mut running = solo.start(1);
    solo.is_up();
    let mut newcomer = UnixStream::connect(solo.socket()).unwrap();
    newcomer.write_all(b"tradewind hand-over 1\n").unwrap();
    newcomer.read_exact(&mut [0; 1]).unwrap();
    assert_eq!(solo.writes("meanwhile"), 507, "the directory is lent: it happened");
    running.signal("TERM");
    assert_eq!(running.ended(Duration::from_secs(5)), Some(0));
    drop(newcomer);
}

/// Starts a node that takes over from this test, which has nothing to give; it serves then, and
/// waits for the word that the process before leaves.
fn takes_over(solo: &Solo) -> (Process, UnixListener, UnixStream) {
    let door = UnixListener::bind(solo.socket()).unwrap();
    let newcomer = solo.start(1);
    let (mut stream, _) = door.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut greeting = [0; b"tradewind hand-over 1\n".len()];
    stream.read_exact(&mut greeting).unwrap();
    stream.write_all(b".").unwrap();
    let mut serving = [0; b"serving\n".len()];
    stream.read_exact(&mut serving).unwrap();
    assert_eq!(&serving, b"serving\n");
    (newcomer, door, stream)
}

#[test]
fn a_process_that_is_killed_while_it_hands_over_takes_nobody_with_it() {
    let solo = Solo::new();
    let (newcomer, door, stream) = takes_over(&solo);
    drop((door, stream));
    eventually(Duration::from_secs(20), "the newcomer can hand over", || {
        UnixStream::connect(solo.socket()).ok()
    });
    assert!(solo.answers());
    assert_eq!(newcomer.terminate(), Some(0));
}

#[test]
fn a_process_that_does_not_leave_after_all_is_left_alone() {
    let solo = Solo::new();
    let (mut newcomer, _door, stream) = takes_over(&solo);
    drop(stream);
    assert_eq!(newcomer.ended(Duration::from_secs(20)), Some(1));
}

#[test]
fn whoever_has_taken_over_serves_even_where_nobody_can_take_over_from_it() {
    let solo = Solo::new();
    let (newcomer, _door, mut stream) = takes_over(&solo);
    std::fs::remove_file(solo.socket()).unwrap();
    std::fs::write(solo.socket(), "in the way").unwrap();
    stream.write_all(b"leaving\n").unwrap();
    assert!(solo.answers());
    assert_eq!(newcomer.terminate(), Some(0), "it served until it was told to end");
    let mut first = solo.start(1);
    let refused = first.ended(Duration::from_secs(20));
    assert_eq!(refused, Some(78), "where nobody is replaced the flag is wrong");
}

#[test]
fn a_socket_left_behind_by_a_killed_process_is_no_obstacle() {
    let solo = Solo::new();
    let running = solo.start(1);
    solo.is_up();
    running.kill();
    assert!(solo.socket().exists());
    let _again = solo.start(1);
    eventually(Duration::from_secs(10), "the node serves", || solo.answers().then_some(()));
}

#[test]
fn sockets_of_a_service_manager_are_used_and_those_who_wait_in_them_are_answered() {
    let solo = Solo::new();
    let held = TcpListener::bind(solo.traffic).unwrap();
    // Nobody accepts yet; the connection waits.
    let mut early = TcpStream::connect(solo.traffic).unwrap();
    early.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut command = std::process::Command::new("sh");
    let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
    command.arg("-c").arg(script).arg(binary().get_program()).args(solo.arguments(2));
    command.stdin(Stdio::from(std::os::fd::OwnedFd::from(held)));
    let _node = Process::of(command);
    let mut answer = String::new();
    early.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    early.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("here"), "{answer}");
    assert!(solo.answers());
}

/// A limit on the size of files is a disk that is full at that point, and can be given room.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_stops_neither_traffic_nor_rules_and_heals_when_there_is_room() {
    let solo = Solo::new();
    let mut command = std::process::Command::new("sh");
    let script = "trap '' XFSZ; exec \"$0\" \"$@\"";
    command.arg("-c").arg(script).arg(binary().get_program()).args(solo.arguments(1));
    command.stdin(Stdio::null());
    let running = Process::of(command);
    solo.is_up();
    assert_eq!(solo.writes("before"), 200);
    let limit = |size: &str| {
        let pid = running.id().to_string();
        let words = ["--pid", &pid, &format!("--fsize={size}:unlimited")];
        let done = std::process::Command::new("prlimit").args(words).status().unwrap();
        assert!(done.success());
    };
    let status = || http(solo.peer, "GET", "/v1/status", None).map(|answer| answer.json());
    limit("4096");
    assert_eq!(solo.writes("refused"), 507, "what is not on the disk is not acknowledged");
    assert_eq!(status().unwrap()["diskFailing"], true);
    let metrics = http(solo.peer, "GET", "/metrics", None).unwrap().body;
    assert!(metrics.contains("tradewind_disk_failing 1"));
    let rules = "id: one\ndata: { respond: { body: here } }\n---\n\
                 id: two\ndata: { match: { any: [{ path: { exact: /two } }] }, \
                 respond: { body: two } }\n";
    std::fs::write(solo.directory.path().join("rules.yaml"), rules).unwrap();
    eventually(Duration::from_secs(10), "rules go on changing", || {
        http(solo.traffic, "GET", "/two", None).filter(|answer| answer.body == "two")
    });
    assert!(solo.answers());
    limit("unlimited");
    eventually(Duration::from_secs(30), "it heals", || {
        (status()?["diskFailing"] == false).then_some(())
    });
    assert_eq!(solo.writes("after"), 200);
    running.kill();
    let _again = solo.start(1);
    let held = |name: &str| {
        http(solo.traffic, "GET", &format!("/{name}"), None).map(|answer| answer.body == name)
    };
    eventually(Duration::from_secs(10), "it serves again", || solo.answers().then_some(()));
    assert_eq!((held("before"), held("after")), (Some(true), Some(true)));
    assert_eq!(held("refused"), Some(false), "what was refused did not come back");
}

#[test]
fn a_terminated_node_answers_everybody_and_says_that_the_connection_closes() {
    let solo = Solo::new();
    let running = solo.start(1);
    solo.is_up();
    let served = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..8).map(|_| scope.spawn(|| until_closed(&solo, &served))).collect();
        eventually(Duration::from_secs(10), "all are served", || {
            (served.load(SeqCst) > 200).then_some(())
        });
        let code = scope.spawn(|| running.terminate());
        eventually(Duration::from_secs(5), "it is unready before it closes", || {
            let answer = http(solo.peer, "GET", "/readyz", None)?;
            (answer.status == 503).then_some(())
        });
        assert!(solo.answers(), "unready, and still there for those who have not seen it");
        for client in clients {
            client.join().unwrap();
        }
        assert_eq!(code.join().unwrap(), Some(0));
    });
}

/// Whoever ends a node twice waits for nobody, and the access log still has all.
#[test]
fn a_second_signal_ends_a_node_at_once_and_loses_no_line() {
    // The first time while the node only says that it is unready, then while it drains.
    for delay in ["60s", "0s"] {
        let solo = Solo::new();
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let rules = format!(
            "id: one\ndata: {{ respond: {{ body: here }} }}\n---\nid: held\ndata: {{ match: {{ \
             any: [{{ path: {{ exact: /held }} }}] }}, targets: [{{ url: \"http://{}\" }}] }}\n",
            silent.local_addr().unwrap()
        );
        std::fs::write(solo.directory.path().join("rules.yaml"), rules).unwrap();
        let path = solo.directory.path().join("access.log");
        let log = path.display().to_string();
        let more = ["--access-log", &log, "--drain-delay", delay, "--drain-timeout", "60s"];
        let mut arguments = solo.arguments(1);
        arguments.extend(more.map(str::to_string));
        let mut running = Process::start(&arguments);
        solo.is_up();
        let mut held = TcpStream::connect(solo.traffic).unwrap();
        held.write_all(b"GET /held HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        let _asked = silent.accept().unwrap();
        running.signal("TERM");
        eventually(Duration::from_secs(5), "it is unready", || {
            let answer = http(solo.peer, "GET", "/readyz", None)?;
            (answer.status == 503).then_some(())
        });
        let last = http(solo.traffic, "GET", "/last", None).is_some();
        assert!(last || delay == "0s", "served while it is only unready");
        running.signal("TERM");
        assert_eq!(running.ended(Duration::from_secs(10)), Some(0));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("\"path\":\"/held\""), "{delay}: {text}");
        assert!(text.contains("\"path\":\"/last\"") || !last, "{delay}: {text}");
        assert!(text.ends_with("}\n"), "{delay}: {text}");
    }
}

/// Requests on one connection until an answer says that it closes. None may fail.
fn until_closed(solo: &Solo, served: &AtomicU64) {
    let mut stream = TcpStream::connect(solo.traffic).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = reader.read_line(&mut head).unwrap();
            assert!(read > 0, "closed without an answer after {head:?}");
        }
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let closes = head.to_ascii_lowercase().contains("connection: close");
        let mut body = [0; 4];
        reader.read_exact(&mut body).unwrap();
        assert_eq!(&body, b"here");
        served.fetch_add(1, SeqCst);
        if closes {
            return;
        }
        std::thread::sleep(PACE);
    }
}

/// Between two requests of a client: other tests share the machine.
const PACE: Duration = Duration::from_millis(2);
