//! A daemon whose services come by the IPVS socket only, and stock tools that talk to it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use seawall_lab::daemon::{Daemon, SERVER_PORT, service};
use seawall_lab::flood::Passes;
use seawall_lab::http::{Connection, HttpServer, ServerSpec, Timeouts};
use seawall_lab::{Namespace, Topology, TopologySpec, require};

use crate::SEAWALL;

/// What ipvsadm says, with its exit status; `prepare` gives it its environment.
pub(crate) fn ipvsadm(arguments: &str, input: &str, prepare: impl Fn(&mut Command)) -> String {
    let mut command = Command::new("ipvsadm");
    command.args(arguments.split(' ').filter(|word| !word.is_empty()));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    prepare(&mut command);
    let mut child = command.spawn().unwrap();
    // It may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let mut said = String::new();
    for bytes in [&output.stdout, &output.stderr] {
        for line in String::from_utf8_lossy(bytes).lines() {
            said.push_str(line);
            said.push('\n');
        }
    }
    match output.status.code() {
        Some(0) => {}
        Some(code) => {
            let _ = writeln!(said, "= {code}");
        }
        None => {
            let _ = writeln!(said, "= {}", output.status);
        }
    }
    said
}

/// Whether there is a program of that name.
pub(crate) fn have(program: &'static str) -> bool {
    // Running it would have it load the kernel's IPVS.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|folder| folder.join(program).exists());
    if !there {
        require::missing(format!("there is no {program} (apt-get install {program})"));
    }
    there
}

/// Has a command talk to Seawall.
pub(crate) fn preload(command: &mut Command, socket: &Path) {
    let library = std::env::current_exe().unwrap().with_file_name("libipvs_preload.so");
    assert!(library.exists(), "{}", library.display());
    command.env("LD_PRELOAD", library).env("SEAWALL_IPVS_SOCKET", socket);
}

/// Where services come by the socket only, and traffic goes through them.
pub(crate) struct Stage {
    pub(crate) daemon: Daemon,
    pub(crate) servers: Vec<SocketAddr>,
    /// Those that run.
    pub(crate) running: Vec<Option<HttpServer>>,
    _passes: Passes,
    pub(crate) topology: Topology,
}

impl Stage {
    /// `None` with a message where this process may not make networks, or there is no ipvsadm.
    pub(crate) fn new() -> Option<Self> {
        if !have("ipvsadm") {
            return None;
        }
        let topology = require::root(Topology::build(&TopologySpec::default()))?;
        let passes = Passes::attach(&topology).unwrap();
        let addresses = topology.servers.iter();
        let servers: Vec<_> =
            addresses.map(|host| SocketAddr::new(host.address(), SERVER_PORT)).collect();
        let running = servers.iter().zip(&topology.servers).enumerate();
        let running = running
            .map(|(number, (address, host))| Some(run_server(number, &host.namespace, *address)));
        let running = running.collect();
        let directory = tempfile::TempDir::with_prefix("seawall-").unwrap();
        let [api, ipvs] = ["api.sock", "ipvs.sock"].map(|name| directory.path().join(name));
        let config = format!(
            "interfaces = {:?}\n\n[api]\nsocket = {api:?}\n\n[ipvs]\nsocket = \
             {ipvs:?}\nlocal_addresses = \"pool\"\n\n[[local_addresses]]\nname = \"pool\"\naddresses = \
             [\"192.168.7.100-192.168.7.103\"]\n",
            topology.balancer_interfaces(),
        );
        let namespace = &topology.balancer.namespace;
        let daemon = Daemon::start_with(namespace, SEAWALL.as_ref(), &config, directory).unwrap();
        Some(Self { daemon, servers, running, _passes: passes, topology })
    }

    /// The IPVS socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.daemon.socket().with_file_name("ipvs.sock")
    }

    /// Starts or ends a real server.
    pub(crate) fn run(&mut self, number: usize, on: bool) {
        let namespace = &self.topology.servers[number].namespace;
        // The old one goes first: it has the port.
        self.running[number] = None;
        self.running[number] = on.then(|| run_server(number, namespace, self.servers[number]));
    }

    /// What ipvsadm says.
    pub(crate) fn ipvsadm(&self, arguments: &str) -> String {
        let run = || ipvsadm(arguments, "", |command| preload(command, &self.socket()));
        self.topology.balancer.namespace.run(run)
    }

    /// As [`Stage::ipvsadm`], which has nothing to say.
    #[track_caller]
    pub(crate) fn change(&self, arguments: &str) {
        assert_eq!(self.ipvsadm(arguments), "", "{arguments}; {}", self.daemon.log().unwrap());
    }

    pub(crate) fn reload(&self) -> String {
        let mut command = Command::new(SEAWALL);
        let output = command.args(["reload", "--api"]).arg(self.daemon.socket()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// A connection, and who answers on it.
    pub(crate) fn open(&self) -> (Connection, String) {
        self.topology.client.namespace.run(|| {
            let mut connection = Connection::open(service(), &Timeouts::default()).unwrap();
            let name = answer(&mut connection);
            (connection, name)
        })
    }

    /// The addresses that the balancer has.
    pub(crate) fn addresses(&self) -> String {
        let run = || Command::new("ip").args(["-o", "addr"]).output().unwrap();
        String::from_utf8(self.topology.balancer.namespace.run(run).stdout).unwrap()
    }
}

fn run_server(number: usize, namespace: &Namespace, address: SocketAddr) -> HttpServer {
    HttpServer::start(namespace, address, ServerSpec::new(&format!("rs{number}"))).unwrap()
}

/// Who answers on a connection.
pub(crate) fn answer(connection: &mut Connection) -> String {
    let response = connection.get("/").unwrap();
    assert_eq!(response.status, 200);
    response.server.unwrap()
}
