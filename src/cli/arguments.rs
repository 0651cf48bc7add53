//! The command line: names, flags and defaults. What they do is elsewhere.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::bench::changes::ChangesArguments;
use super::bench::latency::command::LatencyArguments;
use super::bench::proxy::ProxyArguments;
use super::bench::soak::SoakArguments;
use super::output::Format;
use super::traffic::TrafficArguments;

/// A global HTTP proxy that keeps steering when its control plane is gone.
#[derive(Debug, Parser)]
#[command(name = "tradewind", version, propagate_version = true, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A whole fleet on this machine, to try things on
    Demo(DemoArguments),
    /// Run an orchestrator
    Orchestrator(OrchestratorArguments),
    /// Run a node
    Node(Box<NodeArguments>),
    /// Write rules, as one commit
    Apply(ApplyArguments),
    /// Show what `apply` would change; exit code 3 when something would
    Diff(FileArguments),
    /// Check rules without anybody's help
    Validate {
        /// A file, a directory, or - for standard input
        file: String,
    },
    /// Why a request goes where it goes
    Explain(ExplainArguments),
    /// Look at rules and change them
    #[command(subcommand)]
    Rule(RuleCommand),
    /// One rule (short for `rule get`)
    Get(RuleArguments),
    /// The fleet, a row per node
    Status(ClientArguments),
    /// How far the newest commit, or a rule's newest version, has come
    Propagation {
        /// The rule
        rule: Option<String>,
        #[command(flatten)]
        client: ClientArguments,
    },
    /// What a node knows about its targets
    Latency(ClientArguments),
    /// Whom a node gossips with
    Neighbours {
        /// The node's name, looked up at the orchestrator; or use --node URL
        name: Option<String>,
        #[command(flatten)]
        client: ClientArguments,
    },
    /// Exit code 3 when a node is behind, rejects a rule or raises an alarm
    Check(ClientArguments),
    /// Measure, reproducibly
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Make the token that control ports beyond the loopback need
    Token {
        /// Where to keep it; an existing one stays
        #[arg(long)]
        out: PathBuf,
    },
    /// Whether a node or an orchestrator is ready; for container health checks
    Healthcheck {
        /// A node's peer port
        #[arg(long, env = "TRADEWIND_NODE")]
        node: Option<String>,
        /// An orchestrator's HTTP port
        #[arg(long)]
        orchestrator: Option<String>,
    },
    /// Completions for a shell
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// The version of this program
    Version,
}

/// Whom to talk to, and how to print.
#[derive(Clone, Debug, Args)]
pub(crate) struct ClientArguments {
    /// The orchestrator's gRPC port
    #[arg(long, env = "TRADEWIND_ORCHESTRATOR", default_value = "http://127.0.0.1:7400")]
    pub(crate) orchestrator: String,
    /// A node's peer port, instead of the orchestrator
    #[arg(long, env = "TRADEWIND_NODE")]
    pub(crate) node: Option<String>,
    /// A file with the cluster token
    #[arg(long, env = "TRADEWIND_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

#[derive(Debug, Args)]
pub(crate) struct FileArguments {
    /// A file, a directory, or - for standard input
    #[arg(short, long, env = "TRADEWIND_FILE")]
    pub(crate) file: String,
    #[command(flatten)]
    pub(crate) client: ClientArguments,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArguments {
    #[command(flatten)]
    pub(crate) what: FileArguments,
    /// Check everything, change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Wait until every connected node has it in force, or this share of them
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "all",
          value_name = "all|90%")]
    pub(crate) wait: Option<String>,
    /// How long to wait
    #[arg(long, default_value = "30s")]
    pub(crate) timeout: String,
    /// Write only where this is the current version (one rule; 0: must not exist)
    #[arg(long)]
    pub(crate) if_version: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct RuleArguments {
    /// The rule
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) client: ClientArguments,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RuleCommand {
    /// One rule
    Get(RuleArguments),
    /// All live rules
    List {
        /// Only ids that begin so
        #[arg(default_value = "")]
        prefix: String,
        #[command(flatten)]
        client: ClientArguments,
    },
    /// Retire a rule
    Delete {
        #[command(flatten)]
        rule: RuleArguments,
        /// Only where this is the current version
        #[arg(long)]
        if_version: Option<u64>,
    },
    /// The remembered versions of a rule, conflicts included
    History(RuleArguments),
    /// Pairs of rules that match the same, so that the older one serves
    Conflicts(ClientArguments),
    /// Every change from now on, as it is committed
    Watch {
        /// Only ids that begin so
        #[arg(default_value = "")]
        prefix: String,
        #[command(flatten)]
        client: ClientArguments,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArguments {
    /// The request's URL
    pub(crate) url: String,
    /// Its method
    #[arg(short = 'X', long, default_value = "GET")]
    pub(crate) method: String,
    /// A header, as NAME: VALUE
    #[arg(short = 'H', long)]
    pub(crate) header: Vec<String>,
    #[command(flatten)]
    pub(crate) client: ClientArguments,
}

#[derive(Debug, Args)]
pub(crate) struct OrchestratorArguments {
    #[command(subcommand)]
    pub(crate) command: Option<OrchestratorCommand>,
    /// A TOML file of settings: each key a flag of this command; flags and variables win
    #[arg(long, env = "TRADEWIND_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where nodes and writers connect
    #[arg(long, env = "TRADEWIND_GRPC_LISTEN", default_value = "127.0.0.1:7400")]
    pub(crate) grpc_listen: SocketAddr,
    /// The page, JSON, metrics and health
    #[arg(long, env = "TRADEWIND_HTTP_LISTEN", default_value = "127.0.0.1:7401")]
    pub(crate) http_listen: SocketAddr,
    /// Where the rules and the cluster key are kept
    #[arg(long, env = "TRADEWIND_DATA", default_value = "tradewind-orchestrator")]
    pub(crate) data: PathBuf,
    /// A name for people
    #[arg(long, env = "TRADEWIND_CLUSTER", default_value = "tradewind")]
    pub(crate) cluster: String,
    /// A file with the cluster token; needed where a port leaves the loopback
    #[arg(long, env = "TRADEWIND_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) tls: TlsArguments,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OrchestratorCommand {
    /// Take the fleet's rules back after the store was lost
    ///
    /// Asks a running, fenced orchestrator, which asks its followers; with --data the one that is
    /// stopped and has this directory, which asks the nodes named by --from.
    Recover {
        /// Nodes to ask besides the followers: URLs of peer ports
        #[arg(long = "from")]
        from: Vec<String>,
        /// The directory of a stopped orchestrator
        #[arg(long)]
        data: Option<PathBuf>,
        /// Begin with no rules where no node has any; one that has some fences it again
        #[arg(long)]
        new_fleet: bool,
        #[command(flatten)]
        client: ClientArguments,
    },
    /// Copy the store of a stopped orchestrator, checked; the cluster key is not in it
    Backup {
        /// A file that is not there yet
        to: PathBuf,
        /// The orchestrator's directory
        #[arg(long, env = "TRADEWIND_DATA", default_value = "tradewind-orchestrator")]
        data: PathBuf,
    },
    /// The public half of the cluster key, for --trust at nodes
    Keys {
        /// The orchestrator's directory
        #[arg(long, env = "TRADEWIND_DATA", default_value = "tradewind-orchestrator")]
        data: PathBuf,
    },
}

/// Not in this release; given, they are refused.
#[derive(Debug, Args)]
pub(crate) struct TlsArguments {
    #[arg(long, env = "TRADEWIND_TLS_CERT", hide = true)]
    pub(crate) tls_cert: Option<PathBuf>,
    #[arg(long, env = "TRADEWIND_TLS_KEY", hide = true)]
    pub(crate) tls_key: Option<PathBuf>,
    #[arg(long, env = "TRADEWIND_TLS_CA", hide = true)]
    pub(crate) tls_ca: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct NodeArguments {
    /// A TOML file of settings: each key a flag of this command; flags and variables win
    #[arg(long, env = "TRADEWIND_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The node's name: [a-z0-9-]{1,63}
    #[arg(long, env = "TRADEWIND_ID")]
    pub(crate) id: String,
    /// Where it stands
    #[arg(long, env = "TRADEWIND_REGION", default_value = "")]
    pub(crate) region: String,
    /// What rules may select it by (repeatable)
    #[arg(long = "label", env = "TRADEWIND_LABEL", value_name = "K=V", value_delimiter = ',')]
    pub(crate) labels: Vec<String>,
    /// Where clients connect (repeatable)
    #[arg(long, env = "TRADEWIND_LISTEN", default_value = "127.0.0.1:8080", value_delimiter = ',')]
    pub(crate) listen: Vec<SocketAddr>,
    #[command(flatten)]
    pub(crate) traffic: TrafficArguments,
    /// Where peers and people connect
    #[arg(long, env = "TRADEWIND_PEER_LISTEN", default_value = "127.0.0.1:7500")]
    pub(crate) peer_listen: SocketAddr,
    /// The peer port as others reach it: http://ADDRESS:PORT
    #[arg(long, env = "TRADEWIND_PEER_ADVERTISE")]
    pub(crate) peer_advertise: Option<String>,
    /// An orchestrator's gRPC port (repeatable)
    #[arg(
        long = "orchestrator",
        env = "TRADEWIND_ORCHESTRATOR",
        value_name = "URL",
        value_delimiter = ','
    )]
    pub(crate) orchestrators: Vec<String>,
    /// A peer to begin with (repeatable)
    #[arg(long = "seed", env = "TRADEWIND_SEED", value_name = "URL", value_delimiter = ',')]
    pub(crate) seeds: Vec<String>,
    /// A fixed topology: exactly these neighbours
    #[arg(long, env = "TRADEWIND_NEIGHBOURS", value_name = "URL,…", value_delimiter = ',')]
    pub(crate) neighbours: Vec<String>,
    /// Closest neighbours to keep
    #[arg(long, env = "TRADEWIND_NEAR", default_value_t = 5)]
    pub(crate) near: usize,
    /// Random neighbours to keep
    #[arg(long, env = "TRADEWIND_FAR", default_value_t = 2)]
    pub(crate) far: usize,
    /// Where the node keeps its rules and its key
    #[arg(long, env = "TRADEWIND_DATA", default_value = "tradewind-node")]
    pub(crate) data: PathBuf,
    /// A rules file, watched; below everything else
    #[arg(long, env = "TRADEWIND_RULES")]
    pub(crate) rules: Option<PathBuf>,
    /// A cluster key to trust, 64 hexadecimal digits (repeatable); none: learn it
    #[arg(long = "trust", env = "TRADEWIND_TRUST", value_delimiter = ',')]
    pub(crate) trust: Vec<String>,
    /// A network in which targets are allowed although they are on this machine (repeatable)
    #[arg(
        long = "allow-target",
        env = "TRADEWIND_ALLOW_TARGET",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub(crate) allow_target: Vec<String>,
    /// A JSON line for each request: a file, - for standard output, or off
    #[arg(long, env = "TRADEWIND_ACCESS_LOG", value_name = "FILE", default_value = "-")]
    pub(crate) access_log: PathBuf,
    /// A Unix socket over which a newer process takes this one's place
    #[arg(long, env = "TRADEWIND_HAND_OVER", value_name = "PATH")]
    pub(crate) hand_over: Option<PathBuf>,
    /// When leaving: how long to be unready before connections are refused
    #[arg(long, env = "TRADEWIND_DRAIN_DELAY", default_value = "500ms")]
    pub(crate) drain_delay: String,
    /// When leaving: how long what runs may take to come to its end
    #[arg(long, env = "TRADEWIND_DRAIN_TIMEOUT", default_value = "15s")]
    pub(crate) drain_timeout: String,
    /// Simulated distances between regions; for demonstrations only
    #[arg(long, env = "TRADEWIND_SIMULATE")]
    pub(crate) simulate: Option<PathBuf>,
    /// Threads for traffic; 0: one per core
    #[arg(long, env = "TRADEWIND_TRAFFIC_THREADS", default_value_t = 0)]
    pub(crate) traffic_threads: usize,
    /// A file with the cluster token; needed where the peer port leaves the loopback
    #[arg(long, env = "TRADEWIND_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) tls: TlsArguments,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    #[command(subcommand)]
    pub(crate) command: Option<DemoCommand>,
    /// Bring everything up, check it, say how it went, and end
    #[arg(long)]
    pub(crate) check: bool,
    /// Requests per second through each node
    #[arg(long, default_value_t = 100)]
    pub(crate) rate: u32,
    /// The demo's control port, for its subcommands
    #[arg(long, global = true, default_value = "127.0.0.1:7499")]
    pub(crate) control: SocketAddr,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DemoCommand {
    /// Make a target slower: `demo slow 127.0.0.1:9001 300ms`
    Slow {
        /// Its address
        target: String,
        /// By how much
        by: String,
    },
    /// End the orchestrator: `demo cut orchestrator`
    Cut {
        /// What to cut
        what: String,
    },
    /// Keep streams open but silent: `demo silence orchestrator`
    Silence {
        /// What to silence
        what: String,
    },
    /// End a node without a word: `demo kill fra2`
    Kill {
        /// Its name
        node: String,
    },
    /// Start a node again: `demo restart fra2 [--empty-disk]`
    Restart {
        /// Its name
        node: String,
        /// With nothing on its disk
        #[arg(long)]
        empty_disk: bool,
    },
    /// Undo slow, cut, silence and kill
    Heal,
    /// Who answers whom, over the last seconds
    Status,
    /// One demo target alone, for containers
    #[command(hide = true)]
    Target {
        #[arg(long, env = "TRADEWIND_LISTEN")]
        listen: SocketAddr,
        #[arg(long, default_value = "")]
        region: String,
    },
    /// The demo's load alone, for containers
    #[command(hide = true)]
    Load {
        /// Traffic ports (repeatable)
        #[arg(long = "node", value_delimiter = ',')]
        nodes: Vec<String>,
        /// The Host to ask for
        #[arg(long, default_value = "demo.example")]
        host: String,
        /// Requests per second through each
        #[arg(long, default_value_t = 50)]
        rate: u32,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// One rule to many followers, beside a naive broadcast
    Fleet {
        /// Followers in this process
        #[arg(long, default_value_t = 1000)]
        followers: usize,
        /// Rules there are already
        #[arg(long, default_value_t = 100)]
        rules: usize,
        /// Pushes of each kind
        #[arg(long, default_value_t = 20)]
        rounds: usize,
    },
    /// Choosing among near, far and troubled targets, beside nginx and HAProxy where installed
    Latency(LatencyArguments),
    /// Requests through a node, beside other proxies where they are installed
    Proxy(ProxyArguments),
    /// From a rule pushed to a running node to the first request that it serves
    Push {
        /// How many rules the node has (repeatable)
        #[arg(long, value_delimiter = ',', default_values_t = [10, 10_000, 100_000])]
        rules: Vec<usize>,
        /// How often a rule is pushed
        #[arg(long, default_value_t = 200)]
        pushes: usize,
    },
    /// Rule changes under load: what requests and WebSockets of other rules notice of them
    Changes(ChangesArguments),
    /// Everything at once for half an hour, to see whether anything grows; exit code 1 when it does
    Soak(SoakArguments),
    /// The origin of measurements as a process of its own
    #[command(hide = true)]
    Origin {
        #[arg(long)]
        listen: SocketAddr,
        /// Bytes of an answer
        #[arg(long, default_value_t = 1024)]
        size: usize,
    },
}
